"""GPUs and MIG slices: memory, bandwidth, peak throughput, and which slices fit together.

In:  a name as people and nodes write it: `a100`, `H100-80GB`, `NVIDIA-L40S`; `mig-1g.10gb`.
Out: `Device`: what one shard of a model runs on, a GPU or a slice of it. None: no figure known.
Source of each figure: `gpus.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.serving.problems import nearest
from kvswarm.serving.tables import table

GIB: Final = 1024**3

_VENDOR_WORDS: Final = re.compile(r"\b(nvidia|tesla|geforce|quadro|amd|instinct|intel|habana)\b")
_SHARED: Final = re.compile(r"-shared$", re.I)
_LABEL_SLICE: Final = re.compile(r"^(.*?)-mig-(\d+g\.\d+gb.*)$", re.I)
"""`nvidia.com/gpu.product` of a slice: the GPU, `MIG`, and the slice."""
_SLICE: Final = re.compile(r"(?:nvidia\.com/)?(?:mig[- ])?(\d+g\.\d+gb)([+.-][\w.]+)?", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigShape:
    """What one slice takes of a GPU, in slices of memory and of compute."""

    profile: str
    """Such as `1g.10gb`."""
    memory_slices: int
    compute_slices: int
    starts: tuple[int, ...]
    """Memory slices at which it may begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mig:
    """How a GPU is divided."""

    memory_slices: int
    compute_slices: int
    shapes: Mapping[str, MigShape]
    """By profile."""
    source: str

    def most(self, profile: str) -> int:
        """How many slices of one profile a GPU holds."""
        shape = self.shapes[profile]
        return len(_placed([shape] * len(shape.starts)))

    def holds(self, profiles: Sequence[str]) -> bool:
        """Whether a GPU can be divided into these slices at once."""
        shapes = [self.shapes[profile] for profile in profiles]
        return len(_placed(shapes)) == len(shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU. Rates are peaks of the whole GPU; None: not known, or it cannot."""

    name: str
    vendor: str
    memory_gib: float
    usable_gib: float | None
    """Of `memory_gib`, what a driver was seen to hand out."""
    capability: tuple[int, int] | None
    """Compute capability; None: not NVIDIA's."""
    has_bf16: bool
    bandwidth_gbs: float | None
    fp16_tflops: float | None
    fp8_tflops: float | None
    int8_tops: float | None
    fp4_tflops: float | None
    nvlink_gbs: float | None
    mig: Mig | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one shard of a model runs on. Rates per second; None: not known, or it cannot."""

    gpu: Gpu
    mig_profile: str | None
    memory_bytes: int
    bandwidth_bytes_per_s: float | None
    fp16_flops: float | None
    """Operations of the matrix units per second, in FP16 and BF16."""
    fp8_flops: float | None
    int8_ops: float | None
    fp4_flops: float | None

    @property
    def name(self) -> str:
        """As it is told to people."""
        return f"{self.gpu.name} {self.mig_profile}" if self.mig_profile else self.gpu.name

    @property
    def capability(self) -> tuple[int, int] | None:
        """Compute capability; None: not NVIDIA's."""
        return self.gpu.capability


@cache
def gpus() -> dict[str, Gpu]:
    """Every GPU by its name."""
    return {name: _gpu(name, entry) for name, entry in table("gpus")["gpus"].items()}


@cache
def _by_spelling() -> dict[str, str]:
    entries = table("gpus")["gpus"].items()
    return {_plain(also): name for name, entry in entries for also in (name, *entry["also"])}


def find_gpu(text: str) -> Gpu | None:
    """Look a GPU up by any spelling of its name, or by the label of a node; None: not known."""
    label = _LABEL_SLICE.match(text.strip())
    name = _by_spelling().get(_plain(_SHARED.sub("", label[1] if label else text)))
    return None if name is None else gpus()[name]


def gpu_named(text: str) -> Gpu:
    """Look a GPU up as `find_gpu` does. Raises UsageError: none is called that."""
    gpu = find_gpu(text)
    if gpu is None:
        raise UsageError(
            f"--gpu {text}: kvswarm knows no such GPU.{nearest(text, gpus())}",
            fix=f"Known are {', '.join(gpus())}.",
        )
    return gpu


def device_named(text: str, mig: str | None = None) -> Device:
    """Give the device for a GPU's name or a node's label, and a slice's name.

    A label such as `NVIDIA-H100-80GB-HBM3-MIG-1g.10gb` names its slice itself. Raises UsageError.
    """
    label = _LABEL_SLICE.match(text.strip())
    return device(gpu_named(text), mig if mig or label is None else label[2])


def device(gpu: Gpu, mig: str | None = None) -> Device:
    """Give a GPU, or a slice of it, as a device. Raises UsageError: it has no such slice.

    A slice has its share of the memory slices in memory and bandwidth, and of the compute slices in
    throughput.
    """
    profile = None if mig is None else mig_profile(gpu, mig)
    memory_share = compute_share = 1.0
    if profile is not None and gpu.mig is not None:
        shape = gpu.mig.shapes[profile]
        memory_share = shape.memory_slices / gpu.mig.memory_slices
        compute_share = shape.compute_slices / gpu.mig.compute_slices
    usable_gib = gpu.memory_gib if gpu.usable_gib is None else gpu.usable_gib
    return Device(
        gpu=gpu,
        mig_profile=profile,
        memory_bytes=round(usable_gib * GIB * memory_share),
        bandwidth_bytes_per_s=_scaled(gpu.bandwidth_gbs, 1e9 * memory_share),
        fp16_flops=_scaled(gpu.fp16_tflops, 1e12 * compute_share),
        fp8_flops=_scaled(gpu.fp8_tflops, 1e12 * compute_share),
        int8_ops=_scaled(gpu.int8_tops, 1e12 * compute_share),
        fp4_flops=_scaled(gpu.fp4_tflops, 1e12 * compute_share),
    )


def mig_profile(gpu: Gpu, text: str) -> str:
    """Read `1g.10gb`, `mig-1g.10gb`, `nvidia.com/mig-1g.10gb`, `1g.10gb+me` as the GPU's profile.

    Raises UsageError: no profile, or none of this GPU's.
    """
    if gpu.mig is None:
        raise UsageError(
            f"--mig {text} and --gpu {gpu.name}: this GPU cannot be divided",
            fix=f"Leave --mig out, or name one of {', '.join(_divisible())} as --gpu.",
        )
    found = _SLICE.fullmatch(text.strip())
    profile = found[1].lower() if found else text
    if profile not in gpu.mig.shapes:
        raise UsageError(
            f"--mig {text} and --gpu {gpu.name}: it has no such slice",
            fix=f"{gpu.name} has {', '.join(gpu.mig.shapes)}.",
        )
    return profile


def gpus_with_slice(text: str) -> list[Gpu]:
    """List the GPUs that have a slice of this name."""
    found = _SLICE.fullmatch(text.strip())
    profile = found[1].lower() if found else text
    return [gpu for gpu in gpus().values() if gpu.mig and profile in gpu.mig.shapes]


def _plain(text: str) -> str:
    """Leave letters and digits of a name, without its vendor."""
    spaced = re.sub(r"[^a-z0-9]+", " ", text.lower())
    return re.sub(r"\s", "", _VENDOR_WORDS.sub("", spaced))


def _divisible() -> list[str]:
    return [gpu.name for gpu in gpus().values() if gpu.mig]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _gpu(name: str, entry: Mapping[str, Any]) -> Gpu:
    capability = entry["capability"]
    rates = ("bandwidth_gbs", "fp16_tflops", "fp8_tflops", "int8_tops", "fp4_tflops", "nvlink_gbs")
    return Gpu(
        name=name,
        vendor=entry["vendor"],
        memory_gib=entry["memory_gib"],
        usable_gib=entry["usable_gib"],
        capability=None if capability is None else _capability(capability),
        has_bf16=entry.get("bf16", True),
        **{rate: entry[rate] for rate in rates},
        mig=_mig(entry["mig"]) if "mig" in entry else None,
        sources=tuple(entry["sources"]),
    )


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _mig(entry: Mapping[str, Any]) -> Mig:
    family = table("gpus")["families"][entry["family"]]
    shapes = {
        profile: MigShape(
            profile=profile,
            memory_slices=family["shapes"][shape]["memory"],
            compute_slices=family["shapes"][shape]["compute"],
            starts=tuple(family["shapes"][shape]["starts"]),
        )
        for shape, profile in entry["names"].items()
    }
    return Mig(
        memory_slices=family["memory_slices"],
        compute_slices=family["compute_slices"],
        shapes=shapes,
        source=family["source"],
    )


def _placed(shapes: Sequence[MigShape]) -> list[MigShape]:
    """Place as many of the shapes as go, largest first, trying every start."""
    ordered = sorted(shapes, key=lambda shape: -shape.memory_slices)

    def best(at: int, taken: frozenset[int]) -> list[MigShape]:
        if at == len(ordered):
            return []
        shape = ordered[at]
        most = best(at + 1, taken) if len(ordered) - at - 1 else []
        for start in shape.starts:
            cells = frozenset(range(start, start + shape.memory_slices))
            if cells & taken:
                continue
            placed = [shape, *best(at + 1, taken | cells)]
            if len(placed) > len(most):
                most = placed
            if len(most) == len(ordered) - at:
                break
        return most

    return best(0, frozenset())
