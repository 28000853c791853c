"""Text Generation Inference (TGI), by a ServingRuntime of its own: KServe has none.

Its OpenAI API is at `/v1`. The image listens on port 80 unless it is told otherwise. The project is
archived since March 2026; 3.3.7 is its last release.
Source of the flags: `text-generation-launcher --help` of 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvswarm.kserve.backends.words import (
    OwnServer,
    Page,
    Words,
    Writer,
    flag,
    left_out,
    quantization_method,
    served_by,
    switch,
)
from kvswarm.kserve.sources import MODEL_DIRECTORY
from kvswarm.kserve.wanted import RuntimeShape, Served, Wanted
from kvswarm.serving.speculation import Speculation

IMAGE: Final = "ghcr.io/huggingface/text-generation-inference:3.3.7"
PORT: Final = 8080
ARCHIVED: Final = (
    "TGI is archived since March 2026, and 3.3.7 is its last release: measure it to compare or to "
    "move away from it, and serve new models with vllm."
)
KV_CACHE: Final = {"fp8": "fp8_e4m3fn", "fp8_e4m3": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2"}
DTYPES: Final = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16"}
QUANTIZE: Final = frozenset({"awq", "gptq", "fp8", "marlin", "bitsandbytes", "compressed-tensors"})
QUANTIZES_ITSELF: Final = frozenset({"fp8"})
"""Methods that it makes of a checkpoint in 16 bits at its start."""


def tgi(wanted: Wanted) -> Served:
    """Serve with TGI. Raises ProfileError for features that cannot be."""
    page = Page("TGI", notes=[ARCHIVED])
    page.arguments += [f"--model-id={MODEL_DIRECTORY}", f"--port={PORT}"]
    server = OwnServer(
        model_format="tgi",
        image=IMAGE,
        shape=RuntimeShape(port=PORT, metrics_path="/metrics"),
        words=Words(KEYS, _speculation),
    )
    return served_by(server, wanted, page)


def _max_model_len(value: int, page: Page) -> None:
    # TGI refuses to start where no room is left for an answer.
    page.arguments += ["--max-input-tokens", str(value - 1), "--max-total-tokens", str(value)]


def _quantization(value: str, page: Page) -> None:
    method = quantization_method(value)
    if method is None:
        page.notes.append(f"quantization: {value} needs no flag: the checkpoint tells TGI.")
    elif method in QUANTIZE:
        page.arguments += ["--quantize", method]
    else:
        left_out("quantization", page, f"TGI has no {value}")


def _kv_cache_dtype(value: str, page: Page) -> None:
    if value in KV_CACHE:
        page.arguments += ["--kv-cache-dtype", KV_CACHE[value]]
    elif value != "auto":
        left_out("kv_cache_dtype", page, f"TGI has no {value}")


def _dtype(value: str, page: Page) -> None:
    if value in DTYPES:
        page.arguments += ["--dtype", DTYPES[value]]
    elif value != "auto":
        left_out("dtype", page, f"TGI has no {value}")


def _prefix_caching(value: bool, page: Page) -> None:  # noqa: FBT001 - a writer takes a value
    page.environment["PREFIX_CACHING"] = "1" if value else "0"


def _lora_modules(value: Mapping[str, str], page: Page) -> None:
    page.arguments += ["--lora-adapters", ",".join(f"{name}={at}" for name, at in value.items())]


def _enable_lora(_value: bool, _page: Page) -> None:  # noqa: FBT001 - a writer takes a value
    """Nothing to write: TGI serves adapters where --lora-adapters names them."""


def _speculation(speculation: Speculation, page: Page) -> None:
    if speculation.method == "ngram":
        page.arguments += ["--speculate", str(speculation.num_speculative_tokens)]
    else:
        left_out("speculative", page, "TGI drafts by n-grams, or by what the checkpoint holds")


KEYS: Final[dict[str, Writer]] = {
    "max_model_len": _max_model_len,
    "max_num_batched_tokens": flag("--max-batch-prefill-tokens"),
    "gpu_memory_utilization": flag("--cuda-memory-fraction"),
    "tensor_parallel_size": flag("--num-shard"),
    "trust_remote_code": switch("--trust-remote-code"),
    "quantization": _quantization,
    "kv_cache_dtype": _kv_cache_dtype,
    "dtype": _dtype,
    "enable_prefix_caching": _prefix_caching,
    "enable_lora": _enable_lora,
    "lora_modules": _lora_modules,
}
