"""Rows of our own in Locust's statistics: TTFT, ITL, TPOT beside E2E.

E2E goes through Locust's `request` event, as every request must, once. The others are written
into their own entries, so that the Aggregated row counts each request once. Locust rounds to two
digits and stops at ms: good for a glance; figures come from the records.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from locust.env import Environment
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV, StatsEntry, bucket_response_time
from numpy.typing import NDArray

from kvswarm.records import ERROR_KINDS, Record

LARGEST_MS: Final = 1_000_000


class StreamError(Exception):
    """A failed request, as Locust shows it: grouped by kind."""


class Rows:
    """Writes figures into the statistics of an environment, under the name of their scenario."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._gaps_us: dict[str, list[NDArray[np.uint32]]] = {}

    def add(self, record: Record) -> None:
        """Show one record, unless we ended it ourselves. ITL follows with `flush`."""
        failed = None
        if record.error_kind == "cancelled":
            return
        if record.error_kind is not None:
            # Without the server's words: every other text would be a line of its own for ever.
            meaning = ERROR_KINDS.get(record.error_kind, "the server's answer")
            failed = StreamError(f"{record.error_kind}: {meaning}")
        self._environment.events.request.fire(
            request_type="E2E",
            name=record.scenario,
            response_time=record.e2e_ms,
            response_length=record.completion_tokens or record.events,
            exception=failed,
            context={},
        )
        if failed is not None:
            return
        for kind, value_ms in (("TTFT", record.ttft_ms), ("TPOT", record.tpot_ms)):
            if value_ms is not None:
                self._entry(record.scenario, kind).log(round(value_ms), 0)
        if len(record.itl_us):
            self._gaps_us.setdefault(record.scenario, []).append(record.itl_us)

    def flush(self) -> None:
        """Add the gaps since the last time: by value, because there are many."""
        gaps_us, self._gaps_us = self._gaps_us, {}
        for scenario, parts in gaps_us.items():
            self._add_gaps(scenario, np.concatenate(parts) / 1000)

    def _add_gaps(self, scenario: str, gaps_ms: NDArray[np.float64]) -> None:
        entry: Any = self._entry(scenario, "ITL")  # Locust says int where it keeps floats
        now_s = time.time()
        entry.num_requests += len(gaps_ms)
        entry.num_reqs_per_sec[int(now_s)] += len(gaps_ms)
        entry.last_request_timestamp = now_s
        entry.total_response_time += float(gaps_ms.sum())
        low_ms, high_ms = float(gaps_ms.min()), float(gaps_ms.max())
        known_low_ms = entry.min_response_time
        entry.min_response_time = low_ms if known_low_ms is None else min(known_low_ms, low_ms)
        entry.max_response_time = max(entry.max_response_time, high_ms)
        counts = np.bincount(np.minimum(np.rint(gaps_ms), LARGEST_MS).astype(np.int64))
        for value_ms in np.flatnonzero(counts).tolist():
            entry.response_times[bucket_response_time(value_ms)] += int(counts[value_ms])

    def _entry(self, scenario: str, kind: str) -> StatsEntry:
        entry: StatsEntry = self._environment.stats.get(scenario, kind)
        return entry


def write_csv(environment: Environment) -> None:
    """Write Locust's tables of --csv: it does so every second, but not once more at its end."""
    prefix = getattr(environment.parsed_options, "csv_prefix", None)
    if not prefix:
        return
    tables = StatsCSV(environment, PERCENTILES_TO_REPORT)
    for name, write in (
        ("stats", tables.requests_csv),
        ("failures", tables.failures_csv),
        ("exceptions", tables.exceptions_csv),
    ):
        with Path(f"{prefix}_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            write(csv.writer(file))
