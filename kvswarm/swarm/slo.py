"""Whether a request is goodput, told as it ends: for the live view.

In:  the profile's SLOs, and records.  Out: yes or no for each.
Not: the figures that are kept: those come from the rows, by the same rules (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kvswarm.analysis.gates import SLO_NAME
from kvswarm.records import Record


class Slos:
    """The limits of one profile, `ttft_ms`, `itl_p99_ms`, ... to ms; read once."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._values: list[tuple[str, float]] = []
        self._gaps: list[tuple[str, float]] = []
        for name, limit_ms in limits.items():
            match = SLO_NAME.fullmatch(name)
            if match is not None and match[1] == "itl":
                self._gaps.append((match[2] or "mean", limit_ms))
            else:
                self._values.append((f"{match[1]}_ms" if match else name, limit_ms))

    def met_by(self, record: Record) -> bool:
        """True where a request succeeded, is not known to be invalid and met every limit.

        A request without the value (one token has no gap) meets its limit.
        """
        if not record.ok or record.output_valid is False:
            return False
        for name, limit_ms in self._values:
            value_ms = getattr(record, name)
            if value_ms is not None and value_ms > limit_ms:
                return False
        return all(_gaps_meet(record, *limit) for limit in self._gaps)


def _gaps_meet(record: Record, statistic: str, limit_ms: float) -> bool:
    """Percentiles are by nearest rank: at least that share of the gaps do not exceed the limit."""
    gaps_us = record.itl_us
    if statistic == "mean":
        return bool(gaps_us.sum() <= len(gaps_us) * limit_ms * 1e3)
    share = 1.0 if statistic == "max" else float(f"0.{statistic[1:]}")
    within = int((gaps_us <= limit_ms * 1e3).sum())
    return within >= math.ceil(share * len(gaps_us) - 1e-9)
