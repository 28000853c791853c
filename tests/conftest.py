"""Settings of all tests."""

from hypothesis import settings

# A slow or busy machine is no reason for a test to fail.
settings.register_profile("kvswarm", deadline=None)
settings.load_profile("kvswarm")
