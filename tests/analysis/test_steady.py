"""The summary's `steady`: of runs with a planted warm-up, a planted drift, or neither."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from kvswarm.analysis.course_lines import schedule_text, steady_lines
from kvswarm.analysis.finish import finish
from kvswarm.analysis.terminal import render
from kvswarm.records import Record

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, open_profile, profile, run_info, summary_of, summary_schema, write_run

COUNT, EVERY_MS = 1000, 10.0
NOISE = np.random.default_rng(5).lognormal(0.0, 0.1, COUNT)
FLAT = 100.0 * NOISE


def rows_of(ttft_ms: Any, **changes: Any) -> list[Record]:
    """A request every 10 ms with these TTFTs."""
    return [
        good(index, at_ms=index * EVERY_MS, ttft_ms=float(value), **changes)
        for index, value in enumerate(ttft_ms)
    ]


def summary(path: Path, rows: list[Record], **load: Any) -> dict[str, Any]:
    """The checked summary of an open loop."""
    found = summary_of(path, rows, run_info(open_profile(load=load)))
    jsonschema.Draft202012Validator(summary_schema()).validate(found)
    return found


def signal(found: dict[str, Any], name: str) -> dict[str, Any]:
    """What is said of a signal."""
    (one,) = [each for each in found["steady"]["signals"] if each["name"] == name]
    return dict(one)


def test_a_warmup_is_left_out_of_the_steady_figures_and_of_no_other(tmp_path: Path) -> None:
    """200 slow requests of 1000: the steady figures are those of the rest, to the request."""
    ttft_ms = FLAT.copy()
    ttft_ms[:200] *= np.linspace(6.0, 2.0, 200)
    found = summary(tmp_path, rows_of(ttft_ms))
    steady = found["steady"]
    dropped = steady["dropped_requests"]
    assert 195 <= dropped <= 250
    assert steady["begin_s"] == pytest.approx(dropped * EVERY_MS / 1e3, abs=0.011)
    assert steady["end_s"] == pytest.approx((COUNT - 1) * EVERY_MS / 1e3, abs=1e-6)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        rest = float(np.quantile(ttft_ms[dropped:], share))
        assert steady["ttft_ms"][name] == pytest.approx(rest, abs=0.002)
        assert found["ttft_ms"][name] > rest
    assert steady["itl_ms"]["count"] == (COUNT - dropped) * 3
    assert found["itl_ms"]["count"] == COUNT * 3
    assert steady["throughput"]["requests_per_s"] == pytest.approx(100.0, rel=0.03)
    assert steady["throughput"]["output_tokens_per_s"] == pytest.approx(400.0, rel=0.03)
    lines = " ".join(steady_lines(found))
    assert f"without the {dropped} requests before" in lines
    assert f"{found['ttft_ms']['p99']:.2f} ms" in lines


def test_the_report_shades_the_warmup_that_was_found(tmp_path: Path) -> None:
    """And has both columns of figures, and the sentence of the schedule."""
    ttft_ms = FLAT.copy()
    ttft_ms[:200] *= 5.0
    finish(write_run(tmp_path, [rows_of(ttft_ms)], run_info(open_profile())).path)
    page = (tmp_path / "report.html").read_text()
    assert "found warm-up" in page
    assert "<td>steady part</td><td>all</td>" in page
    assert "TTFT p99 is" in page


def test_a_run_without_a_warmup_is_steady_from_its_first_request(tmp_path: Path) -> None:
    """Tokens of requests before the measured phase count, so its begin is not taken for a start."""
    rows = rows_of(FLAT)
    rows[:100] = [good(row.index, at_ms=row.index * EVERY_MS, phase="warmup") for row in rows[:100]]
    steady = summary(tmp_path, rows)["steady"]
    assert steady["begin_s"] == 0.0
    assert steady["dropped_requests"] == 0
    assert steady["notes"] == []


def test_a_drift_is_noted_in_the_section_and_on_the_terminal(tmp_path: Path) -> None:
    """An eighth more from begin to end."""
    found = summary(tmp_path, rows_of(FLAT * np.geomspace(1.0, 1.125, COUNT)))
    drifting = signal(found, "ttft_ms")
    assert drifting["drifts"] is True
    assert drifting["drift_change_share"] == pytest.approx(0.125, abs=0.03)
    (note,) = found["steady"]["notes"]
    console = Console(width=400, record=True, file=io.StringIO())
    render(found, console)
    assert "TTFT drifts" in note
    assert note in console.export_text()


def test_a_queue_that_grows_to_the_end_is_no_steady_state(tmp_path: Path) -> None:
    """There is no part whose figures would be those of the server at this load."""
    steady = summary(tmp_path, rows_of(FLAT * np.linspace(1.0, 20.0, COUNT)))["steady"]
    assert steady["begin_s"] is None
    assert steady["ttft_ms"] is None
    assert "ttft_ms had not settled" in steady["reason"]


@pytest.mark.parametrize(
    ("load", "word"),
    [
        ({"pattern": "bursty", "on_s": 1.0, "off_s": 1.0}, "bursts"),
        ({"pattern": "stages"}, "stages"),
        ({"pattern": "ramp"}, "ramp"),
    ],
)
def test_a_load_that_changes_by_design_is_not_judged(
    tmp_path: Path, load: dict[str, Any], word: str
) -> None:
    """Its begin is what was asked for."""
    ttft_ms = FLAT.copy()
    ttft_ms[:200] *= 5.0
    steady = summary(tmp_path, rows_of(ttft_ms), **load)["steady"]
    assert steady["begin_s"] is None
    assert steady["signals"] == []
    assert word in steady["reason"]


def test_too_few_requests_are_not_judged_and_the_reason_counts_them(tmp_path: Path) -> None:
    """199 of the 200 that it takes; failed ones do not count."""
    steady = summary(tmp_path, rows_of(FLAT[:199]))["steady"]
    assert steady["begin_s"] is None
    assert steady["reason"].startswith("199 measured requests")


def test_a_run_that_changes_slowly_says_that_it_is_too_short(tmp_path: Path) -> None:
    """Waves as long as a fifth of the run tell of no level."""
    waves = 1.0 + 0.5 * np.sin(np.arange(COUNT) / COUNT * 2 * np.pi * 5)
    steady = summary(tmp_path, rows_of(100.0 * waves * NOISE**0.1))["steady"]
    assert "ttft_ms changes too slowly" in steady["reason"]


def test_a_run_without_a_success_has_a_reason(tmp_path: Path) -> None:
    """No division, no empty percentile."""
    found = summary(tmp_path, [])
    assert found["steady"]["reason"] == "no request succeeded in the measured phase"
    assert found["stalls"] is None


def test_a_wait_before_sending_is_told_by_its_length(tmp_path: Path) -> None:
    """Sent 500 ms late: 100 ms from sent, 600 from intended."""
    rows = [
        good(n, at_ms=n * 10.0 + 500.0, intended_ns=good(n, at_ms=n * 10.0).sent_ns)
        for n in range(20)
    ]
    text = schedule_text(summary(tmp_path, rows))
    assert text is not None
    assert "100.00 ms from sent, but 600.00 ms from intended" in text
    assert "500.00 ms more" in text


def test_requests_on_time_leave_no_wait_out(tmp_path: Path) -> None:
    """And an open loop has no word of closed ones, which a closed one has."""
    text = schedule_text(summary(tmp_path / "open", rows_of(FLAT[:20]), pattern="constant"))
    closed = schedule_text(summary_of(tmp_path / "closed", rows_of(FLAT[:20]), run_info(profile())))
    assert text is not None
    assert closed is not None
    assert "no wait is left out" in text
    assert "closed loop" not in text
    assert "closed loop" in closed
