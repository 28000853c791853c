"""server.parquet: what the server said of itself over the run, in long form.

In:  the pages that were recorded (`kvswarm.telemetry.pages`).
Out: one row per sample: time, replica, name, labels (JSON, sorted), value.
     `Totals`: what counters have grown by from the first page to the last.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.rundir import RunDir
from kvswarm.telemetry.pages import read_pages

SCHEMA: Final = pa.schema([
    ("time_ns", pa.int64()), ("replica", pa.string()), ("name", pa.string()),
    ("labels", pa.string()), ("value", pa.float64()),
])  # fmt: skip
PAGES_PER_GROUP: Final = 100
REQUESTS: Final = "vllm:request_success_total"
TOKENS: Final = "vllm:generation_tokens_total"
TTFT_SUM: Final = "vllm:time_to_first_token_seconds_sum"
TTFT_COUNT: Final = "vllm:time_to_first_token_seconds_count"
COUNTERS: Final = (REQUESTS, TOKENS, TTFT_SUM, TTFT_COUNT)


def finish_server_table(run: RunDir) -> None:
    """Turn the pages into the table, unless there are none or that was done. Raises OSError."""
    if not run.server_pages.exists():
        return
    unfinished = run.path / f".server.parquet.{os.getpid()}"
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
            for group in _groups(run):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
        unfinished.replace(run.server)
    finally:
        unfinished.unlink(missing_ok=True)
    run.server_pages.unlink(missing_ok=True)


def _groups(run: RunDir) -> Iterator[list[dict[str, object]]]:
    rows: list[dict[str, object]] = []
    for number, (time_ns, text) in enumerate(read_pages(run.server_pages), 1):
        rows += _samples(time_ns, text)
        if number % PAGES_PER_GROUP == 0:
            yield rows
            rows = []
    yield rows


def _samples(time_ns: int, text: bytes) -> Iterator[dict[str, object]]:
    try:
        families = list(text_string_to_metric_families(text.decode("utf-8", "replace")))
    except (ValueError, KeyError, IndexError):
        return  # not Prometheus's format: JSON, say, or a page of HTML
    for family in families:
        for sample in family.samples:
            yield {
                "time_ns": time_ns,
                "replica": "",
                "name": sample.name,
                "labels": json.dumps(sample.labels, sort_keys=True),
                "value": float(sample.value),
            }


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTotals:
    """By what the server's counters grew over the run, all labels together."""

    requests: float
    tokens: float
    ttft_sum_s: float
    ttft_count: float


def server_totals(run: RunDir) -> ServerTotals | None:
    """Read them from the table; None where there are none, or they belong to no one server.

    A counter that falls was read from another replica, or from a server that was started anew.
    """
    if not run.server.exists():
        return None
    table = pq.read_table(
        run.server, columns=["time_ns", "name", "value"], filters=[("name", "in", COUNTERS)]
    )
    sums = table.group_by(["name", "time_ns"]).aggregate([("value", "sum")]).sort_by("time_ns")
    grown = {}
    for name in COUNTERS:
        values = sums.filter(pa.compute.equal(sums["name"], name))["value_sum"].to_pylist()
        if not values or any(b < a for a, b in itertools.pairwise(values)):
            return None
        grown[name] = values[-1] - values[0]
    return ServerTotals(
        requests=grown[REQUESTS],
        tokens=grown[TOKENS],
        ttft_sum_s=grown[TTFT_SUM],
        ttft_count=grown[TTFT_COUNT],
    )
