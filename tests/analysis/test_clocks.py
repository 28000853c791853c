"""Moments of workers whose clocks differ are compared on the master's clock; latencies are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvswarm.analysis.finish import finish
from kvswarm.analysis.rows import read_rows
from kvswarm.analysis.table import finish_table
from kvswarm.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, S, good, run_info, timed_profile, worker, write_run

AHEAD_MS = 5000
RTT_US = 200_000


def a_run(path: Path, *, offset_us: int | None, rtt_us: int | None = RTT_US) -> RunDir:
    """Two workers, each with a request a second for 8 s; the clock of one is 5 s ahead."""
    records = [good(index, at_ms=1000 * index) for index in range(8)]
    records += [good(8 + i, at_ms=1000 * i + AHEAD_MS, worker=1) for i in range(8)]
    info = run_info(
        timed_profile(8.0),
        load_stopped_ns=START_NS + 8 * S,
        workers=[worker(), worker(worker=1, clock_offset_us=offset_us, clock_rtt_us=rtt_us)],
    )
    return write_run(path, [records], info)


def test_what_came_within_the_run_is_told_by_one_clock(tmp_path: Path) -> None:
    """A worker whose clock is 5 s ahead seems to send most of its requests after the end."""
    known = finish(a_run(tmp_path / "known", offset_us=AHEAD_MS * 1000).path)
    unknown = finish(a_run(tmp_path / "unknown", offset_us=None, rtt_us=None).path)
    assert known["throughput"]["requests_per_s"] == pytest.approx(16 / 8)
    assert unknown["throughput"]["requests_per_s"] == pytest.approx(11 / 8)
    assert known["ttft_ms"] == unknown["ttft_ms"]
    assert known["ttft_ms"]["count"] == 16


def test_an_offset_within_the_round_trip_shifts_nothing(tmp_path: Path) -> None:
    """Workers of one machine have one clock; what is measured of it is noise."""
    run = a_run(tmp_path / "run", offset_us=RTT_US)
    finish_table(run)
    rows = list(read_rows(run))
    assert max(rows[0]["sent_ns"]) == float(START_NS + (7000 + AHEAD_MS) * 1_000_000)


def test_every_moment_of_a_request_is_shifted_alike(tmp_path: Path) -> None:
    """Or a request would end before it began."""
    run = a_run(tmp_path / "run", offset_us=AHEAD_MS * 1000)
    finish_table(run)
    rows = list(read_rows(run))
    for name in ("intended_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns"):
        first, second = rows[0][name][:8], rows[0][name][8:]
        assert first == pytest.approx(second, abs=1000)
