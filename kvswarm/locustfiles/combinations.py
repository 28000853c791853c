"""The `combinations/high-throughput` profile as a Locust user class.

Others of its folder: --kv-profile combinations/NAME.

Use: locust -f locustfiles/combinations.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("combinations/high-throughput")


class CombinationUser(LLMUser):
    """Load as `combinations/high-throughput` (or --kv-profile) says."""
