"""Numbers that change at moments: how many pods there are, how many are ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kvswarm.analysis.rows import Floats, Integers


@dataclass(frozen=True)
class Steps:
    """A number over time: 0 before the first of `times_ns`, which ascend; shapes (changes,)."""

    times_ns: Integers
    values: Integers

    @classmethod
    def of(cls, changes: Iterable[tuple[int, int]]) -> Steps:
        """From (moment, new value), in order; of several at one moment the last counts."""
        kept = dict(changes)
        return cls(np.array([*kept], dtype=np.int64), np.array([*kept.values()], dtype=np.int64))

    def at(self, time_ns: float) -> int:
        """The number at a moment, a change at that very moment included."""
        return int(self.at_all(np.array([time_ns]))[0])

    def at_all(self, times_ns: Floats | Integers) -> Integers:
        """The number at each of several moments."""
        place = np.searchsorted(self.times_ns, times_ns, side="right")
        return np.concatenate(([0], self.values))[place]


def total(group: Sequence[Steps]) -> Steps:
    """The sum of several; only moments at which it changes are kept."""
    times = np.concatenate([np.empty(0, np.int64), *(each.times_ns for each in group)])
    moments = np.unique(times)
    values = np.zeros(len(moments), dtype=np.int64)
    for each in group:
        values += each.at_all(moments)
    changed = np.diff(values, prepend=0) != 0
    return Steps(moments[changed], values[changed])
