"""How long the figures of a large run take: time and memory of the summary and of the page.

Makes a run directory of so many requests with 128 gaps each, as the recorder would have written it,
then summarises it and draws its page, each in a process of its own:

    python benchmarks/analysis_scale.py --rows 1000000

The directory (about 400 MB for a million rows) is removed at the end, or kept with --out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "analysis"))
from rundirs import START_NS, profile, run_info, worker

from kvswarm.analysis.report import report_page
from kvswarm.analysis.summary import summarise
from kvswarm.analysis.table import LISTS, PLAIN, ROWS_PER_GROUP, SCHEMA
from kvswarm.rundir import RunDir

GAPS = 128
RATE_NS = 1_000_000
"""A thousand arrivals a second."""


def main() -> int:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir(given.out or Path(scratch))
        make(run, given.rows)
        print(f"{given.rows:,} rows, table {run.requests.stat().st_size / 1e6:.0f} MB")
        for name, work in (("summary", _summary), ("summary and page", _page)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                wall_s, cpu_s, memory_mb = pool.apply(measured, (work, run.path))
            print(f"{name}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU, at most {memory_mb:,.0f} MB")
        print(f"page: {run.report.stat().st_size / 1e6:.1f} MB")
    return 0


def measured(work: Callable[[RunDir], None], path: Path) -> tuple[float, float, float]:
    """Wall time and CPU time in s, and the largest memory in MB, of a piece of work."""
    begun_s, cpu_s = time.monotonic(), time.process_time()
    work(RunDir(path))
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return time.monotonic() - begun_s, time.process_time() - cpu_s, memory_mb


def _summary(run: RunDir) -> None:
    summarise(run)


def _page(run: RunDir) -> None:
    run.report.write_text(report_page(run, run.read_info(), summarise(run)), "utf-8")


def make(run: RunDir, rows: int) -> None:
    """Write run.json and the table of an open loop at a thousand requests a second."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_info(run_info(profile(load={"requests": rows}), workers=[worker(records=rows)]))
    generator = np.random.default_rng(1)
    with pq.ParquetWriter(run.requests, SCHEMA, compression="zstd") as writer:
        for first in range(0, rows, ROWS_PER_GROUP):
            count = min(ROWS_PER_GROUP, rows - first)
            writer.write_table(_group(np.arange(first, first + count), generator))
        writer.add_key_value_metadata({"duplicates": "0", "cut_short": "0"})


def _group(index: np.ndarray, generator: np.random.Generator) -> pa.Table:
    count = len(index)
    sent_ns = START_NS + index * RATE_NS
    ttft_ns = (generator.lognormal(4.6, 0.3, count) * 1e6).astype(np.int64)
    gaps_us = np.abs(generator.normal(10_000, 800, (count, GAPS))).astype(np.int64)
    first_ns = sent_ns + ttft_ns
    last_ns = first_ns + gaps_us.sum(axis=1) * 1000
    end_ns = last_ns + 1_000_000
    values = {
        "index": index, "worker": 0, "phase": "measure", "scenario": "case", "endpoint": "chat",
        "intended_ns": sent_ns, "sent_ns": sent_ns, "first_byte_ns": first_ns,
        "first_token_ns": first_ns, "last_token_ns": last_ns, "end_ns": end_ns,
        "send_spread_us": 20, "http_status": 200, "finish_reason": "length",
        "asked_output_tokens": GAPS + 1, "prompt_tokens": 256, "completion_tokens": GAPS + 1,
        "events": GAPS + 1, "coalesced_events": 0, "clock": "kernel", "resent": 0,
        "unstamped_reads": 0, "ttft_ms": ttft_ns / 1e6, "ttft_from_intended_ms": ttft_ns / 1e6,
        "tpot_ms": (last_ns - first_ns) / 1e6 / GAPS, "e2e_ms": (end_ns - sent_ns) / 1e6,
    }  # fmt: skip
    lists = {"itl_us": gaps_us, "read_lag_us": generator.integers(5, 60, (count, GAPS + 1))}
    columns = []
    for field in SCHEMA:
        if field.name in LISTS:
            events = lists.get(field.name, np.zeros((count, 0), dtype=np.int64))
            offsets = np.arange(count + 1, dtype=np.int32) * events.shape[1]
            flat = events.reshape(-1).astype(LISTS[field.name])
            columns.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)))
            continue
        value = values.get(field.name)
        if value is None and field.name in PLAIN:
            columns.append(pa.nulls(count, field.type))
        elif isinstance(value, np.ndarray):
            columns.append(pa.array(value, type=field.type))
        else:
            columns.append(pa.array([value] * count, type=field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


if __name__ == "__main__":
    sys.exit(main())
