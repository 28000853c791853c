"""What each kind of server calls its metrics: a table, and nothing that reads it.

Names are those of samples, as a page has them. Where a figure has several, versions of the server
differ, and the first that is there is taken.

Sources: vLLM 0.32, a page of it in tests/fixtures; TGI's reference of its metrics; trtllm-serve's
`tensorrt_llm/metrics/collector.py`; Triton's user guide and the metrics of its TensorRT-LLM
backend; dcgm-exporter's `etc/default-counters.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MS_PER_S: Final = 1e3


@dataclass(frozen=True, slots=True)
class Pick:
    """Samples of one name; where `labels` are given, those of them that have these."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mean:
    """Two counters whose growth gives a mean: a total, and of how many; `to_ms`: of its unit."""

    total: str
    count: str
    to_ms: float = MS_PER_S


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge; `of` is what it is a share of, where the server does not divide."""

    pick: Pick
    of: Pick | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """One kind of server."""

    markers: tuple[str, ...]
    """Beginnings of names: a page with one of them is of this kind."""
    means: Mapping[str, tuple[Mean, ...]] = field(default_factory=dict)
    levels: Mapping[str, tuple[Level, ...]] = field(default_factory=dict)
    counters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requests: Mapping[str, str | None] = field(default_factory=dict)
    """Counters of requests that ended, with the label of the reason; None: the name's last word."""
    by_position: str | None = None
    """Counter of accepted draft tokens, with a label `position`."""
    cache_config: str | None = None
    """Gauge of 1 whose labels are the configuration of the KV cache."""
    cache_blocks: tuple[Pick, Pick] | None = None
    """Gauges instead of it: blocks of the KV cache, and tokens per block."""
    lora: str | None = None
    """Gauge whose labels name adapters, and whose value is when that was."""
    model_label: str | None = None
    """Each model of a pipeline counts for itself: the one with metrics that begin so counts."""


def _histogram(name: str, to_ms: float = MS_PER_S) -> Mean:
    return Mean(f"{name}_sum", f"{name}_count", to_ms)


VLLM: Final = Names(
    markers=("vllm:",),
    means={
        "queue_time_ms": (_histogram("vllm:request_queue_time_seconds"),),
        "ttft_ms": (_histogram("vllm:time_to_first_token_seconds"),),
        "itl_ms": (
            _histogram("vllm:inter_token_latency_seconds"),
            _histogram("vllm:time_per_output_token_seconds"),
        ),
        "tpot_ms": (_histogram("vllm:request_time_per_output_token_seconds"),),
        "e2e_ms": (_histogram("vllm:e2e_request_latency_seconds"),),
        "prefill_time_ms": (_histogram("vllm:request_prefill_time_seconds"),),
        "decode_time_ms": (_histogram("vllm:request_decode_time_seconds"),),
    },
    levels={
        "running": (Level(Pick("vllm:num_requests_running")),),
        "waiting": (Level(Pick("vllm:num_requests_waiting")),),
        "kv_usage_share": (
            Level(Pick("vllm:kv_cache_usage_perc")),
            Level(Pick("vllm:gpu_cache_usage_perc")),
        ),
    },
    counters={
        "preemptions": ("vllm:num_preemptions_total",),
        "prompt_tokens": ("vllm:prompt_tokens_total",),
        "generation_tokens": ("vllm:generation_tokens_total",),
        "query_tokens": ("vllm:prefix_cache_queries_total",),
        "hit_tokens": ("vllm:prefix_cache_hits_total",),
        "drafts": ("vllm:spec_decode_num_drafts_total",),
        "draft_tokens": ("vllm:spec_decode_num_draft_tokens_total",),
        "accepted_tokens": ("vllm:spec_decode_num_accepted_tokens_total",),
    },
    requests={"vllm:request_success_total": "finished_reason"},
    by_position="vllm:spec_decode_num_accepted_tokens_per_pos_total",
    cache_config="vllm:cache_config_info",
    lora="vllm:lora_requests_info",
)
TRTLLM: Final = Names(
    markers=("trtllm_",),
    means={
        "queue_time_ms": (_histogram("trtllm_request_queue_time_seconds"),),
        "ttft_ms": (_histogram("trtllm_time_to_first_token_seconds"),),
        "tpot_ms": (_histogram("trtllm_time_per_output_token_seconds"),),
        "e2e_ms": (_histogram("trtllm_e2e_request_latency_seconds"),),
        "prefill_time_ms": (_histogram("trtllm_request_prefill_time_seconds"),),
        "decode_time_ms": (_histogram("trtllm_request_decode_time_seconds"),),
    },
    levels={
        "running": (Level(Pick("trtllm_num_requests_running")),),
        "waiting": (Level(Pick("trtllm_num_requests_waiting")),),
        "kv_usage_share": (Level(Pick("trtllm_kv_cache_utilization")),),
    },
    counters={
        "prompt_tokens": ("trtllm_prompt_tokens_total",),
        "generation_tokens": ("trtllm_generation_tokens_total",),
        "query_tokens": ("trtllm_prompt_tokens_total",),
        "hit_tokens": ("trtllm_prompt_cached_tokens_total",),
        "draft_tokens": (
            "trtllm_spec_decode_num_draft_tokens_total",
            "trtllm_spec_decode_drafted_tokens_total",
        ),
        "accepted_tokens": (
            "trtllm_spec_decode_num_accepted_tokens_total",
            "trtllm_spec_decode_accepted_tokens_total",
        ),
    },
    requests={"trtllm_request_success_total": "finished_reason"},
    cache_blocks=(Pick("trtllm_kv_cache_max_blocks"), Pick("trtllm_kv_cache_tokens_per_block")),
)
TGI: Final = Names(
    markers=("tgi_",),
    means={
        "queue_time_ms": (_histogram("tgi_request_queue_duration"),),
        "tpot_ms": (_histogram("tgi_request_mean_time_per_token_duration"),),
        "e2e_ms": (_histogram("tgi_request_duration"),),
    },
    levels={
        "running": (Level(Pick("tgi_batch_current_size")),),
        "waiting": (Level(Pick("tgi_queue_size")),),
    },
    counters={
        "prompt_tokens": ("tgi_request_input_length_sum",),
        "generation_tokens": ("tgi_request_generated_tokens_sum",),
    },
    requests={"tgi_request_success": None, "tgi_request_failure": None},
)
TRITON_KV: Final = "nv_trt_llm_kv_cache_block_metrics"
TRITON: Final = Names(
    markers=("nv_trt_llm_", "nv_inference_"),
    means={
        "queue_time_ms": (
            Mean("nv_inference_queue_duration_us", "nv_inference_request_success", 1e-3),
        ),
        "ttft_ms": (_histogram("nv_inference_first_response_histogram_ms", 1.0),),
        "e2e_ms": (Mean("nv_inference_request_duration_us", "nv_inference_request_success", 1e-3),),
    },
    levels={
        "running": (Level(Pick("nv_trt_llm_request_metrics", {"request_type": "scheduled"})),),
        "waiting": (
            Level(Pick("nv_trt_llm_request_metrics", {"request_type": "waiting"})),
            Level(Pick("nv_inference_pending_request_count")),
        ),
        "kv_usage_share": (
            Level(Pick(TRITON_KV, {"kv_cache_block_type": "fraction"})),
            Level(
                Pick(TRITON_KV, {"kv_cache_block_type": "used"}),
                of=Pick(TRITON_KV, {"kv_cache_block_type": "max"}),
            ),
        ),
    },
    requests={"nv_inference_request_success": None, "nv_inference_request_failure": None},
    cache_blocks=(
        Pick(TRITON_KV, {"kv_cache_block_type": "max"}),
        Pick(TRITON_KV, {"kv_cache_block_type": "tokens_per"}),
    ),
    model_label="nv_trt_llm_",
)
KINDS: Final = {"vllm": VLLM, "trtllm": TRTLLM, "tgi": TGI, "triton": TRITON}
"""Servers, in the order in which a page is held against them: Triton may run vLLM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNames:
    """One exporter of GPU metrics; each figure with the factor to our unit."""

    id_label: str
    """Label that names a GPU, wherever it is."""
    number_labels: tuple[str, ...] = ()
    """Labels that tell GPUs of one host apart, where that one is missing; the first counts."""
    part_label: str | None = None
    """Label of a part of it (MIG); power and energy of a part are those of the whole."""
    utilisation: tuple[tuple[str, float], ...]
    memory_used: tuple[str, float]
    memory_free: tuple[str, float] | None = None
    memory_total: tuple[str, float] | None = None
    power: tuple[str, float]
    energy: tuple[str, float]


MIB: Final = float(1 << 20)
GPUS: Final = {
    "dcgm": GpuNames(
        id_label="UUID",
        number_labels=("gpu", "device", "pci_bus_id"),
        part_label="GPU_I_ID",
        utilisation=(("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0), ("DCGM_FI_DEV_GPU_UTIL", 0.01)),
        memory_used=("DCGM_FI_DEV_FB_USED", MIB),
        memory_free=("DCGM_FI_DEV_FB_FREE", MIB),
        power=("DCGM_FI_DEV_POWER_USAGE", 1.0),
        energy=("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1e-3),
    ),
    "triton": GpuNames(
        id_label="gpu_uuid",
        utilisation=(("nv_gpu_utilization", 1.0),),
        memory_used=("nv_gpu_memory_used_bytes", 1.0),
        memory_total=("nv_gpu_memory_total_bytes", 1.0),
        power=("nv_gpu_power_usage", 1.0),
        energy=("nv_energy_consumption", 1.0),
    ),
}
"""Exporters, the best first: where there is one, the next is not read."""
