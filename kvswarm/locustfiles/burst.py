"""The `burst` profile as a Locust user class.

Use: locust -f locustfiles/burst.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("burst")


class BurstUser(LLMUser):
    """Load as `burst` (or --kv-profile) says."""
