"""A folder of runs is a data set: its tables hold what the run directories hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kvswarm.analysis import load
from kvswarm.analysis.finish import finish
from kvswarm.errors import RunDirError

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, START_NS, good, run_info, worker, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two finished runs at two depths, and one that was cut off."""
    write_run(tmp_path / "one", [MIXED])
    finish(tmp_path / "one")
    write_run(tmp_path / "deep" / "two", [[good(0), good(1, at_ms=40, gaps_ms=(5.0,))]])
    finish(tmp_path / "deep" / "two")
    write_run(tmp_path / "cut", [[good(0)]])
    return tmp_path


def test_runs_at_any_depth_are_found_and_unfinished_ones_are_told_of(folder: Path) -> None:
    dataset = load(folder)
    assert list(dataset.runs["run"]) == ["deep/two", "one"]
    assert list(dataset.runs["ok"]) == [2, 2]
    assert list(dataset.skipped) == ["cut"]
    assert "summary.json" in dataset.skipped["cut"]


def test_figures_of_runs_are_those_of_their_summaries(folder: Path) -> None:
    summary = finish(folder / "one")
    line = load(folder / "one").runs.iloc[0]
    assert line["run"] == "."
    assert line["ttft_p50_ms"] == summary["ttft_ms"]["p50"] == 150.0
    assert line["verdict"] == summary["verdict"]["status"]
    assert line["concurrency"] == 4


def test_requests_keep_whole_numbers_where_some_are_missing(folder: Path) -> None:
    """A moment of 1.7e18 ns as a float is off by up to 128 ns."""
    rows = load(folder).requests
    assert len(rows) == 2 + len(MIXED)
    one = rows[rows["run"] == "one"].set_index("index")
    assert one.loc[1, "sent_ns"] == START_NS + 1_000_000_000
    assert one["sent_ns"].isna().sum() == 1
    assert one.loc[2, "error_kind"] == "http_429"


def test_moments_are_of_the_masters_clock(tmp_path: Path) -> None:
    ahead = worker(clock_offset_us=5000, clock_rtt_us=100)
    write_run(tmp_path, [[good(0)]], run_info(workers=[ahead]))
    finish(tmp_path)
    assert load(tmp_path).requests["sent_ns"].iloc[0] == START_NS - 5_000_000


def test_gaps_are_numbered_within_their_request(folder: Path) -> None:
    gaps = load(folder).gaps("deep/two")
    assert list(gaps["index"]) == [0, 0, 0, 1]
    assert list(gaps["event"]) == [0, 1, 2, 0]
    assert np.allclose(gaps["itl_ms"], [10.0, 10.0, 10.0, 5.0])
    with pytest.raises(RunDirError, match="holds no run 'three'"):
        load(folder).gaps(["three"])


def test_a_run_without_server_metrics_has_no_rows_of_them(folder: Path) -> None:
    assert load(folder).server.empty


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="no finished run"):
        load(tmp_path)
    with pytest.raises(RunDirError, match="is no directory"):
        load(tmp_path / "nothing")
