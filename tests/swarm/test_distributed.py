"""Runs over several processes that lose and bend nothing, whatever becomes of one of them.

The scenarios wait more than they work, so two go on at a time.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from distributed import Cluster, Line, cluster, master, worker
from running import Done, Run, forgiving, free_port, going, kvswarm, simulator, until

REQUESTS = 2000
STOPPED_S = 8.0
CUT_S = 13.0
DELAY_S = 0.05
ARRIVALS = "pattern: constant\nrate_rps: 60\nduration_s: 25\nrequests: null\nconcurrency: null"
CLOSED = ("--requests", str(REQUESTS), "--concurrency", "12", "--max-tokens", "6")


@dataclass(frozen=True)
class Ended:
    """What a scenario left."""

    done: Done
    run: Run
    log: str
    told: dict[str, Any] = field(default_factory=dict)

    def explain(self) -> str:
        """For a failure."""
        return f"{self.done.err}\n{self.log[-6000:]}"

    @property
    def lost_in_flight(self) -> int:
        """Requests that went with lost workers, as run.json says."""
        return sum(w["lost_in_flight"] for w in self.run.info["workers"])


def ended(started: Cluster, **told: Any) -> Ended:
    done = started.end()
    return Ended(done, started.run, started.log(), told)


def whole(folder: Path) -> Ended:
    with simulator("--step-ms", "1") as url, cluster(folder, url, 4, *CLOSED) as started:
        return ended(started)


def slow_line(folder: Path) -> Ended:
    arguments = ("--requests", "300", "--concurrency", "4", "--max-tokens", "6")
    with (
        simulator("--exact", "30", "5") as url,
        cluster(folder, url, 2, *arguments, delay_s=DELAY_S) as started,
    ):
        return ended(started)


def killed(folder: Path) -> Ended:
    with simulator("--exact", "30", "5") as url, cluster(folder, url, 4, *CLOSED) as started:
        started.in_mid_run(REQUESTS // 8)
        started.workers[1].process.kill()
        return ended(started)


def killed_in_open_loop(folder: Path) -> Ended:
    profile = forgiving(folder, ARRIVALS)
    with (
        simulator("--exact", "30", "5") as url,
        cluster(folder, url, 2, "--profile", profile) as started,
    ):
        started.in_mid_run(100)
        started.workers[1].process.kill()
        return ended(started)


def killed_and_stopped(folder: Path) -> Ended:
    profile = forgiving(folder, "on_worker_loss: stop")
    with (
        simulator("--exact", "30", "5") as url,
        cluster(folder, url, 2, "--profile", profile, "--requests", "1000000") as started,
    ):
        started.in_mid_run(20)
        started.workers[0].process.kill()
        return ended(started)


def stopped(folder: Path) -> Ended:
    with simulator("--exact", "30", "5") as url, cluster(folder, url, 4, *CLOSED) as started:
        started.in_mid_run(REQUESTS // 8)
        process = started.workers[1].process
        process.send_signal(signal.SIGSTOP)
        begun_s = time.monotonic()
        until(lambda: time.monotonic() > begun_s + STOPPED_S, "it was stopped for long")
        process.send_signal(signal.SIGCONT)
        return ended(started)


def cut_off(folder: Path) -> Ended:
    """One worker's line is cut, and mended while the others still work."""
    port = free_port()
    with ExitStack() as stack:
        url = stack.enter_context(simulator("--exact", "60", "10"))
        line = stack.enter_context(Line(port))
        run = Run(folder / "run")
        front = stack.enter_context(
            master(folder, port, 3, "--url", url, "--out", run.path, *CLOSED)
        )
        workers = [
            stack.enter_context(worker(folder, to_port, f"worker-{number}"))
            for number, to_port in enumerate([port, port, line.port])
        ]
        started = Cluster(front, workers, run)
        started.in_mid_run(100)
        line.cut()
        begun_s = time.monotonic()
        until(lambda: time.monotonic() > begun_s + CUT_S, "it was cut off for long")
        assert front.process.poll() is None, "the run was over before the line was mended"
        line.mend()
        return ended(started)


def master_killed(folder: Path) -> Ended:
    arguments = ("--requests", "1000000", "--concurrency", "4", "--max-tokens", "6")
    with simulator("--exact", "30", "5") as url, cluster(folder, url, 2, *arguments) as started:
        started.in_mid_run(50)
        below = started.master.locusts()
        journalled = started.run.journalled()
        killed_s = time.monotonic()
        for process in [psutil.Process(started.master.process.pid), *below]:
            process.kill()
        processes = [w.process for w in started.workers]
        until(lambda: all(p.poll() is not None for p in processes), "the workers are gone")
        gone_s = time.monotonic() - killed_s
        codes = [process.returncode for process in processes]
        done = kvswarm("report", started.run.path, cwd=folder)
    told = {"gone_s": gone_s, "codes": codes, "journalled": journalled}
    return Ended(done, started.run, started.log(), told)


def master_again(folder: Path) -> Ended:
    """The master is killed, and another one started while its workers are still there."""
    port = free_port()
    first, second = Run(folder / "first"), Run(folder / "run")
    with ExitStack() as stack:
        url = stack.enter_context(simulator("--exact", "30", "5"))
        arguments = ("--url", url, "--concurrency", "4", "--max-tokens", "6")
        front = stack.enter_context(
            master(folder, port, 2, *arguments, "--requests", "1000000", "--out", first.path)
        )
        workers = [stack.enter_context(worker(folder, port, f"worker-{n}")) for n in range(2)]
        Cluster(front, workers, first).in_mid_run(50)
        for process in [psutil.Process(front.process.pid), *front.locusts()]:
            process.kill()
        front.process.wait()
        again = folder / "again"
        again.mkdir()
        later = stack.enter_context(
            master(again, port, 2, *arguments, "--requests", "60", "--out", second.path)
        )
        return ended(Cluster(later, workers, second))


def late(folder: Path) -> Ended:
    port = free_port()
    arguments = ("--requests", "600", "--concurrency", "6", "--max-tokens", "6")
    run = Run(folder / "run")
    with ExitStack() as stack:
        url = stack.enter_context(simulator("--exact", "60", "20"))
        front = stack.enter_context(
            master(folder, port, 1, "--url", url, "--out", run.path, *arguments)
        )
        workers = [stack.enter_context(worker(folder, port, "early"))]
        started = Cluster(front, workers, run)
        started.in_mid_run(30)
        stack.enter_context(worker(folder, port, "late"))
        return ended(started)


def without_header(folder: Path) -> Ended:
    with (
        simulator("--exact", "30", "5") as url,
        cluster(folder, url, 1, "--header", "X-Tenant: blue-and-secret") as started,
    ):
        return ended(started)


def deaf(folder: Path) -> Ended:
    port = free_port()
    run = Run(folder / "run")
    program = Path(__file__).with_name("deaf_worker.py")
    logs = folder / "deaf"
    logs.mkdir()
    with (
        simulator("--exact", "30", "5") as url,
        master(folder, port, 1, "--url", url, "--out", run.path),
        going(sys.executable, program, str(port), cwd=folder, logs=logs) as started,
    ):
        return Ended(started.end(), run, "")


SCENARIOS: dict[str, Callable[[Path], Ended]] = {
    "whole": whole,
    "slow line": slow_line,
    "killed": killed,
    "killed in open loop": killed_in_open_loop,
    "killed and stopped": killed_and_stopped,
    "stopped": stopped,
    "cut off": cut_off,
    "master killed": master_killed,
    "master again": master_again,
    "late": late,
    "without header": without_header,
    "deaf": deaf,
}
Scenarios = dict[str, Future[Ended]]


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(play, tmp_path_factory.mktemp(name.replace(" ", "-")))
            for name, play in SCENARIOS.items()
        }


def indices(run: Run) -> list[int]:
    return [row["index"] for row in run.rows]


@pytest.mark.parametrize("name", ["whole", "stopped"])
def test_every_request_of_the_quota_has_its_row(scenarios: Scenarios, name: str) -> None:
    """Also where one of four workers was stopped for 8 s, which is not long enough to be lost."""
    end = scenarios[name].result()
    assert end.done.code in {0, 1, 3}, end.explain()
    assert indices(end.run) == list(range(REQUESTS)), end.explain()
    assert {row["error_kind"] for row in end.run.rows} == {None}
    workers = end.run.info["workers"]
    assert [w["worker"] for w in workers if w["lost"]] == []
    assert sum(w["records"] for w in workers) == REQUESTS
    assert {row["worker"] for row in end.run.rows} == {0, 1, 2, 3}


def test_a_worker_that_was_stopped_is_told(scenarios: Scenarios) -> None:
    """Its users sent nothing for 8 s, and that was not the server's doing."""
    verdict = scenarios["stopped"].result().run.summary["verdict"]
    assert verdict["status"] != "valid"
    assert any("users waited" in reason for reason in verdict["reasons"])


def test_what_a_killed_worker_had_not_begun_is_made_by_the_others(scenarios: Scenarios) -> None:
    """Missing is only what was in flight, and the number of it is told."""
    end = scenarios["killed"].result()
    rows = indices(end.run)
    assert len(rows) == len(set(rows)) == REQUESTS - end.lost_in_flight, end.explain()
    lost = [w for w in end.run.info["workers"] if w["lost"]]
    assert len(lost) == 1
    # What it had not shipped when it was killed: a quarter of a second of three users' requests.
    assert 0 < end.lost_in_flight < 100
    summary = end.run.summary
    assert summary["verdict"]["status"] != "valid"
    assert any(
        f"{end.lost_in_flight} requests that they had begun" in reason
        for reason in summary["verdict"]["reasons"]
    )
    assert not any("not in the table" in reason for reason in summary["verdict"]["reasons"])
    note = f"worker {lost[0]['worker']} was lost with {end.lost_in_flight} requests in flight"
    assert note in end.run.info["notes"]


def test_the_users_of_a_killed_worker_are_others_then(scenarios: Scenarios) -> None:
    """Or the rest of the run would have a lighter load than was asked for."""
    end = scenarios["killed"].result()
    rows = end.run.rows
    lost = next(w["worker"] for w in end.run.info["workers"] if w["lost"])
    last_ns = max(row["end_ns"] for row in rows if row["worker"] == lost)
    late = [row for row in rows if row["sent_ns"] > last_ns + 13e9]
    moments = sorted([(r["sent_ns"], 1) for r in late] + [(r["end_ns"], -1) for r in late])
    most = level = 0
    for _, step in moments:
        level += step
        most = max(most, level)
    assert not late or most <= 12


def test_the_arrivals_of_a_killed_worker_are_another_ones(scenarios: Scenarios) -> None:
    """From when it counts as lost on; those before are told."""
    end = scenarios["killed in open loop"].result()
    arrivals = 25 * 60
    rows, workers = end.run.rows, end.run.info["workers"]
    unmade = sum(w["unmade_arrivals"] for w in workers)
    assert len(rows) + unmade + end.lost_in_flight == arrivals, end.explain()
    # Half of the arrivals, from the kill to when it counted as lost.
    assert 30 * 4 < unmade < 30 * 20
    lost = next(w["worker"] for w in workers if w["lost"])
    adopted = [row["index"] for row in rows if row["worker"] != lost and row["index"] % 2 == lost]
    assert adopted == list(range(adopted[0], arrivals, 2))
    reasons = end.run.summary["verdict"]["reasons"]
    assert any(f"{unmade} arrivals were not made" in reason for reason in reasons)


def test_a_profile_may_have_a_run_stop_when_a_worker_is_lost(scenarios: Scenarios) -> None:
    end = scenarios["killed and stopped"].result()
    assert end.run.info["ended"] == "worker_lost", end.explain()
    assert any("on_worker_loss: stop" in reason for reason in end.run.summary["verdict"]["reasons"])
    assert any("on_worker_loss: stop" in note for note in end.run.info["notes"])


def test_a_worker_that_was_cut_off_brings_what_it_has_kept(scenarios: Scenarios) -> None:
    """And what others made of its part meanwhile is in the table once."""
    end = scenarios["cut off"].result()
    assert indices(end.run) == list(range(REQUESTS)), end.explain()
    workers = end.run.info["workers"]
    assert [w["lost"] for w in workers] == [False] * 3
    assert any("came back" in note for note in end.run.info["notes"])
    assert [w["away"] for w in workers].count(True) == 1
    assert all(w["records"] for w in workers)
    assert end.lost_in_flight == 0
    assert not any("not in the table" in reason for reason in end.run.summary["verdict"]["reasons"])


def test_workers_of_a_killed_master_stop_and_its_run_can_be_finished(
    scenarios: Scenarios,
) -> None:
    """Load that nobody reads must not go on."""
    end = scenarios["master killed"].result()
    assert end.told["gone_s"] < 15, "8 s of silence, and the time to leave on a busy machine"
    assert all(code != 0 for code in end.told["codes"]), end.told
    assert end.done.code == 0, end.done.err
    rows = indices(end.run)
    assert len(rows) == len(set(rows)) >= end.told["journalled"]
    assert any("cut off" in reason for reason in end.run.summary["verdict"]["reasons"])


def test_a_master_that_is_started_again_has_the_workers_that_are_there(
    scenarios: Scenarios,
) -> None:
    end = scenarios["master again"].result()
    assert end.done.code == 0, end.explain()
    assert indices(end.run) == list(range(60))
    assert {row["worker"] for row in end.run.rows} == {0, 1}
    assert end.run.info["ended"] == "completed"


def test_a_late_worker_takes_part_in_a_closed_loop(scenarios: Scenarios) -> None:
    """No request is cut off when Locust moves users to it, and no user is one too many."""
    end = scenarios["late"].result()
    assert indices(end.run) == list(range(600)), end.explain()
    assert {row["error_kind"] for row in end.run.rows} == {None}
    assert {row["worker"] for row in end.run.rows} == {0, 1}
    moments = sorted(
        step for row in end.run.rows for step in ((row["sent_ns"], 1), (row["end_ns"], -1))
    )
    level = most = 0
    for _, step in moments:
        level += step
        most = max(most, level)
    assert most <= 6
    assert end.run.info["late_workers"] == 0
    assert "worker 1 joined after the start" in end.run.info["notes"]


def test_a_plan_that_came_before_the_worker_listened_is_sent_again(scenarios: Scenarios) -> None:
    """Locust connects a worker before it lets it register for messages, and drops those."""
    end = scenarios["deaf"].result()
    assert end.done.code == 0, end.done.err


def test_a_worker_without_the_headers_of_the_master_says_so(scenarios: Scenarios) -> None:
    """It would send other requests than were asked for, and the server may refuse them."""
    end = scenarios["without header"].result()
    assert end.done.code == 2
    assert "KVSWARM_HEADERS: lacks X-Tenant" in end.done.err
    assert "blue-and-secret" not in end.done.err + end.log


def test_a_slow_line_to_the_master_changes_no_figure(scenarios: Scenarios) -> None:
    """Latencies are of one clock; what of it is noise is known as such."""
    end = scenarios["slow line"].result()
    assert indices(end.run) == list(range(300)), end.explain()
    summary = end.run.summary
    assert summary["ttft_ms"]["p50"] == pytest.approx(30, abs=8)
    assert summary["itl_ms"]["p50"] == pytest.approx(5, abs=2)
    for one in end.run.info["workers"]:
        assert one["clock_rtt_us"] >= 2 * DELAY_S * 1e6
        assert abs(one["clock_offset_us"]) <= one["clock_rtt_us"]
