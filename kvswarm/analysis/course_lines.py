"""How a run went over its time in words and cells, for the terminal and the page alike.

In:  a summary.  Out: plain text; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvswarm.profiles.model import OPEN_LOOP

STEADY_COLUMNS: Final = ("p50", "p95", "p99")
STEADY_ROWS: Final = (
    ("TTFT", "ttft_ms"), ("ITL", "itl_ms"), ("TPOT", "tpot_ms"), ("E2E", "e2e_ms"),
)  # fmt: skip
CAUSE_NAMES: Final = {
    "generator": "read late by the generator",
    "preemption": "preemption",
    "queue": "requests waiting",
    "kv_cache": "KV cache over 95 %",
    "prefill": "another's long prefill",
    "unexplained": "unexplained",
}
NEGLIGIBLE_MS: Final = 1.0
NEGLIGIBLE_SHARE: Final = 0.01


def course_lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything that is told in a line, with its label."""
    if (text := schedule_text(summary)) is not None:
        yield "schedule", text
    yield from (("steady", line) for line in steady_lines(summary))
    yield from (("stalls", line) for line in stall_lines(summary["stalls"]))


def schedule_text(summary: Mapping[str, Any]) -> str | None:
    """How far TTFT from sent and from intended lie apart in this run, and what that means."""
    sent, intended = summary["ttft_ms"]["p99"], summary["ttft_from_intended_ms"]["p99"]
    if sent is None or intended is None:
        return None
    pattern = summary["run"]["pattern"]
    apart_ms = intended - sent
    if apart_ms <= max(NEGLIGIBLE_MS, NEGLIGIBLE_SHARE * sent):
        text = (
            f"requests left when they were due: TTFT p99 is {sent:.2f} ms from sent, "
            f"{intended:.2f} ms from intended, so no wait is left out of it"
        )
    else:
        text = (
            f"requests left later than they were due: TTFT p99 is {sent:.2f} ms from sent, but "
            f"{intended:.2f} ms from intended, so a user who came on schedule waited "
            f"{apart_ms:.2f} ms more than TTFT says"
        )
    if pattern == "steady":
        text += "; but users of a closed loop wait for answers, so a slow server is asked less"
    elif pattern in OPEN_LOOP and (dropped := summary["generator"]["dropped_arrivals"]):
        text += f"; {dropped} arrivals were not sent at all and are in neither"
    return text


def steady_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Where the run was steady, its figures there beside those of all, and its drifts."""
    steady = summary["steady"]
    if steady is None:
        return
    if steady["begin_s"] is None:
        yield f"no steady part: {steady['reason']}"
        return
    if not steady["dropped_requests"]:
        yield "no warm-up was found: the figures are those of the steady run"
    else:
        yield (
            f"from {steady['begin_s']:.2f} s to {steady['end_s']:.2f} s, without the "
            f"{steady['dropped_requests']} requests before"
        )
        for label, figures in steady_cells(summary):
            yield f"{label} {figures[0]}, over all {figures[1]}"
    yield from steady["notes"]


def steady_cells(summary: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each figure of the steady part, and of all measured requests."""
    steady = summary["steady"]
    for label, key in STEADY_ROWS:
        if steady[key]["count"]:
            yield (
                f"{label} {' '.join(STEADY_COLUMNS)}",
                (_percentiles(steady[key]), _percentiles(summary[key])),
            )
    for label, key in (
        ("output tokens/s", "output_tokens_per_s"), ("requests/s", "requests_per_s"),
    ):  # fmt: skip
        values = steady["throughput"][key], summary["throughput"][key]
        yield label, (f"{values[0]:.2f}", f"{values[1]:.2f}")


def _percentiles(latency: dict[str, Any]) -> str:
    values = " ".join(f"{latency[name]:.2f}" for name in STEADY_COLUMNS)
    return f"{values} ms"


def stall_lines(stalls: dict[str, Any] | None) -> Iterator[str]:
    """How many streams stood still, and what was there meanwhile."""
    if stalls is None:
        return
    limit = f"{stalls['threshold_ms']:.0f} ms"
    if not stalls["count"]:
        yield f"no gap between tokens was {limit} or more"
        return
    longest = stalls["longest"][0]
    yield (
        f"{stalls['count']} gaps of {limit} or more in {stalls['requests']} requests: "
        f"{stalls['gap_share']:.2%} of the gaps, {stalls['lost_share']:.1%} of the time; the "
        f"longest was {longest['gap_ms']:.0f} ms, {longest['begin_s']:.2f} s after the start"
    )
    yield from (
        f"{name}: {count}, {lost} of the lost time"
        + ("" if chance == "-" else f" (at any moment {chance})")
        for name, count, lost, chance in cause_cells(stalls)
    )
    if stalls["untold"]:
        names = ", ".join(CAUSE_NAMES[cause] for cause in stalls["untold"])
        yield f"no server told of: {names}"


def cause_cells(stalls: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Causes that were there: name, count, share of the lost time, and share by chance."""
    for cause in stalls["causes"]:
        if cause["count"]:
            chance = "-" if cause["chance_share"] is None else f"{cause['chance_share']:.0%}"
            count = f"{cause['count']} ({cause['share']:.0%})"
            yield CAUSE_NAMES[cause["cause"]], count, f"{cause['lost_share']:.0%}", chance
