"""Settings of all tests."""

import signal

from hypothesis import settings

# A slow or busy machine is no reason for a test to fail. Examples are the same every time, so that a
# change is judged by what it changes; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("kvswarm", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("kvswarm")

# A shell that runs the tests in the background, or nohup, has these ignored, and every process that a
# test starts would inherit that: then no test of Ctrl-C could pass.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
