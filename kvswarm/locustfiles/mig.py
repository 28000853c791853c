"""The `mig/a100-1g.5gb` profile as a Locust user class.

Others of its folder: --kv-profile mig/NAME.

Use: locust -f locustfiles/mig.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("mig/a100-1g.5gb")


class MIGUser(LLMUser):
    """Load as `mig/a100-1g.5gb` (or --kv-profile) says."""
