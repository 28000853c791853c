"""The `speculative-decoding` profile as a Locust user class.

Use: locust -f locustfiles/speculative_decoding.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("speculative-decoding")


class SpeculativeDecodingUser(LLMUser):
    """Load as `speculative-decoding` (or --kv-profile) says."""
