"""How a run went over its time: was it steady, and where did its streams stand still?

In:  the rows of the pass that makes the summary; where they say that it is needed, a pass more.
Out: the sections `steady` and `stalls` of summary.json.

What a stall is depends on the usual gap, and which requests are steady on all of them, so neither
is known before the first pass has ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.rows import Rows, read_rows
from kvswarm.analysis.stall_causes import Conditions, server_pages
from kvswarm.analysis.stalls import Limits, Prefills, StallCount, threshold_us, usual_gap_us
from kvswarm.analysis.steady import LATENCIES, SteadyFigures, SteadyState, steady_section
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir, RunInfo


class Course:
    """Gathers what both need."""

    def __init__(self, run: RunDir, info: RunInfo, profile: Profile) -> None:
        self._run, self._info = run, info
        self._steady = SteadyState(profile)
        self._prefills = Prefills()
        self._last_end_ns = -np.inf

    def add(self, rows: Rows) -> None:
        """Add a piece of the table."""
        self._steady.add(rows)
        self._prefills.add(rows)
        if rows.good.any():
            self._last_end_ns = max(self._last_end_ns, float(rows["end_ns"][rows.good].max()))

    def sections(self, tallies: dict[str, Tally]) -> dict[str, Any]:
        """Both sections; `tallies`: latencies of the measured requests that succeeded.

        Raises RunDirError where a table is damaged.
        """
        judgement = self._steady.judge()
        origin_ns, begin_ns, end_ns = judgement.origin_ns, judgement.begin_ns, judgement.end_ns
        stalls = None if origin_ns is None else self._stall_count(tallies["itl"], origin_ns)
        steady = SteadyFigures(begin_ns) if begin_ns is not None and judgement.dropped else None
        passes: list[StallCount | SteadyFigures] = [] if steady is None else [steady]
        if stalls is not None and stalls.has_any(tallies["itl"]):
            passes.append(stalls)
        for rows in read_rows(self._run) if passes else ():
            for each in passes:
                each.add(rows)
        latencies = {f"{name}_ms": tallies[name].latency() for name in LATENCIES}
        if steady is not None:
            latencies = steady.latencies()
        rates = None
        if begin_ns is not None and end_ns is not None:
            rates = self._steady.rates(begin_ns, end_ns)
        return {
            "steady": steady_section(judgement, latencies, rates),
            "stalls": None if stalls is None else stalls.section(tallies["itl"]),
        }

    def _stall_count(self, itl: Tally, origin_ns: float) -> StallCount | None:
        """None where no gap tells what is usual."""
        limit_us, usual_us = threshold_us(itl), usual_gap_us(itl)
        if limit_us is None or usual_us is None:
            return None
        limits = Limits(origin_ns, self._last_end_ns, limit_us, usual_us)
        return StallCount(limits, self._conditions(origin_ns))

    def _conditions(self, origin_ns: float) -> Conditions:
        pages = server_pages(self._run, self._info, origin_ns)
        return Conditions(pages, *self._prefills.seconds(origin_ns))
