"""Cold start and scaling in words and cells, for the terminal and the page alike.

In:  `replicas` of summary.json.  Out: plain text; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.analysis.pods import POD_STEPS

POD_COLUMNS: Final = (*POD_STEPS, "deleted")
SET_COLUMNS: Final = ("sent", "ok", "errors", "in SLO", "TTFT p50", "TTFT p99", "E2E p50")
MEANINGS: Final = {
    "cold": "came when no replica was ready",
    "scaling": "came while more replicas were wanted than were ready",
    "warm": "all others",
}
"""What the sets of requests are."""


def replica_lines(replicas: dict[str, Any]) -> Iterator[str]:
    """Everything that is told in a line."""
    first_s = replicas["time_to_first_ready_s"]
    if first_s is not None:
        yield f"no replica was ready at first; the first was after {first_s:.2f} s"
    for each in replicas["scale_ups"]:
        yield scale_up_text(each)
    if replicas["slo_target_share"] is not None and (replicas["scale_ups"] or first_s is not None):
        yield _recovery_text(replicas)
    for name in ("cold", "scaling"):
        if (text := multiplier_text(replicas, name)) is not None:
            yield text
    if replicas["requests"] is not None:
        counts = {name: each["sent"] for name, each in replicas["requests"].items()}
        yield "requests: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    yield from replicas["notes"]


def scale_up_text(scale_up: dict[str, Any]) -> str:
    """A scale-up: how it went from the rise of the load on."""
    steps = {"wanted": "wanted_s", **{step: f"{step}_s" for step in POD_STEPS}}
    moments = {name: scale_up[key] for name, key in steps.items()}
    told = [f"{name} {s:+.2f} s" for name, s in moments.items() if s is not None]
    end = "not all got ready"
    if scale_up["all_ready_s"] is not None:
        end = f"all ready {scale_up['all_ready_s']:+.2f} s"
    return (
        f"{scale_up['from_replicas']} to {scale_up['to_replicas']} replicas after the load rose "
        f"at {scale_up['rise_s']:.2f} s: {', '.join(told)}, {end}"
    )


def _recovery_text(replicas: dict[str, Any]) -> str:
    target = f"{replicas['slo_target_share']:.0%} in SLO"
    if replicas["slo_recovered_s"] is None:
        return f"{target}: not reached again"
    return f"{target}: {replicas['slo_recovered_s']:.2f} s after the load rose"


def multiplier_text(replicas: dict[str, Any], name: str) -> str | None:
    """How many times the warm median TTFT a set has; None where that is not known."""
    found = replicas[f"{name}_multiplier"]
    if found is None:
        return None
    interval = f"of {found['count']} only"
    if found["low"] is not None:
        interval = f"95 %: {found['low']:.3g} to {found['high']:.3g}"
    return f"TTFT of {name} requests: {found['ratio']:.3g} times that of warm ones ({interval})"


def set_cells(replicas: dict[str, Any]) -> list[list[str]]:
    """The sets of requests as rows: name, then `SET_COLUMNS`; none where they are not known."""
    rows = []
    for name, each in (replicas["requests"] or {}).items():
        latencies = ((each["ttft_ms"], "p50"), (each["ttft_ms"], "p99"), (each["e2e_ms"], "p50"))
        rows.append(
            [
                name,
                str(each["sent"]),
                str(each["ok"]),
                _cell(each["error_share"], "{:.1%}"),
                _cell(each["slo_share"], "{:.1%}"),
                *(_cell(latency[statistic], "{:.2f}") for latency, statistic in latencies),
            ]
        )
    return rows


def pod_cells(replicas: dict[str, Any]) -> list[list[str]]:
    """The pods as rows: name, node, `POD_COLUMNS` in s, restarts, state; ~ before stamps."""
    rows = []
    for each in replicas["pods"]:
        moments = []
        for name in POD_COLUMNS:
            mark = "~" if name in each["stamped"] else ""
            moments.append(_cell(each[f"{name}_s"], mark + "{:.2f}"))
        state = each["phase"] + (f": {each['reason']}" if each["reason"] else "")
        rows.append([each["pod"], each["node"] or "-", *moments, str(each["restarts"]), state])
    return rows


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
