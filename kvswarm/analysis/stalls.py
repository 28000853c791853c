"""Streams that stood still: gaps between tokens far above the usual, and what else happened then.

In:  the rows of a run, in two passes: `Stalls.add`, then `StallCount.add` with the threshold.
Out: the section `stalls` of summary.json.

A gap is a stall from `threshold_us` on. What the generator may have made itself, because it read
late, is told first and has no other cause. Causes are coincidences: `chance_share` says how often
the same would be found at any moment of the run.
Memory holds no gaps but those of a piece, and of each request with a long prompt two moments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.rows import Flags, Floats, Integers, Rows
from kvswarm.analysis.stall_causes import CAUSES, Conditions

FLOOR_MS: Final = 100.0
FACTOR: Final = 10.0
LONG_PROMPT_TOKENS: Final = 1024
"""A prompt from here on fills much of a server's step."""
LONGEST: Final = 10
TIME_BINS: Final = 120
CHANCE_STRETCHES: Final = 1000


def usual_gap_us(itl: Tally) -> float | None:
    """The median of gaps above 0: tokens that come in one piece have gaps of 0 between them."""
    zeros = itl.count_below(1)
    if zeros == itl.count:
        return None
    above = itl.count - zeros
    return itl.quantile_us((zeros + (above - 1) / 2) / max(1, itl.count - 1))


def threshold_us(itl: Tally) -> float | None:
    """From which gap on a stream stands still; None where there are no gaps."""
    usual_us = usual_gap_us(itl)
    return None if usual_us is None else max(FLOOR_MS * 1e3, FACTOR * usual_us)


class Prefills:
    """Gathers when long prompts were sent and had their first token."""

    def __init__(self) -> None:
        self._starts: list[Floats] = []
        self._ends: list[Floats] = []

    def add(self, rows: Rows) -> None:
        """Add a piece of the table."""
        wanted = (rows["prompt_tokens"] >= LONG_PROMPT_TOKENS) & ~np.isnan(rows["first_token_ns"])
        self._starts.append(rows["sent_ns"][wanted])
        self._ends.append(rows["first_token_ns"][wanted])

    def seconds(self, origin_ns: float) -> tuple[Floats, Floats]:
        """Starts and ends since the origin, each ascending."""
        both = []
        for parts in (self._starts, self._ends):
            whole = np.concatenate([*parts, np.zeros(0)])
            both.append(np.sort((whole - origin_ns) / 1e9))
        return both[0], both[1]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stall is, and where its time begins."""

    origin_ns: float
    end_ns: float
    threshold_us: float
    usual_us: float

    @property
    def length_s(self) -> float:
        """Of the run, as far as stalls are looked for."""
        return max((self.end_ns - self.origin_ns) / 1e9, 1e-3)


class StallCount:
    """Counts stalls and their causes in the second pass."""

    def __init__(self, limits: Limits, conditions: Conditions) -> None:
        self._limits = limits
        self._conditions = conditions
        self._counts: Counter[str] = Counter()
        self._lost_ms: dict[str, float] = defaultdict(float)
        self._requests = 0
        self._lengths = Tally()
        self._longest: list[dict[str, Any]] = []
        self._bins = np.zeros(TIME_BINS, dtype=np.int64)
        self._bin_longest_ms = np.zeros(TIME_BINS)

    def has_any(self, itl: Tally) -> bool:
        """Whether any gap is a stall, so that the rows need be read."""
        return itl.count_below(self._limits.threshold_us) < itl.count

    def add(self, rows: Rows) -> None:
        """Add a piece of the table."""
        gaps_us, offsets = rows.lists["itl_us"]
        wanted = np.repeat(rows.good, np.diff(offsets))
        places = np.flatnonzero(wanted & (gaps_us >= self._limits.threshold_us))
        if not len(places):
            return
        row = np.searchsorted(offsets, places, side="right") - 1
        come_us = np.concatenate(([0], np.cumsum(gaps_us)))
        first_s = (rows["first_token_ns"][row] - self._limits.origin_ns) / 1e9
        end_s = first_s + (come_us[places + 1] - come_us[offsets[row]]) / 1e6
        gap_us = gaps_us[places]
        own = gap_us - closing_late_us(rows)[places] < self._limits.threshold_us
        causes = self._causes(end_s - gap_us / 1e6, end_s, own)
        lost_ms = (gap_us - self._limits.usual_us) / 1e3
        for name, flags in causes.items():
            self._counts[name] += int(flags.sum())
            self._lost_ms[name] += float(lost_ms[flags].sum())
        self._counts["all"] += len(places)
        self._lost_ms["all"] += float(lost_ms.sum())
        self._requests += len(np.unique(row))
        self._lengths.add(gap_us)
        self._keep_longest(rows["index"][row], gap_us, end_s, causes)
        self._over_time(gap_us, end_s)

    def _causes(self, begin_s: Floats, end_s: Floats, own: Flags) -> dict[str, Flags]:
        held = {
            cause: self._conditions.held(cause, begin_s, end_s) & ~own
            for cause in CAUSES
            if self._conditions.told(cause)
        }
        unexplained = ~own & ~np.any([*held.values(), np.zeros(len(own), dtype=bool)], axis=0)
        return {"generator": own, **held, "unexplained": unexplained}

    def _keep_longest(
        self, index: Floats, gap_us: Integers, end_s: Floats, causes: dict[str, Flags]
    ) -> None:
        for place in np.argsort(-gap_us, kind="stable")[:LONGEST].tolist():
            self._longest.append(
                {
                    "begin_s": float(end_s[place] - gap_us[place] / 1e6),
                    "index": int(index[place]),
                    "gap_ms": float(gap_us[place]) / 1e3,
                    "causes": [name for name, flags in causes.items() if flags[place]],
                }
            )
        self._longest.sort(key=_longest_first)
        del self._longest[LONGEST:]

    def _over_time(self, gap_us: Integers, end_s: Floats) -> None:
        bin_of = (end_s / self._limits.length_s * TIME_BINS).astype(np.int64)
        bin_of = np.clip(bin_of, 0, TIME_BINS - 1)
        self._bins += np.bincount(bin_of, minlength=TIME_BINS)
        np.maximum.at(self._bin_longest_ms, bin_of, gap_us / 1e3)

    def section(self, itl: Tally) -> dict[str, Any]:
        """The section of the summary; `itl`: all gaps."""
        total_ms = (itl.latency()["mean"] or 0.0) * itl.count
        count, lost_ms = self._counts["all"], self._lost_ms["all"]
        limits, chance = self._limits, self._chance()
        told = [cause for cause in CAUSES if self._conditions.told(cause)]
        causes = [
            {
                "cause": name,
                "count": self._counts[name],
                "share": self._counts[name] / count if count else None,
                "lost_ms": self._lost_ms[name],
                "lost_share": self._lost_ms[name] / lost_ms if lost_ms else None,
                "chance_share": chance.get(name),
            }
            for name in ("generator", *told, "unexplained")
        ]
        return {
            "threshold_ms": limits.threshold_us / 1e3,
            "usual_gap_ms": limits.usual_us / 1e3,
            "count": count,
            "gap_share": count / itl.count,
            "requests": self._requests,
            "lost_ms": float(lost_ms),
            "lost_share": lost_ms / total_ms if total_ms else 0.0,
            "causes": causes,
            "untold": [cause for cause in CAUSES if cause not in told],
            "longest": self._longest,
            "bin_s": limits.length_s / TIME_BINS,
            "counts": self._bins.tolist() if count else [],
            "longest_gap_ms": self._bin_longest_ms.tolist() if count else [],
        }

    def _chance(self) -> dict[str, float]:
        """How often each cause is found around stretches as long as a usual stall, at any time."""
        length_us = self._lengths.quantile_us(0.5)
        if length_us is None:
            return {}
        last_s = max(0.0, self._limits.length_s - length_us / 1e6)
        begin_s = np.linspace(0.0, last_s, CHANCE_STRETCHES)
        end_s = begin_s + length_us / 1e6
        return {
            cause: float(self._conditions.held(cause, begin_s, end_s).mean())
            for cause in CAUSES
            if self._conditions.told(cause)
        }


def closing_late_us(rows: Rows) -> Integers:
    """By how much the event that ended each gap may have come earlier than read; flat, in us."""
    gaps_us, gap_offsets = rows.lists["itl_us"]
    index, late_offsets = rows.lists["late_index"]
    values, _ = rows.lists["late_us"]
    late: Integers = np.zeros(len(gaps_us), dtype=np.int64)
    row = np.repeat(np.arange(len(rows)), np.diff(late_offsets))
    closes = index > 0  # the first event ends no gap
    late[gap_offsets[row[closes]] + index[closes] - 1] = values[closes]
    return late


def _longest_first(stall: dict[str, Any]) -> tuple[float, int]:
    return -stall["gap_ms"], stall["index"]
