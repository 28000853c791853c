"""The `standard` profile as a Locust user class.

Use: locust -f locustfiles/standard.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("standard")


class StandardUser(LLMUser):
    """Load as `standard` (or --kv-profile) says."""
