"""server.parquet: what the servers said of themselves over the run, in long form.

In:  the pages that were recorded (`kvswarm.telemetry.pages`).
Out: one row per sample: time, replica, name, labels (JSON, sorted), value.

To keep it small, these are left out: `_created` (when a counter began), and the buckets of a
histogram that nothing was added to from its replica's first page to the last. Each page has one
sample more, `scrape_duration_seconds`, as in Prometheus: its time less this is when it was asked.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

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
KNOWN_SERIES: Final = 1 << 16
Sample = tuple[str, str, float]
"""Name, labels as JSON, value."""
Still = frozenset[tuple[str, str]]
"""Replica and name of histograms that did not change."""


def finish_server_table(run: RunDir) -> None:
    """Turn the pages into the table, unless there are none or that was done. Raises OSError."""
    if not run.server_pages.exists():
        return
    unfinished = run.path / f".server.parquet.{os.getpid()}"
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
            still = _still_histograms(read_pages(run.server_pages))
            pages = read_pages(run.server_pages)
            while group := list(itertools.islice(pages, PAGES_PER_GROUP)):
                writer.write_table(_table(group, still))
        unfinished.replace(run.server)
    finally:
        unfinished.unlink(missing_ok=True)
    run.server_pages.unlink(missing_ok=True)


def _table(pages: Iterable[Page], still: Still) -> pa.Table:
    """A row for each sample that is kept."""
    times_ns, replicas = [], []
    samples: list[Sample] = []
    for page in pages:
        found = [sample for sample in _samples(page) if _is_kept(page.source, sample[0], still)]
        if found:
            found.insert(0, (SCRAPE_DURATION, "{}", (page.time_ns - page.asked_ns) / 1e9))
        samples += found
        times_ns += [page.time_ns] * len(found)
        replicas += [page.source] * len(found)
    names, labels, values = zip(*samples, strict=True) if samples else ((), (), ())
    return pa.Table.from_pydict(
        {
            "time_ns": times_ns, "replica": replicas, "name": names, "labels": labels,
            "value": values,
        },
        schema=SCHEMA,
    )  # fmt: skip


def _is_kept(source: str, name: str, still: Still) -> bool:
    if name.endswith("_created"):
        return False
    return not name.endswith("_bucket") or (source, name.removesuffix("_bucket")) not in still


def _still_histograms(pages: Iterable[Page]) -> Still:
    """Those that counted as much on the last page of a replica as on the first."""
    first: dict[str, Page] = {}
    last: dict[str, Page] = {}
    for page in pages:
        first.setdefault(page.source, page)
        last[page.source] = page
    still = set()
    for source, page in first.items():
        before, after = _counts(page), _counts(last[source])
        still |= {(source, name) for name in before if before[name] == after.get(name)}
    return frozenset(still)


def _counts(page: Page) -> dict[str, dict[str, float]]:
    """Of each histogram, how much each of its series has counted."""
    counts: dict[str, dict[str, float]] = {}
    for name, labels, value in _samples(page):
        if name.endswith("_count"):
            counts.setdefault(name.removesuffix("_count"), {})[labels] = value
    return counts


def _samples(page: Page) -> list[Sample]:
    """What a page holds; nothing where it is not Prometheus's text format, or was cut off."""
    samples = []
    try:
        for line in page.text.decode("utf-8", "replace").split("\n"):
            if not line or line.startswith("#"):
                continue
            # After the value there may be a moment; before it, braces in the text of a label.
            labelled, brace, numbers = line.rpartition("}")
            series, value = (labelled + brace, numbers) if brace else line.split(maxsplit=1)
            samples.append((*_series(series), float(value.split(maxsplit=1)[0])))
    except (ValueError, KeyError, IndexError):
        return []
    return samples


@lru_cache(KNOWN_SERIES)
def _series(text: str) -> tuple[str, str]:
    """Name and labels of a series; the same on page after page, so each is parsed once.

    Raises ValueError where it is none.
    """
    (family,) = text_string_to_metric_families(f"{text} 0\n")
    (sample,) = family.samples
    return sample.name, json.dumps(sample.labels, sort_keys=True)
