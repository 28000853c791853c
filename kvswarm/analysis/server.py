"""server.parquet: what the servers said of themselves over the run, in long form.

In:  the pages that were recorded (`kvswarm.telemetry.pages`).
Out: one row per sample: time, replica, name, labels (JSON, sorted), value.

To keep it small, these are left out: `_created` (when a counter began), and the buckets of a
histogram that nothing was added to from its replica's first page to the last. Each page has one
sample more, `scrape_duration_seconds`, as in Prometheus: its time less this is when it was asked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.rundir import RunDir
from kvswarm.telemetry.pages import Page, read_pages

SCHEMA: Final = pa.schema([
    ("time_ns", pa.int64()), ("replica", pa.string()), ("name", pa.string()),
    ("labels", pa.string()), ("value", pa.float64()),
])  # fmt: skip
PAGES_PER_GROUP: Final = 100
SCRAPE_DURATION: Final = "scrape_duration_seconds"
COUNTER_TYPE: Final = re.compile(r"^# TYPE (\S+) counter", re.MULTILINE)
Still = frozenset[tuple[str, str]]
"""Replica and family of histograms that did not change."""


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


def _groups(run: RunDir) -> Iterator[list[dict[str, Any]]]:
    still = _still_histograms(run)
    rows: list[dict[str, Any]] = []
    for number, page in enumerate(read_pages(run.server_pages), 1):
        rows += _rows(page, still)
        if number % PAGES_PER_GROUP == 0:
            yield rows
            rows = []
    yield rows


def _still_histograms(run: RunDir) -> Still:
    """Those that counted as much on the last page of a replica as on the first."""
    first: dict[str, Page] = {}
    last: dict[str, Page] = {}
    for page in read_pages(run.server_pages):
        first.setdefault(page.source, page)
        last[page.source] = page
    return frozenset(
        (source, family)
        for source in first
        for family, counts in _histogram_counts(first[source]).items()
        if counts == _histogram_counts(last[source]).get(family)
    )


def _histogram_counts(page: Page) -> dict[str, dict[str, float]]:
    """Of each histogram, how much each of its series has counted."""
    counts: dict[str, dict[str, float]] = {}
    for family in _families(page):
        if family.type == "histogram":
            counts[family.name] = {
                json.dumps(sample.labels, sort_keys=True): sample.value
                for sample in family.samples
                if sample.name.endswith("_count")
            }
    return counts


def _families(page: Page) -> list[Any]:
    """What a page holds; nothing where it is not Prometheus's format, or was cut off."""
    try:
        return list(text_string_to_metric_families(page.text.decode("utf-8", "replace")))
    except (ValueError, KeyError, IndexError):
        return []


def _rows(page: Page, still: Still) -> Iterator[dict[str, Any]]:
    families = _families(page)
    if not families:
        return
    # The parser adds _total to the names of counters, as OpenMetrics has it, where they have none.
    bare = {
        name
        for name in COUNTER_TYPE.findall(page.text.decode("utf-8", "replace"))
        if not name.endswith("_total")
    }

    def row(name: str, labels: dict[str, str], value: float) -> dict[str, Any]:
        return {
            "time_ns": page.time_ns,
            "replica": page.source,
            "name": name,
            "labels": json.dumps(labels, sort_keys=True),
            "value": float(value),
        }

    yield row(SCRAPE_DURATION, {}, (page.time_ns - page.asked_ns) / 1e9)
    for family in families:
        for sample in family.samples:
            name = sample.name
            if name.endswith("_created"):
                continue
            if name.endswith("_bucket") and (page.source, family.name) in still:
                continue
            if family.name in bare:
                name = name.removesuffix("_total")
            yield row(name, sample.labels, sample.value)
