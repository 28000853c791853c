"""The rows of the LLM tab on Locust's own page: text, which that page shows as it is.

In:  a `Watch`.  Out: rows of `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.swarm.merging import Merged
from kvswarm.swarm.web.samples import figures
from kvswarm.swarm.web.watch import State, Watch, Watches

KEY: Final = "llm"
COLUMNS: Final = (
    {"key": "figure", "title": "Figure"},
    {"key": "value", "title": "Value"},
    {"key": "p50", "title": "p50"},
    {"key": "p90", "title": "p90"},
    {"key": "p99", "title": "p99"},
)
LATENCIES: Final = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E"}
Row = dict[str, str]


def rows_of(watches: Watches) -> list[Row]:
    """Where the run stands that goes on, or how the last one ended."""
    watch = watches.newest
    rows: list[Row] = []
    if watches.refusal is not None:
        rows.append(_row("Could not start", watches.refusal))
    if watch is None:
        return rows or [_row("Run", "none yet")]
    rows.append(_row("Run", f"{watch.run.path.name}: {watch.state.value}, {watch.elapsed_s:.0f} s"))
    rows.append(_row("Verdict", verdict_of(watch)))
    shown = figures(watch.merged, watch.elapsed_s)
    rows += _requests(shown, watch.profile.load.requests)
    rows += _latencies(watch.merged, "")
    rows += _rates(shown, watch)
    for scenario, part in watch.merged.parts.items():
        ended = f"{part.total.ok} ok, {part.failed} failed"
        rows.append(_row(f"{scenario}: requests", ended))
        rows += _latencies(part, f"{scenario}: ")
    return rows


def verdict_of(watch: Watch) -> str:
    """In words: of the whole run where it was judged, else of the generator so far."""
    if watch.error is not None:
        return f"none: {watch.error}"
    if watch.verdict is not None:
        return ": ".join([watch.verdict["status"], *watch.verdict["reasons"][:1]])
    if watch.state in {State.PREPARING, State.REPORTING}:
        return "not yet"
    if watch.over:
        return "none: there is no summary; the log says why"
    return "so far: " + ("falling behind" if watch.merged.falling_behind else "keeping up")


def _requests(shown: dict[str, Any], quota: int | None) -> Iterator[Row]:
    of = f" of {quota}" if quota else ""
    yield _row("Requests ok", f"{shown['ok']}{of}")
    yield _row("Requests failed", str(shown["failed"]))
    for kind, count in shown["by_error"].items():
        yield _row(f"Failed: {kind}", str(count))
    if shown["cancelled"]:
        yield _row("Requests cancelled", str(shown["cancelled"]))
    yield _row("Requests in flight", str(shown["in_flight"]))


def _latencies(merged: Merged, prefix: str) -> Iterator[Row]:
    for name, label in LATENCIES.items():
        yield _percentiles(merged, name, f"{prefix}{label} (ms)")


def _rates(shown: dict[str, Any], watch: Watch) -> Iterator[Row]:
    latest = watch.series.samples[-1] if watch.series.samples and not watch.over else None
    if latest is not None:
        yield _row("Output tokens/s", _number(latest["output_tokens_per_s"]))
    elif watch.elapsed_s > 0:
        yield _row("Output tokens/s, mean", _number(shown["output_tokens"] / watch.elapsed_s))
    if shown["good_share"] is not None:
        rate = f"{shown['goodput_rps']:.2f} requests/s, " if shown["goodput_rps"] else ""
        yield _row("Goodput", f"{rate}{shown['good_share']:.1%}")
    if shown["valid_output_share"] is not None:
        yield _row("Valid outputs", f"{shown['valid_output_share']:.1%}")
    yield _percentiles(watch.merged, "read_lag", "Generator read lag (ms)")


def _percentiles(merged: Merged, name: str, label: str) -> Row:
    sketch = merged.sketches[name]
    values = [_number(sketch.quantile_ms(share)) for share in (0.5, 0.9, 0.99)]
    return _row(label, "", *values)


def _row(figure: str, value: str, p50: str = "", p90: str = "", p99: str = "") -> Row:
    return {"figure": figure, "value": value, "p50": p50, "p90": p90, "p99": p99}


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.2f}" if value < 10 else f"{value:.1f}"  # noqa: PLR2004 - digits for the eye
