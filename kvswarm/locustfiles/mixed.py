"""The `mixed` profile as a Locust user class. Requests of several profiles, by weight.

Use: locust -f locustfiles/mixed.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("mixed")


class MixedUser(LLMUser):
    """Load as `mixed` (or --kv-profile) says."""
