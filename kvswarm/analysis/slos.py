"""Which requests met the SLOs of the profile.

In:  rows of the table, the profile's limits.  Out: a flag for each row.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvswarm.analysis.gates import SLO_NAME
from kvswarm.analysis.rows import Flags, Rows


def meets_all_slos(rows: Rows, limits_ms: Mapping[str, float]) -> Flags:
    """Which rows, of whatever phase, were successful and valid and met every SLO; (rows,)."""
    return all_met(rows, slos_met(rows, limits_ms))


def slos_met(rows: Rows, limits_ms: Mapping[str, float]) -> dict[str, Flags]:
    """Which rows meet each SLO, by its name."""
    return {name: meets_slo(rows, name, limit_ms) for name, limit_ms in limits_ms.items()}


def all_met(rows: Rows, met: Mapping[str, Flags]) -> Flags:
    """The same, by what `slos_met` gave."""
    valid: Flags = rows.ok & (rows.output_valid != False)  # noqa: E712 - None is no False
    for flags in met.values():
        valid = valid & flags
    return valid


def meets_slo(rows: Rows, name: str, limit_ms: float) -> Flags:
    """Which rows meet one SLO: their own value, or for ITL the percentile (or mean) of their gaps.

    A request without the value (one token has no gap) meets it. Percentiles of one request's gaps
    are by nearest rank: the smallest gap that at least that share of its gaps do not exceed.
    """
    match = SLO_NAME.fullmatch(name)
    if match is None or match[1] != "itl":
        values = rows[f"{match[1] if match else name}_ms"]
        within: Flags = ~(values > limit_ms)
        return within
    gaps_us, offsets = rows.lists["itl_us"]
    counts = np.diff(offsets)
    row_of_gap = np.repeat(np.arange(len(rows)), counts)
    statistic = match[2] or "mean"
    if statistic == "mean":
        sums = np.bincount(row_of_gap, weights=gaps_us, minlength=len(rows))
        met: Flags = sums <= counts * limit_ms * 1e3
        return met
    share = 1.0 if statistic == "max" else float(f"0.{statistic[1:]}")
    inside = np.bincount(row_of_gap[gaps_us <= limit_ms * 1e3], minlength=len(rows))
    return inside >= np.ceil(share * counts - 1e-9)
