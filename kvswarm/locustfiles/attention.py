"""The `attention` profile as a Locust user class.

Use: locust -f locustfiles/attention.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("attention")


class AttentionUser(LLMUser):
    """Load as `attention` (or --kv-profile) says."""
