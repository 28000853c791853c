"""The `tool-calling` profile as a Locust user class.

Use: locust -f locustfiles/tool_calling.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("tool-calling")


class ToolCallingUser(LLMUser):
    """Load as `tool-calling` (or --kv-profile) says."""
