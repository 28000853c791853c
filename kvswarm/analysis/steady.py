"""Had the run settled? Its warm-up, its drift, and the figures of what lies between.

In:  the rows of a run, in two passes: `SteadyState.add`, then, where a warm-up was found,
     `SteadyFigures.add`.
Out: the section `steady` of summary.json.

Judged are the TTFT of measured requests (means of logarithms of batches in order of sending: one
slow request says little of the others) and the output tokens/s (over as many equal slices of time).
The later of their two warm-ups holds. A load that changes by design is not judged: its course would
be taken for the server's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.rows import Flags, Floats, Rows
from kvswarm.analysis.samples import spread_over
from kvswarm.analysis.stationarity import (
    LEAST_INDEPENDENT,
    LEAST_VALUES,
    Drift,
    Warmup,
    drift_of,
    independent_values,
    warmup_of,
)
from kvswarm.profiles.model import Profile

BATCH_REQUESTS: Final = 5
MOST_BATCHES: Final = 200
LEAST_REQUESTS: Final = BATCH_REQUESTS * LEAST_VALUES
CHANGING: Final = {
    "ramp": "the load is a ramp by design",
    "stages": "the load goes through stages by design",
    "bursty": "the load comes in bursts by design",
}
LATENCIES: Final = ("ttft", "itl", "tpot", "e2e")
SIGNALS: Final = ("ttft_ms", "output_tokens_per_s")
WORDS: Final = {"ttft_ms": "TTFT", "output_tokens_per_s": "output tokens/s"}
TIMES: Final = ("sent_ns", "first_token_ns", "last_token_ns", "end_ns")


@dataclass(frozen=True, slots=True)
class Signal:
    """One series that is judged. Moments are in ns."""

    name: str
    values: Floats
    begins_ns: Floats
    """When each value begins."""
    warmup: Warmup

    @property
    def settled_ns(self) -> float | None:
        """When it had settled; None: not by its half."""
        length = self.warmup.length
        return None if length is None else float(self.begins_ns[length])

    def drift_from(self, begin_ns: float) -> Drift | None:
        """Its trend from then on; None where too little is left."""
        rest = self.values[self.begins_ns >= begin_ns]
        if len(rest) < LEAST_VALUES // 2:
            return None
        return drift_of(rest, logarithms=self.name == "ttft_ms")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Where the run is steady, ns; `reason` says why it was not judged, or is not."""

    reason: str | None
    signals: tuple[Signal, ...] = ()
    origin_ns: float | None = None
    begin_ns: float | None = None
    end_ns: float | None = None
    dropped: int = 0


class SteadyState:
    """Gathers what is judged: seven numbers of each request that succeeded."""

    def __init__(self, profile: Profile) -> None:
        self._pattern = profile.load.pattern
        self._parts: dict[str, list[Floats]] = {}
        self._columns: dict[str, Floats] | None = None

    def add(self, rows: Rows) -> None:
        """Add a piece of the table."""
        wanted = rows.ok & ~np.isnan(rows["first_token_ns"])
        columns = {name: rows[name] for name in (*TIMES, "ttft_ms")}
        columns |= {"tokens": rows.output_tokens, "measured": rows.measured.astype(np.float64)}
        for name, values in columns.items():
            self._parts.setdefault(name, []).append(values[wanted])

    @property
    def columns(self) -> dict[str, Floats]:
        """All that was gathered."""
        if self._columns is None:
            # One after the other, so that the pieces are not held beside the whole.
            names = list(self._parts)
            self._columns = {name: np.concatenate(self._parts.pop(name)) for name in names}
        return self._columns

    def judge(self) -> Judgement:
        """Find the steady part."""
        columns = self.columns
        measured = columns["measured"] == 1.0 if columns else np.zeros(0, dtype=bool)
        if not measured.any():
            return Judgement("no request succeeded in the measured phase")
        sent_ns = np.sort(columns["sent_ns"][measured])
        origin_ns, end_ns = float(sent_ns[0]), float(sent_ns[-1])
        reason = self._unfit(len(sent_ns), end_ns - origin_ns)
        if reason is not None:
            return Judgement(reason, origin_ns=origin_ns)
        series = _series(columns, measured)
        reason = _too_alike(series)
        if reason is not None:
            return Judgement(reason, origin_ns=origin_ns)
        signals = tuple(
            Signal(name, values, begins, warmup_of(values, logarithms=name == "ttft_ms"))
            for name, (values, begins) in series.items()
        )
        settled = [signal.settled_ns for signal in signals]
        if None in settled:
            names = " and ".join(s.name for s in signals if s.settled_ns is None)
            return Judgement(f"{names} had not settled by the run's half", signals, origin_ns)
        begin_ns = max(moment for moment in settled if moment is not None)
        dropped = int((sent_ns < begin_ns).sum())
        return Judgement(None, signals, origin_ns, begin_ns, end_ns, dropped)

    def _unfit(self, count: int, length_ns: float) -> str | None:
        """Why a run of so many requests is not judged."""
        if self._pattern in CHANGING:
            return f"{CHANGING[self._pattern]}, so its figures change with it"
        if count < LEAST_REQUESTS or length_ns <= 0:
            return (
                f"{count} measured requests succeeded; {LEAST_REQUESTS}, one after the other, are "
                "the least to tell a warm-up from chance"
            )
        return None

    def rates(self, begin_ns: float, end_ns: float) -> dict[str, float]:
        """Throughput between two moments, each request by the part of its time that lies there."""
        columns = self.columns
        length_s = (end_ns - begin_ns) / 1e9
        edges = np.array([0.0, length_s])
        sent, first, last, ended = ((columns[name] - begin_ns) / 1e9 for name in TIMES)
        requests = float(spread_over(edges, sent, ended, 1.0)[0])
        tokens = float(spread_over(edges, first, last, columns["tokens"])[0])
        return {
            "requests_per_s": max(0.0, requests / length_s),
            "output_tokens_per_s": max(0.0, tokens / length_s),
        }


class SteadyFigures:
    """The latencies of the requests that were sent in the steady part."""

    def __init__(self, begin_ns: float) -> None:
        self._begin_ns = begin_ns
        self._tallies = {name: Tally() for name in LATENCIES}

    def add(self, rows: Rows) -> None:
        """Add a piece of the table."""
        wanted: Flags = rows.good & (rows["sent_ns"] >= self._begin_ns)
        for name in ("ttft", "tpot", "e2e"):
            self._tallies[name].add(rows.of(f"{name}_ms", wanted) * 1e3)
        self._tallies["itl"].add(rows.flat("itl_us", wanted))

    def latencies(self) -> dict[str, dict[str, float | int | None]]:
        """Their statistics by name."""
        return {f"{name}_ms": tally.latency() for name, tally in self._tallies.items()}


def _series(columns: dict[str, Floats], measured: Flags) -> dict[str, tuple[Floats, Floats]]:
    """Values of each signal, and when each begins."""
    order = np.argsort(columns["sent_ns"][measured], kind="stable")
    sent_ns = columns["sent_ns"][measured][order]
    logarithms = np.log(np.maximum(columns["ttft_ms"][measured][order], 1e-3))
    count = min(MOST_BATCHES, len(sent_ns) // BATCH_REQUESTS)
    starts = np.arange(count) * len(sent_ns) // count
    sizes = np.diff(np.append(starts, len(sent_ns)))
    ttft = np.add.reduceat(logarithms, starts) / sizes
    edges = np.linspace(0.0, (sent_ns[-1] - sent_ns[0]) / 1e9, count + 1)
    first, last = (
        (columns[name] - sent_ns[0]) / 1e9 for name in ("first_token_ns", "last_token_ns")
    )
    tokens = spread_over(edges, first, last, columns["tokens"]) / np.diff(edges)
    return {
        "ttft_ms": (ttft, sent_ns[starts]),
        "output_tokens_per_s": (tokens, sent_ns[0] + edges[:-1] * 1e9),
    }


def _too_alike(series: dict[str, tuple[Floats, Floats]]) -> str | None:
    """Why a run is too short for how slowly its series change."""
    for name, (values, _) in series.items():
        if (count := independent_values(values)) < LEAST_INDEPENDENT:
            return (
                f"{name} changes too slowly for a run of this length: its {len(values)} slices say "
                f"as much as {count:.0f} independent ones, and {LEAST_INDEPENDENT:.0f} are the "
                "least"
            )
    return None


def steady_section(
    judgement: Judgement,
    latencies: dict[str, Any],
    rates: dict[str, float] | None,
) -> dict[str, Any]:
    """The section of the summary; latencies and rates are those of the steady part."""
    begin_ns, origin_ns = judgement.begin_ns, judgement.origin_ns
    steady = begin_ns is not None
    signals = [_signal(signal, judgement) for signal in judgement.signals]

    def seconds(moment_ns: float | None) -> float | None:
        return None if moment_ns is None or origin_ns is None else (moment_ns - origin_ns) / 1e9

    return {
        "reason": judgement.reason,
        "begin_s": seconds(begin_ns),
        "end_s": seconds(judgement.end_ns),
        "dropped_requests": judgement.dropped if steady else None,
        **{f"{name}_ms": latencies[f"{name}_ms"] if steady else None for name in LATENCIES},
        "throughput": rates if steady else None,
        "signals": signals,
        "notes": _notes(signals),
    }


def _signal(signal: Signal, judgement: Judgement) -> dict[str, Any]:
    settled_ns, origin_ns = signal.settled_ns, judgement.origin_ns
    drift = None if judgement.begin_ns is None else signal.drift_from(judgement.begin_ns)
    warmup_s = None
    if settled_ns is not None and origin_ns is not None:
        warmup_s = (settled_ns - origin_ns) / 1e9
    return {
        "name": signal.name,
        "warmup_s": warmup_s,
        "warmup_p_value": signal.warmup.p_value,
        "drift_change_share": None if drift is None else drift.change_share,
        "drift_p_value": None if drift is None else drift.p_value,
        "drifts": None if drift is None else drift.flagged,
    }


def _notes(signals: list[dict[str, Any]]) -> list[str]:
    return [
        f"{WORDS[signal['name']]} drifts: {signal['drift_change_share']:+.1%} over the steady part "
        f"(p {signal['drift_p_value']:.3f}), so its figures depend on how long the run was."
        for signal in signals
        if signal["drifts"]
    ]
