"""The `cpu-smoke` profile as a Locust user class.

Use: locust -f locustfiles/cpu_smoke.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("cpu-smoke")


class CPUSmokeUser(LLMUser):
    """Load as `cpu-smoke` (or --kv-profile) says."""
