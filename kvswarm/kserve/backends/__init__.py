"""The model servers that KServe can run: each a function of what is wanted, in a file of its own.

A backend gets features that say over how many GPUs the model is spread, and answers with its
arguments in its own words, and a note on every feature that it has no words for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvswarm.kserve.backends.tensorrt_llm import tensorrt_llm
from kvswarm.kserve.backends.tgi import tgi
from kvswarm.kserve.backends.triton import triton
from kvswarm.kserve.backends.vllm import vllm
from kvswarm.kserve.backends.vllm_runtime import vllm_runtime
from kvswarm.kserve.wanted import Served, Wanted

BACKENDS: Final[dict[str, Callable[[Wanted], Served]]] = {
    "vllm": vllm,
    "vllm-runtime": vllm_runtime,
    "tgi": tgi,
    "tensorrt-llm": tensorrt_llm,
    "triton": triton,
}
NEED_A_GPU: Final = frozenset({"tgi", "tensorrt-llm", "triton"})
"""Their images hold no build for CPUs."""
