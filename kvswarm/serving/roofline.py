"""Bounds of a step's time, by what it must read and compute.

In:  a model's shape, a device, over how many of them it is spread.
Out: seconds that a step of decoding, or a prompt, takes at least. None: the device's table lacks
     what it takes.

A step of decoding reads the weights once and the KV cache of each sequence; it takes no less than
those bytes / bandwidth, nor than its operations / peak throughput (Williams, Waterman, Patterson
2009). Of experts, those are read that some token of the step chooses. A prompt of n tokens takes
2 x active parameters x n operations, and 2 x n^2 x heads x head_dim per layer for attention.
Servers reach some part of such bounds: they are floors of times, not predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvswarm.serving.architecture import FULL, Architecture
from kvswarm.serving.gpus import Device
from kvswarm.serving.memory import KvCache, Parameters, Spread
from kvswarm.serving.quantization import methods, names

NATIVE_BITS: Final = 8
"""Of the methods whose arithmetic is narrower than 16 bits."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as it lies in memory."""

    model: Architecture
    parameters: Parameters
    weights_bytes_per_gpu: int
    kv: KvCache


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds of one replica's steps. `method`: what the server is asked to quantize by."""

    shape: Shape
    device: Device
    spread: Spread
    method: str | None

    def step_s(self, sequences: int, context_tokens: int) -> float | None:
        """One token for each sequence: all stages of a pipeline, one after the other."""
        bandwidth = self.device.bandwidth_bytes_per_s
        if bandwidth is None:
            return None
        past = sequences * self.shape.kv.bytes_of(context_tokens) * self.spread.pipeline
        read = (self._weights_read(sequences) + past) / bandwidth
        return max(read, self._compute_s(sequences))

    def prefill_s(self, prompt_tokens: int) -> float | None:
        """A prompt alone on an idle server."""
        flops = peak_flops(self.device, self.shape.model, self.method)
        if flops is None or not prompt_tokens:
            return None
        model = self.shape.model
        per_squared = 2.0 * model.layer_kinds.count(FULL) * (model.heads or 0)
        attention = per_squared * (model.head_dim or 0) * prompt_tokens**2
        compute = self._compute_s(prompt_tokens) + attention / (flops * self.spread.tensor)
        bandwidth = self.device.bandwidth_bytes_per_s
        read = self._weights_read(prompt_tokens) / bandwidth if bandwidth else 0.0
        return max(compute, read)

    @property
    def _unread(self) -> int:
        """The input embedding is looked up; a tied one is read after all, as the output layer."""
        return 0 if self.shape.model.tied_embeddings else self.shape.parameters.embedding

    def _weights_read(self, tokens: int) -> float:
        """Bytes on one GPU of each stage, for a step of so many tokens."""
        parameters, experts = self.shape.parameters, self.shape.model.experts
        idle = 0.0 if experts is None else (1 - experts.chosen / experts.count) ** tokens
        read = parameters.total - self._unread - parameters.routed_experts * idle
        on_each = self.shape.weights_bytes_per_gpu * self.spread.pipeline
        return on_each * read / parameters.total

    def _compute_s(self, tokens: int) -> float:
        flops = peak_flops(self.device, self.shape.model, self.method)
        if flops is None:
            return 0.0
        active = self.shape.parameters.active - self._unread
        return 2 * active * tokens / (flops * self.spread.tensor)


def peak_flops(device: Device, model: Architecture, method: str | None) -> float | None:
    """Give the peak of the arithmetic that the weights are multiplied in, operations per second."""
    asked = str(method or model.quant_method or "").lower()
    known = methods().get("fp8" if asked.startswith("fp8_") else names().get(asked, ""))
    if known is None or known.native_from is None or known.bits != NATIVE_BITS:
        return device.fp16_flops
    # Without NVIDIA's compute capability, a figure for FP8 says that the GPU has it.
    if device.capability is not None and device.capability < known.native_from:
        return device.fp16_flops
    narrow = device.fp8_flops if known.method == "fp8" else device.int8_ops
    return narrow or device.fp16_flops
