"""`kvswarm calibrate`: what the client reports is held against what the simulator did."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from kvswarm.analysis.finish import finish
from kvswarm.commands.calibrate import Figure, Level, level_of
from kvswarm.errors import TargetError
from kvswarm.records import Record

sys.path.insert(0, str(Path(__file__).parent / "analysis"))
sys.path.insert(0, str(Path(__file__).parent / "swarm"))
from rundirs import MS, failed, good, write_run
from running import kvswarm


def test_calibrate_tells_truth_and_report_of_ttft_and_itl(tmp_path: Path) -> None:
    """End to end. No bound on the errors but their presence: this machine may be busy."""
    done = kvswarm("calibrate", "--max-streams", "2", "--error-share", "1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "2 streams: " in done.out
    cells = (
        r"2 +│ +(\d+) +│ +{} +│ +([\d.]+) +│ +([\d.]+) +│ +([\d.]+)% +│ +(?:valid|degraded|invalid)"
    )
    for name, at_least_ms in (("TTFT", 99.0), ("ITL", 9.0)):
        row = re.search(cells.format(name), done.out)
        assert row, done.out
        tokens_per_s, true_ms, seen_ms, error = map(float, row.groups())
        assert tokens_per_s > 0
        assert true_ms > at_least_ms
        assert error == pytest.approx(abs(seen_ms - true_ms) / true_ms * 100, abs=0.2)
    assert re.search(r"with TTFT and ITL p99 within\s+100.0% of the\s+truth", done.out)
    assert list(tmp_path.glob("runs")) == [], "its runs are no runs of anybody"


def level(folder: Path, records: list[Record], lines: list[dict[str, Any]]) -> Level:
    """Hold these rows against this truth."""
    run = write_run(folder / "run", [records])
    truth = folder / "truth"
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return level_of(3, finish(run.path), run, truth)


def true(row: Record, *, earlier_ms: float = 0.0, itl_us: list[int]) -> dict[str, Any]:
    """The simulator's line of a request whose first token it wrote that much earlier."""
    assert row.first_token_ns is not None
    first_ns = row.first_token_ns - round(earlier_ms * MS)
    return {"id": f"cafe-{row.index}", "first_token_ns": first_ns, "itl_us": itl_us}


def test_figures_are_held_against_those_of_the_same_requests(tmp_path: Path) -> None:
    """Failures and warm-up are in no figure of the run, so they must not be in the truth."""
    rows = [good(0, ttft_ms=110.0), good(1, ttft_ms=110.0, gaps_ms=(10.0, 12.0, 10.0))]
    others = [good(2, phase="warmup", ttft_ms=900.0), failed(3, "stall")]
    lines = [
        *(true(row, earlier_ms=10.0, itl_us=[10_000] * 3) for row in rows),
        *(true(row, itl_us=[700_000] * 3) for row in others),
    ]
    found = level(tmp_path, [*rows, *others], lines)
    assert found.ttft_p99 == Figure(seen_ms=110.0, true_ms=pytest.approx(100.0, abs=0.001))
    assert found.ttft_p99.error_share == pytest.approx(0.10, abs=0.001)
    assert found.itl_p99 == Figure(seen_ms=pytest.approx(11.9), true_ms=10.0)
    assert found.error_share == found.itl_p99.error_share == pytest.approx(0.19)


@pytest.mark.parametrize(
    ("off_ms", "verdict", "held"),
    [(1.0, "valid", True), (1.1, "valid", False), (0.0, "degraded", False)],
)
@pytest.mark.parametrize("figure", ["ttft_p99", "itl_p99"])
def test_a_load_holds_where_both_figures_do(
    figure: str, off_ms: float, verdict: str, *, held: bool
) -> None:
    """Either alone would call a client good that sees the other wrong."""
    figures = {name: Figure(seen_ms=100.0, true_ms=100.0) for name in ("ttft_p99", "itl_p99")}
    figures[figure] = Figure(seen_ms=100.0 - off_ms, true_ms=100.0)
    assert Level(streams=1, tokens_per_s=1.0, verdict=verdict, **figures).holds(0.01) == held


def test_a_run_without_figures_is_an_error_that_says_why(tmp_path: Path) -> None:
    """None has no error, and no traceback either."""
    with pytest.raises(TargetError, match="3 streams measured nothing: no request") as caught:
        level(tmp_path, [failed(0, "http_500")], [])
    assert "http_500" in caught.value.fix


def test_a_truth_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    """Half of the requests may be the good half; the simulator was killed amid its last line."""
    rows = [good(0), good(1)]
    lines = [true(row, itl_us=[10_000] * 3) for row in rows]
    assert level(tmp_path / "whole", rows, lines).error_share == pytest.approx(0.0, abs=1e-5)
    run = write_run(tmp_path / "run", [rows])
    (tmp_path / "truth").write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1])[:-9])
    with pytest.raises(TargetError, match="1 of the 2 requests"):
        level_of(3, finish(run.path), run, tmp_path / "truth")
