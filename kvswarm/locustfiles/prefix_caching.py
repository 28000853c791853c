"""The `prefix-caching` profile as a Locust user class.

Use: locust -f locustfiles/prefix_caching.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("prefix-caching")


class PrefixCachingUser(LLMUser):
    """Load as `prefix-caching` (or --kv-profile) says."""
