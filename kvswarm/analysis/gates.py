"""The gates of a run: limits on its figures, and the exit code that follows from them.

In:  the figures of a summary, and the profile.
Out: what `summary["gates"]` holds, and an exit code.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kvswarm.analysis.named_figures import Reading, figure_named, read_figure
from kvswarm.errors import EXIT_GATE_MISSED, EXIT_INVALID_MEASUREMENT, EXIT_PASSED
from kvswarm.profiles.model import Profile

SLO_NAME: Final = re.compile(r"(ttft|ttft_from_intended|itl|tpot|e2e)(?:_(p\d+|mean|max))?_ms")


def exit_code(summary: dict[str, Any]) -> int:
    """3 for an invalid measurement, which goes before 1 for a missed gate; else 0."""
    if summary["verdict"]["status"] == "invalid":
        return EXIT_INVALID_MEASUREMENT
    missed = any(not gate["passed"] for gate in summary["gates"])
    return EXIT_GATE_MISSED if missed else EXIT_PASSED


def gates_of(summary: dict[str, Any], profile: Profile) -> list[dict[str, Any]]:
    """Gates of the profile, and its SLOs that name a percentile of the run."""
    limits = {name: limit for name, limit in profile.slo.items() if re.search(r"_p\d+_ms$", name)}
    limits.update(profile.gate)
    return [_gate(summary, name, limit) for name, limit in limits.items()]


def _gate(summary: dict[str, Any], name: str, limit: float) -> dict[str, Any]:
    figure = figure_named(name)
    if figure is None:
        reading = Reading(None, f"{name} is no figure of summary.json")
    else:
        reading = read_figure(summary, figure)
    passed = reading.value is not None and (
        reading.value >= limit
        if figure is not None and figure.direction == "at least"
        else reading.value <= limit
    )
    return {
        "name": name,
        "limit": limit,
        "value": reading.value,
        "passed": passed,
        "reason": reading.reason,
    }
