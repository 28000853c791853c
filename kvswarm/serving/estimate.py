"""What a model would do on a GPU: memory, sequences that fit, and a roofline. An estimate.

In:  `Asked` (config.json, device, features of the server), `Workload` (lengths, users).
Out: `Estimate`, with None for what cannot be known, and its lines for people.
Not: the bounds of times, which are in `roofline.py`.

Of memory x gpu_memory_utilization the weights and a reserve are taken; the rest is KV cache. The
reserve is what vLLM's profiling run was seen to find: activations of max_num_batched_tokens tokens,
logits of max_num_seqs sequences, CUDA graphs, and the CUDA context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kvswarm.serving.architecture import Architecture, architecture_of
from kvswarm.serving.gpus import GIB, Device
from kvswarm.serving.memory import (
    KvCache,
    Parameters,
    Spread,
    count_parameters,
    kv_cache,
    weights_bytes,
)
from kvswarm.serving.roofline import Roofline, Shape
from kvswarm.serving.versions import NEWEST, Version

SCHEMA_VERSION: Final = 1

UTILIZATION: Final = 0.92
UTILIZATION_BEFORE: Final = 0.9
UTILIZATION_SINCE: Final = Version(0, 25, 0)
"""The oldest version that was seen to have the newer default."""

CONTEXT_BYTES: Final = 0.25 * GIB
"""CUDA context and libraries of one process; with several GPUs NCCL's buffers come on top."""
NCCL_BYTES: Final = 0.75 * GIB
GRAPH_BYTES: Final = 0.6 * GIB
"""CUDA graphs of one GPU; none with enforce_eager."""
LOGIT_COPIES: Final = 3
"""Logits in 32 bits, their softmax, and the sampler's sorted copy."""
BIG_MEMORY_BYTES: Final = 70 * GIB
BIGGEST_MEMORY_BYTES: Final = 160 * GIB
"""vLLM chooses its defaults by the memory of the GPU (vllm/engine/arg_utils.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A model on a device, with the features that the server is asked to have."""

    config: Mapping[str, Any]
    device: Device
    features: Mapping[str, Any]
    """As `vllm_features`, with the keys as the tables spell them."""
    version: Version = NEWEST
    stored_weights_bytes: int | None = None
    """Of the checkpoint on disk, where it lies there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is sent. `sequences`: at a time; None: a rate of arrivals, so that it is not known."""

    prompt_tokens: int
    output_tokens: int
    sequences: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Figures of one replica; `_per_gpu` of one of its GPUs. None: not known."""

    device: str
    gpus: int
    tensor_parallel: int
    pipeline_parallel: int
    parameters: int | None
    active_parameters: int | None
    parameters_are_exact: bool
    memory_bytes_per_gpu: int
    gpu_memory_utilization: float
    weights_bytes_per_gpu: int | None
    reserve_bytes_per_gpu: int | None
    kv_bytes_per_token_per_gpu: int | None
    kv_cache_bytes_per_gpu: int | None
    """What is left for the KV cache; below 0: the weights do not fit."""
    kv_cache_tokens: int | None
    max_model_len: int | None
    kv_bytes_of_longest_per_gpu: int | None
    sequences_at_max_model_len: float | None
    sequences_at_workload: float | None
    max_num_seqs: int
    prefill_tokens_per_s: float | None
    ttft_floor_ms: float | None
    tpot_floor_ms: float | None
    """Of one sequence alone."""
    tpot_floor_at_load_ms: float | None
    """With as many sequences as the workload sends, as far as they fit."""
    decode_tokens_per_s: float | None
    """Of one sequence alone."""
    decode_tokens_per_s_at_load: float | None
    """Of all sequences together."""
    sequences_at_load: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data with a `schema_version`, to be compared with what a run measures."""
        return {"schema_version": SCHEMA_VERSION, "is_estimate": True, **asdict(self)}

    def lines(self) -> list[str]:
        """Tell it to people, a line each."""
        return [line for line in (*_memory_lines(self), *_speed_lines(self)) if line]


def estimate(asked: Asked, workload: Workload) -> Estimate:
    """Estimate memory and a roofline. What config.json or the GPU's table lacks stays None."""
    model = architecture_of(asked.config)
    spread = spread_of(asked.features)
    parameters = count_parameters(model, asked.config)
    cache = kv_cache(model, spread, str(asked.features.get("kv_cache_dtype") or "auto"))
    limits = limits_of(asked)
    weights = _weights_per_gpu(asked, model, parameters, spread)
    reserve = _reserve(asked, model, spread, limits)
    room = _kv_room(asked, weights, reserve, limits.utilization)
    longest = asked.features.get("max_model_len") or model.max_positions
    needs = _Needs(cache, room)
    at_workload = needs.sequences(workload.prompt_tokens + workload.output_tokens)
    speed = None
    if parameters is not None and weights is not None and cache is not None:
        shape = Shape(model, parameters, weights, cache)
        speed = Roofline(shape, asked.device, spread, asked.features.get("quantization"))
    load = _sequences_at_load(workload, at_workload, limits.max_num_seqs)
    context = workload.prompt_tokens + workload.output_tokens // 2
    alone = None if speed is None else speed.step_s(1, context)
    together = None if speed is None or load is None else speed.step_s(load, context)
    prefill = None if speed is None else speed.prefill_s(workload.prompt_tokens)
    return Estimate(
        device=asked.device.name,
        gpus=spread.gpus,
        tensor_parallel=spread.tensor,
        pipeline_parallel=spread.pipeline,
        parameters=None if parameters is None else parameters.total,
        active_parameters=None if parameters is None else parameters.active,
        parameters_are_exact=parameters is not None and parameters.is_exact,
        memory_bytes_per_gpu=asked.device.memory_bytes,
        gpu_memory_utilization=limits.utilization,
        weights_bytes_per_gpu=weights,
        reserve_bytes_per_gpu=reserve,
        kv_bytes_per_token_per_gpu=None if cache is None else cache.bytes_per_token,
        kv_cache_bytes_per_gpu=room,
        kv_cache_tokens=needs.tokens(longest),
        max_model_len=longest,
        kv_bytes_of_longest_per_gpu=(
            None if cache is None or longest is None else cache.bytes_of(longest)
        ),
        sequences_at_max_model_len=None if longest is None else needs.sequences(longest),
        sequences_at_workload=at_workload,
        max_num_seqs=limits.max_num_seqs,
        prefill_tokens_per_s=_rate(workload.prompt_tokens, prefill),
        ttft_floor_ms=_ms(prefill),
        tpot_floor_ms=_ms(alone),
        tpot_floor_at_load_ms=_ms(together),
        decode_tokens_per_s=_rate(1, alone),
        decode_tokens_per_s_at_load=_rate(load or 0, together),
        sequences_at_load=load,
    )


def spread_of(features: Mapping[str, Any]) -> Spread:
    """Say over how many GPUs the features spread one copy of the model."""
    return Spread(
        tensor=features.get("tensor_parallel_size") or 1,
        pipeline=features.get("pipeline_parallel_size") or 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server allows itself, by the features or by vLLM's defaults."""

    utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int


def limits_of(asked: Asked) -> Limits:
    """Read the limits; what is not given is vLLM's default for the memory of this GPU."""
    newer = asked.version >= UTILIZATION_SINCE
    seqs, tokens = 256, 2048
    if asked.device.memory_bytes >= BIGGEST_MEMORY_BYTES:
        seqs, tokens = 1024, 16384
    elif (
        asked.device.memory_bytes >= BIG_MEMORY_BYTES
        and "a100" not in asked.device.gpu.name.lower()
    ):
        seqs, tokens = 1024, 8192
    get = asked.features.get
    return Limits(
        utilization=get("gpu_memory_utilization") or (UTILIZATION if newer else UTILIZATION_BEFORE),
        max_num_seqs=get("max_num_seqs") or seqs,
        max_num_batched_tokens=get("max_num_batched_tokens") or tokens,
    )


def _weights_per_gpu(
    asked: Asked, model: Architecture, parameters: Parameters | None, spread: Spread
) -> int | None:
    method = asked.features.get("quantization")
    is_made_online = method is not None and model.quant_method is None
    total = None if is_made_online else asked.stored_weights_bytes
    if total is None and parameters is not None:
        total = weights_bytes(model, parameters, method)
    offloaded = (asked.features.get("cpu_offload_gb") or 0) * GIB
    return None if total is None else max(round(total / spread.gpus - offloaded), 0)


def _reserve(asked: Asked, model: Architecture, spread: Spread, limits: Limits) -> int | None:
    """Bytes besides weights and KV cache; None: config.json does not tell the widths."""
    if not (model.hidden_size and model.vocabulary):
        return None
    width = (model.mlp_width or 0) / spread.tensor
    if model.experts is not None:
        width = (model.experts.chosen + model.experts.shared) * model.experts.width / spread.tensor
    # Gate and up together, their product, and the residual stream in and out, 2 bytes each.
    activations = limits.max_num_batched_tokens * (3 * width + 2 * model.hidden_size) * 2
    logits = LOGIT_COPIES * limits.max_num_seqs * model.vocabulary * 4
    graphs = 0 if asked.features.get("enforce_eager") else GRAPH_BYTES
    return round(
        activations + logits + graphs + CONTEXT_BYTES + (NCCL_BYTES if spread.gpus > 1 else 0)
    )


def _kv_room(
    asked: Asked, weights: int | None, reserve: int | None, utilization: float
) -> int | None:
    given: int | None = asked.features.get("kv_cache_memory_bytes")
    if given is not None:
        return given
    if weights is None or reserve is None:
        return None
    return round(asked.device.memory_bytes * utilization) - weights - reserve


@dataclass(frozen=True, slots=True)
class _Needs:
    """What fits into the room for the KV cache."""

    cache: KvCache | None
    room: int | None

    def tokens(self, longest: int | None) -> int | None:
        """Count the tokens of sequences as long as may be, whose windows take little room."""
        if self.cache is None or self.room is None or not self.cache.bytes_per_token:
            return None
        if longest is not None and self.cache.window_bytes_per_token:
            return int((self.sequences(longest) or 0) * longest)
        return max(self.room, 0) // self.cache.bytes_per_token

    def sequences(self, tokens: int) -> float | None:
        if self.cache is None or self.room is None or not self.cache.bytes_of(tokens):
            return None
        return max(self.room, 0) / self.cache.bytes_of(tokens)


def _sequences_at_load(workload: Workload, fit: float | None, most: int) -> int | None:
    wanted = most if workload.sequences is None else min(workload.sequences, most)
    if fit is None:
        return wanted if workload.sequences is not None else None
    return min(wanted, int(fit)) or None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _rate(tokens: int, seconds: float | None) -> float | None:
    return tokens / seconds if seconds and tokens else None


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"


def _memory_lines(e: Estimate) -> list[str]:
    about = "" if e.parameters_are_exact else "about "
    counted = "unknown" if e.parameters is None else f"{about}{e.parameters / 1e9:.2f} billion"
    if e.active_parameters is not None and e.active_parameters != e.parameters:
        counted += f", {e.active_parameters / 1e9:.2f} billion of them per token"
    spread = f"{e.gpus} x {e.device}" if e.gpus > 1 else e.device
    usable = e.memory_bytes_per_gpu * e.gpu_memory_utilization / GIB
    lines = [
        f"Estimate for {spread} (floors and ceilings, not measurements):",
        f"  parameters              {counted}",
        f"  memory per GPU          {_gib(e.memory_bytes_per_gpu)}, of which"
        f" {e.gpu_memory_utilization:g} may be used: {usable:.1f} GiB",
        f"  weights per GPU         {_gib(e.weights_bytes_per_gpu)}",
        f"  activations and graphs  about {_gib(e.reserve_bytes_per_gpu)} per GPU",
    ]
    if e.kv_cache_bytes_per_gpu is not None and e.kv_cache_bytes_per_gpu <= 0:
        return [*lines, "  KV cache                nothing is left for it"]
    if e.kv_bytes_per_token_per_gpu is not None:
        lines.append(
            f"  KV cache per GPU        {_gib(e.kv_cache_bytes_per_gpu)},"
            f" {e.kv_bytes_per_token_per_gpu / 1024:.1f} KiB per token"
            + ("" if e.kv_cache_tokens is None else f": {e.kv_cache_tokens:,} tokens")
        )
    if e.sequences_at_workload is not None:
        lines.append(f"  sequences of the load   {e.sequences_at_workload:,.1f} fit at a time")
    if e.sequences_at_max_model_len is not None:
        lines.append(
            f"  sequences of {e.max_model_len or 0:<9,}  {e.sequences_at_max_model_len:,.1f}"
            " fit at a time (max_model_len)"
        )
    return lines


def _speed_lines(e: Estimate) -> list[str]:
    lines: list[str] = []
    if e.kv_cache_bytes_per_gpu is not None and e.kv_cache_bytes_per_gpu <= 0:
        return lines
    if e.ttft_floor_ms is not None:
        lines.append(
            f"  TTFT                    at least {e.ttft_floor_ms:.3g} ms,"
            f" a prompt at most {e.prefill_tokens_per_s or 0:,.0f} tokens/s"
        )
    if e.tpot_floor_ms is not None:
        lines.append(
            f"  TPOT                    at least {e.tpot_floor_ms:.3g} ms,"
            f" at most {e.decode_tokens_per_s or 0:,.0f} tokens/s for one sequence"
        )
    if e.tpot_floor_at_load_ms is not None:
        with_load = f"  with {e.sequences_at_load or 0:,} at a time"
        lines.append(
            f"{with_load:<26}"
            f"TPOT at least {e.tpot_floor_at_load_ms:.3g} ms,"
            f" at most {e.decode_tokens_per_s_at_load or 0:,.0f} tokens/s together"
        )
    if not lines:
        lines.append("  speed                   unknown: the GPU's table lacks its figures")
    return lines
