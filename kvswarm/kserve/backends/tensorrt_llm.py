"""TensorRT-LLM (`trtllm-serve`), by a ServingRuntime of its own: KServe has none.

It serves a Hugging Face checkpoint without building an engine first. Its OpenAI API is at `/v1`,
and its Prometheus page at `/prometheus/metrics`: its `/metrics` is JSON, and reading it empties it.
What has no flag goes into a file of the LLM API's options, which becomes a ConfigMap.
Source: `trtllm-serve --help` and the LLM API's arguments of 1.2.
"""

from __future__ import annotations

from typing import Any, Final

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
from kvswarm.kserve.wanted import CONFIG_PATH, RuntimeShape, Served, Wanted
from kvswarm.serving.speculation import Speculation

IMAGE: Final = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
PORT: Final = 8000
METRICS: Final = {"return_perf_metrics": True, "enable_iter_perf_stats": True}
"""Without them the Prometheus page stays empty: latencies need the first, gauges both."""
SERVED_NAME: Final = (
    "TensorRT-LLM serves the model under its directory's name, `models`; `kvswarm run` asks the "
    "server and needs no --model."
)


def tensorrt_llm(wanted: Wanted) -> Served:
    """Serve with trtllm-serve. Raises ProfileError for features that cannot be."""
    page = Page("TensorRT-LLM", config=dict(METRICS), notes=[SERVED_NAME])
    page.arguments += [MODEL_DIRECTORY, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - in a pod
    page.arguments += ["--extra_llm_api_options", CONFIG_PATH]
    server = OwnServer(
        model_format="tensorrt-llm",
        image=IMAGE,
        shape=RuntimeShape(
            port=PORT, metrics_path="/prometheus/metrics", command=("trtllm-serve",)
        ),
        words=Words(KEYS, _speculation),
    )
    return served_by(server, wanted, page)


def _kv_cache(page: Page) -> dict[str, Any]:
    config: dict[str, Any] = page.config.setdefault("kv_cache_config", {})
    return config


def _prefix_caching(value: bool, page: Page) -> None:  # noqa: FBT001 - a writer takes a value
    _kv_cache(page)["enable_block_reuse"] = value


def _kv_cache_dtype(value: str, page: Page) -> None:
    if value in {"fp8", "fp8_e4m3"}:
        _kv_cache(page)["dtype"] = "fp8"
    elif value != "auto":
        left_out("kv_cache_dtype", page, f"TensorRT-LLM has no {value}")


def _memory(_value: float, page: Page) -> None:
    why = (
        "TensorRT-LLM's fraction is of the memory that is free beside the weights, not of all of it"
    )
    left_out("gpu_memory_utilization", page, why)


def _quantization(value: str, page: Page) -> None:
    method = quantization_method(value) or value
    page.notes.append(f"quantization: {method} needs no flag: the checkpoint tells TensorRT-LLM.")


def _chunked_prefill(value: bool, page: Page) -> None:  # noqa: FBT001 - a writer takes a value
    page.config["enable_chunked_prefill"] = value


def _speculation(speculation: Speculation, page: Page) -> None:
    if speculation.method != "ngram":
        why = f"kvswarm knows TensorRT-LLM's options for ngram alone, not {speculation.method}"
        left_out("speculative", page, why)
        return
    config: dict[str, Any] = {
        "decoding_type": "NGram",
        "max_draft_len": speculation.num_speculative_tokens,
    }
    if speculation.prompt_lookup_max is not None:
        config["max_matching_ngram_size"] = speculation.prompt_lookup_max
    page.config["speculative_config"] = config


KEYS: Final[dict[str, Writer]] = {
    "max_model_len": flag("--max_seq_len"),
    "max_num_batched_tokens": flag("--max_num_tokens"),
    "max_num_seqs": flag("--max_batch_size"),
    "tensor_parallel_size": flag("--tp_size"),
    "pipeline_parallel_size": flag("--pp_size"),
    "trust_remote_code": switch("--trust_remote_code"),
    "gpu_memory_utilization": _memory,
    "quantization": _quantization,
    "kv_cache_dtype": _kv_cache_dtype,
    "enable_prefix_caching": _prefix_caching,
    "enable_chunked_prefill": _chunked_prefill,
}
