"""summary.json: which rows count, and figures worked out by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest

from kvswarm.analysis.finish import finish
from kvswarm.analysis.summary import summarise
from kvswarm.profiles.model import Window
from kvswarm.records import Record
from kvswarm.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import (
    MIXED,
    MS,
    START_NS,
    S,
    failed,
    good,
    profile,
    run_info,
    summary_of,
    summary_schema,
    timed_profile,
    unsent,
    worker,
    write_run,
)  # fmt: skip

LATENCIES = ("ttft_ms", "ttft_from_intended_ms", "itl_ms", "tpot_ms", "e2e_ms", "connect_ms")


def test_only_measured_successes_enter_latencies(tmp_path: Path) -> None:
    """Neither warm-up nor cool-down, nor a failure, nor what was cancelled."""
    summary = summary_of(tmp_path, MIXED)
    figures = {name: summary[name] for name in LATENCIES}
    ends = {name: (latency["min"], latency["max"]) for name, latency in figures.items()}
    assert ends == {
        "ttft_ms": (100.0, 200.0),
        "ttft_from_intended_ms": (100.0, 200.0),
        "itl_ms": (10.0, 20.0),
        "tpot_ms": (10.0, 20.0),
        "e2e_ms": (131.0, 261.0),
        "connect_ms": (0.4, 0.4),
    }
    counts = {name: latency["count"] for name, latency in figures.items()}
    assert counts == {
        "ttft_ms": 2, "ttft_from_intended_ms": 2, "itl_ms": 6, "tpot_ms": 2, "e2e_ms": 2,
        "connect_ms": 1,
    }  # fmt: skip
    assert summary["tokens"] == {"prompt": 32, "completion": 8, "reasoning": 0}


def test_all_rows_are_kept_whatever_the_figures_leave_out(tmp_path: Path) -> None:
    """One may want to look at the warm-up."""
    summary = summary_of(tmp_path, MIXED)
    rows = pq.read_table(RunDir(tmp_path).requests).to_pylist()
    assert [row["index"] for row in rows] == list(range(10))
    assert summary["requests"]["phases"] == {"warmup": 1, "measure": 7, "cooldown": 2}


def test_every_measured_request_is_counted_once_under_its_end(tmp_path: Path) -> None:
    """ok + failed + cancelled is sent, and each error has its kind."""
    requests = summary_of(tmp_path, MIXED)["requests"]
    assert requests["by_error"] == {"cancelled": 1, "connect": 1, "http_429": 1, "stall": 2}
    assert (requests["sent"], requests["ok"], requests["failed"], requests["cancelled"]) == (
        7, 2, 4, 1,
    )  # fmt: skip


def test_ttft_from_intended_holds_the_wait_before_sending(tmp_path: Path) -> None:
    """A request that was meant for 0 and sent at 400 ms felt 500 ms."""
    row = good(0, at_ms=400, intended_ns=START_NS)
    summary = summary_of(tmp_path, [row])
    assert summary["ttft_ms"]["mean"] == 100.0
    assert summary["ttft_from_intended_ms"]["mean"] == 500.0
    assert summary["generator"]["send_lag_ms"]["max"] == 400.0


def test_connecting_is_neither_in_ttft_nor_the_generators_lag(tmp_path: Path) -> None:
    """It is the network's and the server's time, and has a row of its own."""
    row = good(0, at_ms=50, intended_ns=START_NS, connect_us=49_000)
    summary = summary_of(tmp_path, [row])
    assert summary["ttft_ms"]["max"] == 100.0
    assert summary["connect_ms"]["max"] == 49.0
    assert summary["generator"]["send_lag_ms"]["max"] == 1.0


def test_every_gap_enters_itl(tmp_path: Path) -> None:
    """One stall among a hundred gaps is the largest gap, and not a mean of its request."""
    rows = [good(0, gaps_ms=[10.0] * 49 + [900.0]), good(1, gaps_ms=[10.0] * 50)]
    itl = summary_of(tmp_path, rows)["itl_ms"]
    assert (itl["count"], itl["p50"], itl["max"]) == (100, 10.0, 900.0)
    assert itl["mean"] == pytest.approx((99 * 10 + 900) / 100)
    assert itl["p99"] == pytest.approx(10 + 0.01 * 890)  # rank 98.01 of 0 to 99


# -- throughput ----------------------------------------------------------------------------------


def test_throughput_of_a_counted_run_is_over_first_sent_to_last_end(tmp_path: Path) -> None:
    """Two successes of four tokens within 0.861 s; the failures between them add no time."""
    summary = summary_of(tmp_path, MIXED)
    duration_s = 0.861  # sent at 1.000 s; sent at 1.600 s, + 200 + 3 x 20 + 1 ms
    assert summary["duration_s"] == pytest.approx(duration_s, abs=1e-6)
    assert summary["throughput"] == pytest.approx(
        {
            "requests_per_s": 2 / duration_s,
            "output_tokens_per_s": 8 / duration_s,
            "input_tokens_per_s": 32 / duration_s,
        },
        rel=1e-5,
    )


def crossing(index: int, at_ms: float, **changes: Any) -> Record:
    """Ten tokens, first after 100 ms, then every 100 ms; the end with the last."""
    return good(index, at_ms=at_ms, gaps_ms=[100.0] * 9, tail_ms=0.0, **changes)


def test_throughput_of_a_timed_run_counts_what_came_within_the_window(tmp_path: Path) -> None:
    """Window: 1 s (warm-up) to 7 s (8 s less 1 s cool-down). By hand, token by token.

    Sent at 0.45 s: tokens at 0.55, 0.65, ... 1.45: five of ten within; it ends within.
    Sent at 3.00 s: all ten within; it ends within.
    Sent at 6.55 s: tokens at 6.65, ... 7.55: four within; it ends outside.
    Sent at 4.00 s, failed: none of it counts.
    """
    case = timed_profile(8.0, warmup=Window(duration_s=1.0), cooldown=Window(duration_s=1.0))
    rows = [
        crossing(0, 450, phase="warmup"),
        crossing(1, 3000),
        crossing(2, 6550),
        crossing(3, 4000, error_kind="stall"),
    ]
    info = run_info(case, load_stopped_ns=START_NS + 8 * S)
    summary = summary_of(tmp_path, rows, info)
    assert summary["duration_s"] == pytest.approx(6.0)
    assert summary["throughput"] == pytest.approx(
        {
            "requests_per_s": 2 / 6,
            "output_tokens_per_s": (5 + 10 + 4) / 6,
            "input_tokens_per_s": (16 + 16) / 6,  # first tokens at 3.10 and 6.65 s
        }
    )
    assert summary["goodput"]["requests_per_s"] == pytest.approx(1 / 6)
    assert summary["goodput"]["share"] == pytest.approx(2 / 3)


def test_a_timed_run_that_was_killed_has_the_time_that_its_rows_tell(tmp_path: Path) -> None:
    """Nobody wrote down when its load stopped."""
    info = run_info(timed_profile(8.0), load_stopped_ns=None, ended_ns=None, ended=None)
    summary = summary_of(tmp_path, [crossing(0, 0), crossing(1, 1000)], info)
    assert summary["duration_s"] == pytest.approx(2.0)
    assert summary["throughput"]["output_tokens_per_s"] == pytest.approx(10.0)


def test_a_run_with_both_ends_is_timed_by_its_requests(tmp_path: Path) -> None:
    """Where all of them were done before the time was up, nothing ran for the rest of it."""
    both = profile(load={"requests": 2, "duration_s": 60.0})
    summary = summary_of(tmp_path, [crossing(0, 0), crossing(1, 1000)], run_info(both))
    assert summary["duration_s"] == pytest.approx(2.0)


def test_tokens_are_the_servers_count_and_not_the_events(tmp_path: Path) -> None:
    """Ten tokens in four events are ten; without a count, events stand in for tokens."""
    told = summary_of(tmp_path / "told", [good(0, completion_tokens=10, reasoning_tokens=6)])
    assert told["tokens"] == {"prompt": 16, "completion": 10, "reasoning": 6}
    assert told["tpot_ms"]["max"] == pytest.approx(30 / 9, abs=0.001)
    untold = summary_of(tmp_path / "untold", [good(0, completion_tokens=None)])
    assert untold["tokens"]["completion"] == 4
    assert untold["tpot_ms"]["count"] == 0


# -- runs without figures --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [unsent(i) for i in range(3)],
        [failed(i, "http_500") for i in range(3)],
        [failed(0, "cancelled")],
        [good(0, phase="warmup")],
    ],
    ids=["empty", "no connection", "only failures", "cancelled", "only warm-up"],
)
@pytest.mark.parametrize("case", [profile(slo={"ttft_p99_ms": 10.0}), timed_profile(5.0)])
def test_a_run_without_a_success_has_null_latencies_and_a_report(
    tmp_path: Path, rows: list[Record], case: Any
) -> None:
    """Neither a crash, nor a 0 that reads like a fast server."""
    run = write_run(tmp_path, [rows], run_info(case))
    summary = finish(tmp_path)
    jsonschema.validate(summary, summary_schema())
    for name in LATENCIES:
        assert summary[name]["count"] == 0
        assert {summary[name][key] for key in ("mean", "min", "p50", "p999")} == {None}
    assert summary["requests"]["ok"] == 0
    assert summary["requests"]["sent"] == sum(row.phase == "measure" for row in rows)
    assert summary["goodput"]["share"] == 0.0
    assert summary["verdict"]["status"] == "invalid"
    assert any("no request succeeded" in reason for reason in summary["verdict"]["reasons"])
    assert "</html>" in run.report.read_text()


# -- the file --------------------------------------------------------------------------------


def test_summary_json_is_what_its_schema_says(tmp_path: Path) -> None:
    """A run with something in every part, read back from the file."""
    case = profile(slo={"ttft_p99_ms": 10.0}, gate={"error_share": 0.0})
    run = write_run(tmp_path, [MIXED], run_info(case, notes=["a note"]))
    assert finish(tmp_path) == summarise(run)
    summary = json.loads(run.summary.read_text())
    assert summary == summarise(run)
    validator = jsonschema.Draft202012Validator(summary_schema())
    validator.validate(summary)
    for broken in (
        {**summary, "more": 1},
        {name: part for name, part in summary.items() if name != "tokens"},
        {**summary, "verdict": {"status": "fine", "reasons": []}},
        {**summary, "ttft_ms": {**summary["ttft_ms"], "p50": "fast"}},
    ):
        assert not validator.is_valid(broken)


def test_the_run_is_named_in_the_summary(tmp_path: Path) -> None:
    """The file alone tells what was measured."""
    case = timed_profile(8.0)
    run = summary_of(tmp_path, [good(0)], run_info(case, notes=["n"], seed=11))["run"]
    assert run == {
        "id": "cafe01", "profile": "case", "pattern": "steady", "model": "m",
        "target": "http://127.0.0.1:8000/v1", "endpoint": "chat", "simulator": False, "seed": 11,
        "started": "2025-11-24T16:00:00.073457+00:00",
        "ended_at": "2025-11-24T16:00:11.123457+00:00", "ended": "completed", "notes": ["n"],
            "imported": None,
    }  # fmt: skip


def test_what_the_generator_did_is_summed_over_its_workers(tmp_path: Path) -> None:
    """CPU per token event is the price of measuring."""
    workers = [
        worker(cpu_s=1.5, token_events=100_000, dropped_arrivals=2),
        worker(worker=1, cpu_s=0.5, token_events=150_000, failed_listeners=3),
        worker(worker=2, lost=True),
    ]
    rows = [
        good(0, coalesced_events=1, packed_read_lag_us=(2500).to_bytes(4, "little") * 4),
        good(1, phase="warmup", coalesced_events=4),
        failed(2, "stall", events=4, coalesced_events=1),
    ]
    generator = summary_of(tmp_path, rows, run_info(workers=workers))["generator"]
    assert generator["cpu_s"] == 2.0
    assert generator["cpu_us_per_token_event"] == pytest.approx(8.0)
    assert (generator["workers"], generator["dropped_arrivals"]) == (3, 2)
    assert generator["failed_listeners"] == 3
    assert generator["coalesced_share"] == 0.25  # of measured rows, failures too: 2 of 8
    assert generator["read_lag_ms"]["max"] == 2.5
    assert generator["clock"] == "kernel"


@pytest.mark.parametrize(
    ("clocks", "told"),
    [(["kernel"] * 2, "kernel"), (["read"] * 2, "read"), (["kernel", "read"], "mixed"), ([], None)],
)
def test_the_clock_is_the_one_that_the_rows_were_stamped_with(
    tmp_path: Path, clocks: list[str], told: str | None
) -> None:
    """Where the kernel gives no stamps, the figures hold the generator's delay, and say so."""
    rows = [good(i, clock=clock) for i, clock in enumerate(clocks)]
    run = write_run(tmp_path, [[*rows, good(9, phase="warmup", clock="read")]])
    assert finish(tmp_path)["generator"]["clock"] == told
    assert "clock" not in json.loads(run.run_json.read_text()), "nobody knows it when it is written"


def test_figures_made_again_are_the_same(tmp_path: Path) -> None:
    """`kvswarm report` on a finished run changes nothing."""
    run = write_run(tmp_path, [MIXED])
    first = finish(tmp_path)
    text = run.summary.read_text()
    assert finish(tmp_path) == first == json.loads(text)
    assert run.summary.read_text() == text


@pytest.mark.parametrize("step", [1, 3])
def test_moments_far_from_1970_do_not_blur_the_figures(tmp_path: Path, step: int) -> None:
    """At 1.8e18 ns a float holds 256 ns: latencies must come from whole numbers."""
    rows = [good(i, end_ns=START_NS + 200 * MS + step) for i in range(2)]
    summary = summary_of(tmp_path, rows)
    table = pq.read_table(RunDir(tmp_path).requests)
    assert table["e2e_ms"].to_pylist() == [200.0 + step / MS] * 2
    assert summary["e2e_ms"]["max"] == 200.0
