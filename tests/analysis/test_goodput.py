"""Goodput and gates: what a limit means for one request, and what it means for the run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvswarm.analysis.gates import exit_code
from kvswarm.records import Record

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, START_NS, failed, good, profile, run_info, summary_of


def test_goodput_by_hand(tmp_path: Path) -> None:
    """SLO: TTFT 150 ms, p90 of a request's gaps 20 ms. Ten ended in 0.9 s and a bit.

    0 to 4 meet both. 5: TTFT of 151 ms. 6: two of ten gaps above 20 ms, one too many. 7: one of
    ten, as p90 allows. 8: failed. 9: cancelled when the run was stopped, so not judged.
    """
    rows = [
        *(good(i, at_ms=i * 100) for i in range(5)),
        good(5, at_ms=500, ttft_ms=151.0),
        good(6, at_ms=600, gaps_ms=[10.0] * 8 + [21.0] * 2),
        good(7, at_ms=700, gaps_ms=[10.0] * 9 + [300.0]),
        failed(8, "http_500", at_ms=800),
        failed(9, "cancelled", at_ms=900),
    ]
    case = profile(slo={"ttft_ms": 150.0, "itl_p90_ms": 20.0})
    summary = summary_of(tmp_path, rows, run_info(case))
    duration_s = 0.7 + 0.1 + 0.09 + 0.3 + 0.001  # request 7 is the last to end
    assert summary["goodput"]["share"] == pytest.approx(6 / 9)
    assert summary["goodput"]["requests_per_s"] == pytest.approx(6 / duration_s, rel=1e-5)
    assert summary["goodput"]["slo_share"] == pytest.approx(
        {"ttft_ms": 7 / 8, "itl_p90_ms": 7 / 8}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "limit_ms", "meets"),
    [
        ("ttft_ms", 100.0, True),  # at the limit is within it
        ("ttft_ms", 99.9, False),
        ("ttft_from_intended_ms", 499.0, False),  # 400 ms late, as the user felt
        ("ttft_from_intended_ms", 500.0, True),
        ("itl_ms", 30.0, True),  # the mean of 10, 20, 30, 60
        ("itl_ms", 29.9, False),
        ("itl_p50_ms", 20.0, True),  # the second smallest of four
        ("itl_p50_ms", 19.9, False),
        ("itl_p75_ms", 30.0, True),
        ("itl_p75_ms", 29.9, False),
        ("itl_p99_ms", 59.9, False),  # the largest of four
        ("itl_p99_ms", 60.0, True),
        ("tpot_ms", 30.0, True),  # 120 ms / (5 - 1)
        ("tpot_ms", 29.9, False),
        ("e2e_ms", 221.0, True),
        ("e2e_ms", 220.9, False),
    ],
)
def test_each_slo_is_judged_per_request(
    tmp_path: Path, name: str, limit_ms: float, *, meets: bool
) -> None:
    """Of this one request: its own value, or the percentile of its own gaps by nearest rank."""
    row = good(0, at_ms=400, intended_ns=START_NS, gaps_ms=(10.0, 60.0, 30.0, 20.0))
    summary = summary_of(tmp_path, [row], run_info(profile(slo={name: limit_ms})))
    assert summary["goodput"]["slo_share"] == {name: float(meets)}
    assert summary["goodput"]["share"] == float(meets)


def test_a_request_of_one_token_meets_limits_on_gaps_that_it_has_not(tmp_path: Path) -> None:
    """It had no gap that was too long."""
    case = profile(slo={"itl_p99_ms": 1.0, "itl_ms": 1.0, "tpot_ms": 1.0})
    summary = summary_of(tmp_path, [good(0, gaps_ms=())], run_info(case))
    assert summary["goodput"]["share"] == 1.0


def test_output_that_was_scored_invalid_is_not_good(tmp_path: Path) -> None:
    """Where it was not scored, nothing is held against it."""
    rows = [good(i, output_valid=valid) for i, valid in enumerate([True, False, None, None])]
    summary = summary_of(tmp_path, rows)
    assert summary["requests"]["ok"] == 4
    assert summary["goodput"]["share"] == 0.75


# -- gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit", "value", "passed"),
    [
        ("ttft_p50_ms", 150.0, 150.0, True),
        ("ttft_p50_ms", 149.0, 150.0, False),
        ("itl_max_ms", 20.0, 20.0, True),
        ("e2e_mean_ms", 195.0, 196.0, False),
        ("error_share", 4 / 6, 4 / 6, True),  # the cancelled one is no error
        ("error_share", 0.5, 4 / 6, False),
        ("goodput_share", 2 / 6, 2 / 6, True),
        ("goodput_share", 0.5, 2 / 6, False),
        ("goodput_rps", 2.0, 2 / 0.861, True),
        ("output_tokens_per_s", 10.0, 8 / 0.861, False),
    ],
)
def test_gates_hold_figures_of_the_run_against_limits(
    tmp_path: Path, name: str, limit: float, value: float, *, passed: bool
) -> None:
    """A missed one makes exit code 1."""
    summary = summary_of(tmp_path, MIXED, run_info(profile(gate={name: limit})))
    (gate,) = summary["gates"]
    assert gate == {
        "name": name, "limit": limit, "value": pytest.approx(value, rel=1e-5), "passed": passed,
        "reason": None,
    }  # fmt: skip
    assert exit_code(summary) == (0 if passed else 1)


@pytest.mark.parametrize(
    ("rows", "error_share"),
    [([], None), ([failed(0, "cancelled")], None), ([failed(0, "http_500")], 1.0)],
    ids=["empty", "cancelled", "failed"],
)
def test_a_gate_on_what_was_not_measured_is_missed(
    tmp_path: Path, rows: list[Record], error_share: float | None
) -> None:
    """A run without a first token is no proof that it was fast, nor one without an end of no error."""
    case = profile(gate={"ttft_p99_ms": 1e9, "error_share": 0.05, "goodput_rps": 0.0})
    summary = summary_of(tmp_path, rows, run_info(case))
    assert [(gate["value"], gate["passed"]) for gate in summary["gates"]] == [
        (None, False), (error_share, False), (0.0, True),
    ]  # fmt: skip
    assert [bool(gate["reason"]) for gate in summary["gates"]] == [True, error_share is None, False]


@pytest.mark.parametrize(
    ("successes", "gate", "code"),
    [
        (0, {}, 3),
        (0, {"error_share": 0.05}, 3),  # nothing was measured: that goes before the missed gate
        (1, {}, 0),  # whoever sets no limit has none
        (1, {"error_share": 0.05}, 1),
        (19, {"error_share": 0.05}, 0),
    ],
)
def test_failures_miss_their_gate_and_nothing_but_failures_is_no_measurement(
    tmp_path: Path, successes: int, gate: dict[str, float], code: int
) -> None:
    """No run of failures alone may look like one that passed."""
    rows = [failed(0, "http_500"), *(good(i + 1) for i in range(successes))]
    summary = summary_of(tmp_path, rows, run_info(profile(gate=gate)))
    assert exit_code(summary) == code
    assert (summary["verdict"]["status"] == "invalid") == (not successes)


def test_an_slo_on_a_percentile_is_a_gate_of_the_run_too(tmp_path: Path) -> None:
    """`itl_p99_ms` means both: each request's gaps for goodput, all gaps for the gate."""
    summary = summary_of(tmp_path, MIXED, run_info(profile(slo={"itl_p99_ms": 15, "ttft_ms": 1})))
    assert [(gate["name"], gate["passed"]) for gate in summary["gates"]] == [("itl_p99_ms", False)]
