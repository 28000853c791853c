"""Which runs can be compared, and what stands against it where they cannot.

In:  run directories that were finished.
Out: `Member`s: what a run is of, and its figures; `obstacles`, in words.

How numbers are stored is what runs are compared for, so a model is the same one when its name is,
but for words of quantization. So are backend, flags and hardware: they are named, and no obstacle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.analysis.baseline import differences
from kvswarm.analysis.summary_file import read_summary
from kvswarm.errors import RunDirError
from kvswarm.profiles.model import Profile, profile_from_dict
from kvswarm.rundir import RunDir, RunInfo
from kvswarm.serving.checkpoints import HINTS

STORAGE_WORDS: Final = frozenset({*HINTS, "quantized", "bf16", "fp16", "float16", "bfloat16"})
UNTOLD: Final = "model not told"
SEPARATORS: Final = re.compile(r"[-_.]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A run directory, and what the file beside it says of the run; None: nothing."""

    path: Path
    name: str
    model: str | None = None
    backend: str | None = None
    quantization: str | None = None
    gpus: float | None = None
    """GPUs of all replicas together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run of a comparison."""

    origin: Origin
    info: RunInfo
    profile: Profile | None
    """None: another tool measured it."""
    summary: Mapping[str, Any]

    @property
    def run(self) -> RunDir:
        """Its directory."""
        return RunDir(self.origin.path)

    @property
    def model(self) -> str:
        """What is served: the model's own name, where a server has another name for it."""
        root = self.info.target.model_card.get("root")
        told = root if isinstance(root, str) and root else self.info.target.model
        return self.origin.model or told or UNTOLD

    @property
    def backend(self) -> str | None:
        """The model server; None: not told."""
        service = self.info.target.service
        told = service.backend if service else None
        return self.origin.backend or told or ("simulator" if self.info.target.simulator else None)

    @property
    def gpus(self) -> float | None:
        """GPUs of all replicas together, over time; None: not told."""
        cost = self.summary.get("cost") or {}
        if cost.get("gpus_per_replica") and cost.get("replicas_mean"):
            return float(cost["gpus_per_replica"] * cost["replicas_mean"])
        return self.origin.gpus

    @property
    def quantization(self) -> str | None:
        """How weights are stored, as the profile or the file beside the run says."""
        told = self.profile.vllm_features.get("quantization") if self.profile else None
        return self.origin.quantization or (str(told) if told else None)


def read_member(origin: Origin) -> Member:
    """Read a run. Raises RunDirError where it is none, or was not finished."""
    run = RunDir(origin.path)
    info = run.read_info()
    try:
        profile = None if info.imported else profile_from_dict(info.profile)
        summary = read_summary(run)
        summary["verdict"]["status"], summary["throughput"], summary["ttft_ms"]
    except msgspec.ValidationError as error:
        raise RunDirError(
            f"{run.run_json}: profile: {error}", fix="Use the kvswarm that made the run."
        ) from error
    except (KeyError, TypeError) as error:
        raise RunDirError(
            f"{run.summary}: cannot be read: {error}",
            fix=f"Make it with `kvswarm report {origin.path}`.",
        ) from error
    return Member(origin=origin, info=info, profile=profile, summary=summary)


def obstacles(one: Member, other: Member) -> list[str]:
    """What stands against comparing two runs, in words; none: they are comparable."""
    return list(_obstacles(one, other))


def same_work(one: Member, other: Member) -> bool:
    """Whether nothing stands against comparing two runs, but that their loads may differ."""
    if one.profile is None or other.profile is None:
        return False
    of_load = [key for key in differences(one.profile, other.profile) if key.startswith("load")]
    return len(obstacles(one, other)) == len(of_load)


def pairs_up(one: Member, other: Member) -> bool:
    """Whether requests of the same index are the same request.

    Not so where there are dialogues: their indices go to whoever is first.
    """
    if one.profile is None or other.profile is None:
        return False
    return one.info.seed == other.info.seed and not one.profile.has_dialogues


def _obstacles(one: Member, other: Member) -> Iterator[str]:
    for member in (other, one):
        if member.summary["verdict"]["status"] == "invalid":
            reasons = "; ".join(member.summary["verdict"]["reasons"])
            yield f"{member.origin.name} is invalid: {reasons}"
    if base_name(one.model) != base_name(other.model):
        yield f"model: {one.model} against {other.model}"
    if one.info.target.simulator != other.info.target.simulator:
        yield "one is of the simulator, the other of a server"
    if one.profile is None or other.profile is None:
        for member in (other, one):
            if member.info.imported:
                yield (
                    f"{member.origin.name} is imported from {member.info.imported.tool}: whether "
                    "it sent the same requests under the same load, and how late, is not known"
                )
        return
    ours, theirs = one.profile.to_dict(), other.profile.to_dict()
    different = differences(one.profile, other.profile)
    for key in different:
        yield f"{key}: {_value(ours, key)} against {_value(theirs, key)}"
    if one.info.seed != other.info.seed and "seed" not in different:
        yield f"seed: {one.info.seed} against {other.info.seed}"


def base_name(model: str) -> str:
    """A model's name without who published it and how its numbers are stored.

    `RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8` and `meta-llama/Llama-3.1-8B-Instruct` are one.
    """
    words = SEPARATORS.split(model.rstrip("/").rpartition("/")[2].lower())
    return "-".join(word for word in words if word not in STORAGE_WORDS)


def _value(plain: Mapping[str, Any], key: str) -> str:
    """The value of a key of a profile, short."""
    value: Any = plain
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - what a line has room for
