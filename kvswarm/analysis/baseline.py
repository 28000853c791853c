"""A run against an earlier one of the same workload: what the change between them did.

In:  two run directories that were finished, and their summaries.
Out: the section `baseline` of summary.json.  Raises where the workloads differ.

The same seed gives the same prompts, so requests are compared pair by pair, by their index; those
of dialogues, whose indices go to whoever is first, as two samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from kvswarm.analysis.effects import Floats, paired_effect, unpaired_effect
from kvswarm.analysis.rows import read_rows
from kvswarm.analysis.summary_file import read_summary
from kvswarm.analysis.variants import FIGURES as OF_VARIANTS
from kvswarm.analysis.variants import mean_gap_ms, tokens_per_s
from kvswarm.errors import RunDirError, UsageError
from kvswarm.profiles.model import Profile, profile_from_dict
from kvswarm.rundir import RunDir

FIGURES: Final = (*OF_VARIANTS, "e2e_ms", "tokens_per_event")
WORKLOAD: Final = (
    "endpoint", "seed", "load", "prompt", "request", "structured_output", "tool_calling",
    "conversation", "images", "adapters", "mix",
)  # fmt: skip
"""Parts of a profile that two runs must share to be compared."""


def baseline_profile(path: Path) -> Profile:
    """Read the profile of a baseline.

    Raises RunDirError where it is no run directory, UsageError where it was imported.
    """
    run = RunDir(path)
    info = run.read_info()
    if info.imported is not None:
        raise UsageError(
            f"{path}: was imported from {info.imported.tool}: its workload is not known, so it is "
            "no baseline and has none",
            fix="Compare two runs that kvswarm measured.",
        )
    try:
        return profile_from_dict(info.profile)
    except msgspec.ValidationError as error:
        raise RunDirError(
            f"{run.run_json}: profile: {error}", fix="Use the kvswarm that made the run."
        ) from error


def check_same_workload(profile: Profile, path: Path) -> None:
    """Raise UsageError, naming all that differs, where a baseline had another workload."""
    different = differences(profile, baseline_profile(path))
    if different:
        raise UsageError(
            f"--baseline {path}: had another workload: {', '.join(different)} differ",
            fix="Run both with the same profile, flags and seed; only the server may differ.",
        )


def differences(profile: Profile, other: Profile) -> list[str]:
    """Keys in which the workloads of two profiles differ; none: they send the same requests."""
    ours, theirs = profile.to_dict(), other.to_dict()
    return [
        f"{name}.{key}" if key else name
        for name in WORKLOAD
        for key in _differences(ours[name], theirs[name])
    ]


def _differences(one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return [""]


def against_baseline(run: RunDir, path: Path) -> dict[str, Any]:
    """Compare. Raises RunDirError or UsageError where the baseline cannot be used."""
    base = RunDir(path)
    profile = baseline_profile(run.path)
    check_same_workload(profile, path)
    theirs = read_summary(base)
    ours_by_figure, theirs_by_figure = _values(run), _values(base)
    effects = []
    for figure in FIGURES:
        one, other = ours_by_figure[figure], theirs_by_figure[figure]
        if profile.has_dialogues:
            effect = unpaired_effect(one, other)
        else:
            both = _by_index(ours_by_figure["index"], theirs_by_figure["index"])
            effect = paired_effect(one[both[0]], other[both[1]])
        if effect is not None:
            effects.append({"figure": figure, **effect.to_dict()})
    return {
        "run": theirs["run"]["id"],
        "path": str(path),
        "profile": theirs["run"]["profile"],
        "verdict": theirs["verdict"]["status"],
        "output_tokens_per_s": theirs["throughput"]["output_tokens_per_s"],
        "requests_per_s": theirs["throughput"]["requests_per_s"],
        "effects": effects,
    }


def _by_index(one: Floats, other: Floats) -> tuple[Any, Any]:
    _, ours, theirs = np.intersect1d(one, other, return_indices=True)
    return ours, theirs


def _values(run: RunDir) -> dict[str, Floats]:
    """Figures of every measured, successful request, and its index."""
    parts: dict[str, list[Floats]] = {name: [] for name in (*FIGURES, "index")}
    for rows in read_rows(run):
        good = rows.good
        for name in ("index", "ttft_ms", "tpot_ms", "e2e_ms"):
            parts[name].append(rows[name][good])
        parts["itl_ms"].append(mean_gap_ms(rows)[good])
        parts["output_tokens_per_s"].append(tokens_per_s(rows)[good])
        events = np.where(rows["events"] > 0, rows["events"], np.nan)
        parts["tokens_per_event"].append((rows["completion_tokens"] / events)[good])
    return {name: np.concatenate(found) if found else np.zeros(0) for name, found in parts.items()}
