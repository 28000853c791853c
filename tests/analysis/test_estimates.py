"""A run held against what `kvswarm validate` had estimated."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, profile, run_info

from kvswarm.analysis.estimates import estimate_lines
from kvswarm.commands.report import report
from kvswarm.errors import RunDirError, UsageError
from kvswarm.records import encode_batch
from kvswarm.rundir import JournalWriter, RunDir

ESTIMATE = {
    "schema_version": 1, "is_estimate": True, "device": "H100", "ttft_floor_ms": 50.0,
    "tpot_floor_at_load_ms": 20.0, "kv_cache_tokens": 1000,
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Ten requests: TTFT 100 ms, gaps of 10 ms."""
    directory = RunDir(tmp_path / "run")
    directory.path.mkdir()
    journal = JournalWriter(directory.journal)
    journal.append(encode_batch([good(index, at_ms=index * 10.0) for index in range(10)]))
    journal.close()
    directory.write_info(run_info(profile()))
    return directory


def summary_with(run: RunDir, plain: Any) -> dict[str, Any]:
    """The summary, with an estimate as `kvswarm validate --json` prints it."""
    file = run.path.parent / "validated.json"
    file.write_text(json.dumps(plain))
    report(run.path, as_json=False, estimate=file, quiet=True)
    found: dict[str, Any] = json.loads(run.summary.read_bytes())
    return found


def test_floors_are_reached_in_part_or_beaten(run: RunDir) -> None:
    """100 ms over a floor of 50 is half of what could be; 10 ms below one of 20 cannot be."""
    section = summary_with(run, {"estimate": ESTIMATE})["estimate"]
    ttft, tpot, cache = section["figures"]
    assert (ttft["measured"], ttft["estimated"], ttft["reached_share"]) == (100.0, 50.0, 0.5)
    assert ttft["beaten"] is False
    assert tpot["reached_share"] == pytest.approx(2.0)
    assert tpot["beaten"] is True
    assert cache["measured"] is None
    assert cache["reached_share"] is None
    told = estimate_lines(section)
    assert told[0] == "TTFT p50 100.00 ms: 50% of what H100 could, 50.00"
    assert "a mistake somewhere" in told[1]
    assert len(told) == 2


def test_the_estimate_stays_with_the_run(run: RunDir) -> None:
    """A report that is made again has it, too, and the page shows it."""
    summary_with(run, ESTIMATE)
    report(run.path, as_json=False, quiet=True)
    assert json.loads(run.summary.read_bytes())["estimate"]["device"] == "H100"
    assert "Against the estimate" in run.report.read_text("utf-8")


def test_what_an_estimate_does_not_know_is_not_compared(run: RunDir) -> None:
    """null is no floor."""
    section = summary_with(run, {**ESTIMATE, "ttft_floor_ms": None})["estimate"]
    assert section["figures"][0]["reached_share"] is None
    assert section["figures"][0]["beaten"] is None


@pytest.mark.parametrize(
    "plain",
    [{}, [], {"estimate": None}, {"estimate": {"device": "x"}}, {**ESTIMATE, "schema_version": 9}],
)
def test_a_file_without_an_estimate_is_refused(run: RunDir, plain: Any) -> None:
    """With what makes one; the run stays as it was."""
    with pytest.raises(UsageError, match="--estimate"):
        summary_with(run, plain)
    assert not run.estimate.exists()


def test_a_damaged_estimate_is_named(run: RunDir) -> None:
    """With the way out, and the run's figures can be made without it."""
    run.estimate.write_text('{"device": "H100"}')
    with pytest.raises(RunDirError, match=r"estimate\.json: is damaged"):
        report(run.path, as_json=False, quiet=True)
    run.estimate.unlink()
    report(run.path, as_json=False, quiet=True)
    assert json.loads(run.summary.read_bytes())["estimate"] is None
