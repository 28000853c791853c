"""The `structured-output` profile as a Locust user class.

Use: locust -f locustfiles/structured_output.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("structured-output")


class StructuredOutputUser(LLMUser):
    """Load as `structured-output` (or --kv-profile) says."""
