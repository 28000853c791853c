"""Which backend quantizes a model itself, and which must be given a checkpoint that is.

In:  a backend, a method, the version of vLLM.  Out: yes or no.
"""

from __future__ import annotations

from typing import Final

from kvswarm.kserve.backends.tgi import QUANTIZES_ITSELF
from kvswarm.kserve.backends.vllm import VLLM_VERSION
from kvswarm.serving.quantization import quantization, quantizes_at_start
from kvswarm.serving.versions import NEWEST, vllm_version

VLLM_VERSIONS: Final = {"vllm": VLLM_VERSION, "vllm-runtime": str(NEWEST)}
"""Backends that are vLLM, and the version that they have unless another is named."""


def needs_checkpoint(backend: str, method: str, version: str | None) -> bool:
    """Whether `method` is served of a checkpoint of its own only.

    `version`: of vLLM, None: the backend's own. Raises ProfileError for an unknown method.
    """
    if backend in VLLM_VERSIONS:
        return not quantizes_at_start(method, vllm_version(version or VLLM_VERSIONS[backend]))
    return not (backend == "tgi" and quantization(method).method in QUANTIZES_ITSELF)
