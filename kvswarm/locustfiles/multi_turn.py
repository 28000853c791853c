"""The `multi-turn` profile as a Locust user class.

Use: locust -f locustfiles/multi_turn.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("multi-turn")


class MultiTurnUser(LLMUser):
    """Load as `multi-turn` (or --kv-profile) says."""
