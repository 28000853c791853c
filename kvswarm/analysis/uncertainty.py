"""How early the token events of a table may really have come.

In:  rows with `late_us`: an event whose bytes shared a read with later ones came at some time in
     (stamp - late_us, stamp].
Out: `spread_gaps_us`: the gaps between events, had those of one read come evenly spaced since the
     moment at which their socket was last seen empty; `first_late_us`: how early the first may be.

As stamped, an event that waited for a slow reader makes one gap too long and the next too short.
Spread evenly, it makes the gaps of a server that sends evenly. The truth lies between, or near:
a figure that differs much between the two is not known.
"""

from __future__ import annotations

import numpy as np

from kvswarm.analysis.rows import Flags, Integers, Rows


def first_late_us(rows: Rows) -> Integers:
    """By how much the first event of each row may have come earlier, in us; shape (rows,)."""
    late: Integers = np.zeros(len(rows), dtype=np.int64)
    index, offsets = rows.lists["late_index"]
    values, _ = rows.lists["late_us"]
    has = np.diff(offsets) > 0
    firsts = offsets[:-1][has]
    late[has] = np.where(index[firsts] == 0, values[firsts], 0)
    return late


def spread_gaps_us(rows: Rows, wanted: Flags) -> Integers:
    """Gaps of the wanted rows with the events of each read spread evenly, in us; flat."""
    late = np.diff(rows.lists["late_index"][1]) > 0
    gaps = rows.flat("itl_us", wanted)
    if (wanted & late).any():  # the gaps of all others are as stamped
        counts = np.diff(rows.lists["itl_us"][1])[wanted]
        gaps[np.repeat(late[wanted], counts)] = _spread(rows, wanted & late)
    return gaps


def _spread(rows: Rows, wanted: Flags) -> Integers:
    """The same of rows that have late events."""
    gap_counts = np.diff(rows.lists["itl_us"][1])[wanted]
    late_counts = np.diff(rows.lists["late_index"][1])[wanted]
    gaps = rows.flat("itl_us", wanted)
    late_index, late_values = rows.flat("late_index", wanted), rows.flat("late_us", wanted)
    events = np.where(rows["events"][wanted] > 0, gap_counts + 1, 0).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(events)))
    # Arrivals from an origin of each row's own: only differences within a row are used.
    steps = np.zeros(int(starts[-1]), dtype=np.int64)
    is_start = np.zeros(len(steps), dtype=bool)
    is_start[starts[:-1][events > 0]] = True
    steps[~is_start] = gaps
    arrivals = np.cumsum(steps)
    late = np.zeros(len(steps), dtype=np.int64)
    late_rows = np.repeat(np.arange(len(events)), late_counts)
    late[starts[late_rows] + late_index] = late_values
    arrivals -= _shift_us(late, steps, is_start)
    spread: Integers = np.maximum(np.diff(arrivals, prepend=0), 0)[~is_start]
    return spread


def _shift_us(late: Integers, steps: Integers, is_start: Flags) -> Integers:
    """How much earlier each event stands when those of one read are spread evenly.

    The late events of a read follow each other with gaps of 0. The j-th of k goes to the j-th of
    k + 1 equal parts of the time in which all of them came.
    """
    is_late = late > 0
    if not is_late.any():
        return np.zeros(len(late), dtype=np.int64)
    goes_on = is_late & np.concatenate(([False], is_late[:-1])) & (steps == 0) & ~is_start
    begins = is_late & ~goes_on
    group = np.cumsum(begins) - 1
    places = np.flatnonzero(is_late)
    first_of_group = np.flatnonzero(begins)
    of_group = group[places]
    rank = places - first_of_group[of_group] + 1
    size = np.bincount(of_group)[of_group]
    shift = np.zeros(len(late), dtype=np.int64)
    shift[places] = late[places] * (size + 1 - rank) // (size + 1)
    return shift
