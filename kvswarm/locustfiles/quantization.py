"""The `quantization/fp8` profile as a Locust user class.

Others of its folder: --kv-profile quantization/NAME.

Use: locust -f locustfiles/quantization.py --host http://127.0.0.1:8000
     with web UI, --headless, --processes N, or as --master and --worker.
"""

from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("quantization/fp8")


class QuantizationUser(LLMUser):
    """Load as `quantization/fp8` (or --kv-profile) says."""
