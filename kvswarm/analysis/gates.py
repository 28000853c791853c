"""The gates of a run: limits on its figures, and the exit code that follows from them.

In:  the figures of a summary, and the profile.
Out: what `summary["gates"]` holds, and an exit code.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kvswarm.errors import EXIT_GATE_MISSED, EXIT_INVALID_MEASUREMENT, EXIT_PASSED
from kvswarm.profiles.model import Profile
from kvswarm.profiles.schema import COST_OF, ENERGY_PER

SLO_NAME: Final = re.compile(r"(ttft|ttft_from_intended|itl|tpot|e2e)(?:_(p\d+|mean|max))?_ms")
MINIMUM_GATES: Final = {
    "goodput_share": ("goodput", "share"),
    "goodput_rps": ("goodput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "valid_output_share": ("outputs", "valid_share"),
}
"""Gates that a run must reach, and where their figures stand; all others are not to be exceeded."""

SPENT_GATES: Final = {
    **{f"cost_per_{work}_usd": ("cost", f"per_{work}_usd") for work in COST_OF},
    **{f"energy_{name}": ("energy", name) for name in ENERGY_PER},
}
"""Gates on what a run cost, and where their figures stand."""


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
    value: float | None
    if name == "error_share":
        requests = summary["requests"]
        ended = requests["ok"] + requests["failed"]
        value = requests["failed"] / ended if ended else None
    elif name in MINIMUM_GATES or name in SPENT_GATES:
        part, key = {**MINIMUM_GATES, **SPENT_GATES}[name]
        value = (summary[part] or {}).get(key)
    else:
        match = SLO_NAME.fullmatch(name)
        value = summary[f"{match[1]}_ms"][match[2] or "mean"] if match else None
    passed = False if value is None else value >= limit if name in MINIMUM_GATES else value <= limit
    return {"name": name, "limit": limit, "value": value, "passed": passed}
