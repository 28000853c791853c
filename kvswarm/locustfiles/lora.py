"""The `lora` profile as a Locust user class.

Use: locust -f locustfiles/lora.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("lora")


class LoRAUser(LLMUser):
    """Load as `lora` (or --kv-profile) says."""
