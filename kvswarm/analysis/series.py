"""Time series of server.parquet, and what can be computed of one: growth, mean, largest.

In:  the table of a run.  Out: `Replica`s with their `Series`; figures over a `Span` of pages.

Counters by Prometheus' rule: one that falls was started anew, and counts from 0. A series that
appears later than its page counts from 0 as well, for it is made when something is first counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kvswarm.analysis.server import SCRAPE_DURATION
from kvswarm.analysis.server_names import Pick
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
PROCESS_START: Final = "process_start_time_seconds"
COUNTERS: Final = ("_total", "_count", "_success")
MIXED_FALLS: Final = 3
MIXED_SHARE: Final = 0.1
"""A counter that falls so often, and on so many pages, is read from several servers by turns."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one sample over time; ascending times, ns."""

    labels: dict[str, str]
    times_ns: Integers
    values: Floats


@dataclass(frozen=True, slots=True)
class Span:
    """The pages of a replica that figures are of: from one to another, moments of reading, ns."""

    start_ns: int
    end_ns: int
    start_edge_ns: tuple[int, int]
    """From the asking for the first page to its reading: what it tells is of a moment between."""
    end_edge_ns: tuple[int, int]
    whole: bool
    """Whether it covers all that it was to cover."""


def together(spans: Sequence[Span]) -> Span:
    """From the first page of all to the last; edges from the first of them to the last."""
    starts, ends = [s.start_edge_ns for s in spans], [s.end_edge_ns for s in spans]
    return Span(
        start_ns=min(span.start_ns for span in spans),
        end_ns=max(span.end_ns for span in spans),
        start_edge_ns=(min(edge[0] for edge in starts), max(edge[1] for edge in starts)),
        end_edge_ns=(min(edge[0] for edge in ends), max(edge[1] for edge in ends)),
        whole=all(span.whole for span in spans),
    )


@dataclass(frozen=True)
class Replica:
    """All that one source told."""

    name: str
    times_ns: Integers
    """When its pages were read, ascending."""
    asked_ns: Integers
    series: dict[str, list[Series]]

    def pick(self, pick: Pick) -> list[Series]:
        """The series of a name with these labels."""
        wanted = pick.labels.items()
        return [s for s in self.series.get(pick.name, []) if wanted <= s.labels.items()]

    def has(self, beginnings: tuple[str, ...]) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(beginnings) for name in self.series)

    @property
    def whole(self) -> Span:
        """From its first page to its last."""
        first, last = int(self.times_ns[0]), int(self.times_ns[-1])
        return Span(first, last, (first, first), (last, last), whole=True)

    def span(self, first_sent_ns: int, last_end_ns: int, *, late: bool = False) -> Span:
        """From the last page that was read by then, to the first that was asked for after.

        A `late` replica, which served nobody before, has counted from 0 where no page is as old:
        its span begins with the window, with nothing counted.
        """
        before = np.flatnonzero(self.times_ns <= first_sent_ns)
        after = np.flatnonzero(self.asked_ns >= last_end_ns)
        start = int(before[-1]) if len(before) else 0
        end = int(after[0]) if len(after) else len(self.times_ns) - 1
        start_edge_ns = (int(self.asked_ns[start]), int(self.times_ns[start]))
        if late and not len(before):
            start_edge_ns = (first_sent_ns, first_sent_ns)
        return Span(
            start_ns=start_edge_ns[1],
            end_ns=int(self.times_ns[end]),
            start_edge_ns=start_edge_ns,
            end_edge_ns=(int(self.asked_ns[end]), int(self.times_ns[end])),
            whole=bool((len(before) or late) and len(after)),
        )

    @cached_property
    def several(self) -> bool:
        """Whether these pages are of several servers, which answered by turns."""
        for series in self.series.get(PROCESS_START, []):
            if np.any(np.diff(series.values) < 0):
                return True
        falls = max((_falls(s) for group in self._counters() for s in group), default=0)
        return falls >= max(MIXED_FALLS, MIXED_SHARE * len(self.times_ns))

    def restarted(self, span: Span) -> bool:
        """Whether a counter fell within the span."""
        return any(
            _falls(_within(series, span)) > 0 for group in self._counters() for series in group
        )

    def _counters(self) -> Iterator[list[Series]]:
        for name, group in self.series.items():
            if name.endswith(COUNTERS):
                yield group


def _falls(series: Series) -> int:
    return int((np.diff(series.values) < 0).sum())


def _within(series: Series, span: Span) -> Series:
    inside = (series.times_ns >= span.start_ns) & (series.times_ns <= span.end_ns)
    return Series(series.labels, series.times_ns[inside], series.values[inside])


def increase(series: Series, span: Span) -> float:
    """By how much a counter grew from the first page of the span to the last."""
    before = series.values[series.times_ns <= span.start_ns]
    later = (series.times_ns > span.start_ns) & (series.times_ns <= span.end_ns)
    values = np.concatenate((before[-1:] if len(before) else [0.0], series.values[later]))
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())


def total_increase(group: Sequence[Series], span: Span) -> float | None:
    """The same of several series together; None where there are none, or only one page."""
    if not group or span.end_ns <= span.start_ns:
        return None
    return sum(increase(series, span) for series in group)


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge over time, of several series together."""

    times_ns: Integers
    values: Floats

    @property
    def mean(self) -> float:
        """Over time: linear between two pages."""
        length = float(self.times_ns[-1] - self.times_ns[0])
        if length <= 0:
            return float(self.values.mean())
        seconds = (self.times_ns - self.times_ns[0]) / 1e9
        return float(np.trapezoid(self.values, seconds)) / (length / 1e9)

    @property
    def max(self) -> float:
        """The largest that a page told."""
        return float(self.values.max())

    def at(self, times_ns: Integers) -> Floats:
        """Values at other times, linear between two pages; beyond them as at the nearest."""
        # From the first moment on: 1.8e18 ns would lose 128 ns as a float.
        origin = self.times_ns[0]
        found: Floats = np.interp(
            (times_ns - origin).astype(np.float64),
            (self.times_ns - origin).astype(np.float64),
            self.values,
        )
        return found


def level(group: Sequence[Series], span: Span, *, summed: bool) -> Level | None:
    """The sum (or mean) of gauges at each page of the span; None where no page has one."""
    inside = [_within(series, span) for series in group]
    times = np.concatenate([series.times_ns for series in inside] or [np.empty(0, np.int64)])
    values = np.concatenate([series.values for series in inside] or [np.empty(0)])
    known = np.isfinite(values)
    times, values = times[known], values[known]
    if not len(times):
        return None
    pages, place = np.unique(times, return_inverse=True)
    totals: Floats = np.bincount(place, weights=values).astype(np.float64)
    return Level(pages, totals if summed else totals / np.bincount(place))


def read_replicas(run: RunDir, names: Sequence[str]) -> list[Replica]:
    """Read the series of these names, by replica. Raises RunDirError where the table is damaged."""
    if not run.server.exists():
        return []
    wanted = [*names, SCRAPE_DURATION, PROCESS_START]
    try:
        table = pq.read_table(run.server, filters=[("name", "in", wanted)]).sort_by("time_ns")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RunDirError(
            f"{run.server}: cannot be read: {error}",
            fix="Restore the file from a copy, or remove it: the other figures need it not.",
        ) from error
    replicas = []
    for name in dict.fromkeys(table["replica"].to_pylist()):
        rows = table.filter(pa.compute.equal(table["replica"], name))
        series = _series(rows)
        times_ns = asked_ns = np.unique(rows["time_ns"].to_numpy())
        if SCRAPE_DURATION in series:  # tables of older versions do not tell how long it took
            pages = series.pop(SCRAPE_DURATION)[0]
            times_ns = pages.times_ns
            asked_ns = times_ns - np.rint(pages.values * 1e9).astype(np.int64)
        replicas.append(Replica(name, times_ns, asked_ns, series))
    return replicas


def _series(rows: Any) -> dict[str, list[Series]]:
    times_ns = rows["time_ns"].to_numpy()
    values = rows["value"].to_numpy()
    keys = pa.compute.binary_join_element_wise(rows["name"], rows["labels"], "\n")
    encoded = keys.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    found: dict[str, list[Series]] = {}
    for place, key in enumerate(encoded.dictionary.to_pylist()):
        name, _, labels = key.partition("\n")
        mine = order[ends[place - 1] if place else 0 : ends[place]]
        found.setdefault(name, []).append(Series(json.loads(labels), times_ns[mine], values[mine]))
    return found
