"""Runs that do not end by themselves: what was measured is kept, and the verdict says what is not.

Every scenario takes seconds of waiting and hardly any work, so they run side by side.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import (
    KVSWARM,
    LONG_S,
    Done,
    Going,
    Run,
    forgiving,
    going,
    kill,
    kvswarm,
    simulator,
    until,
)

USERS = 6
KEPT_S = 5.0
"""`kvswarm report` finds what had ended this long before `kill -9`."""


@dataclass(frozen=True)
class Ended:
    """What a scenario left."""

    done: Done
    run: Run
    journalled: int = 0
    killed_ns: int = 0
    truth: Path | None = None

    def true_indices(self, before_ns: int) -> set[int]:
        """Requests whose last token the simulator had written before then."""
        assert self.truth is not None
        lines = [json.loads(line) for line in self.truth.read_text().splitlines()]
        return {
            int(line["id"].rpartition("-")[2])
            for line in lines
            if line["last_token_ns"] < before_ns
        }


def long_run(folder: Path, url: str, *arguments: str) -> tuple[str | Path, ...]:
    """A command line that would go on for hours."""
    return (
        *KVSWARM, "run", "--profile", forgiving(folder), "--url", url, "--requests", "1000000", "--concurrency", str(USERS),
        "--max-tokens", "20", "--out", folder / "run", *arguments,
    )  # fmt: skip


def in_mid_run(started: Going, run: Run, requests: int) -> None:
    """Wait until so many requests have been written down."""
    until(lambda: run.journalled() >= requests or started.process.poll() is not None, "in mid-run")
    assert started.process.poll() is None, started.err


def interrupted(folder: Path, number: int) -> Ended:
    with (
        simulator("--exact", "60", "15") as url,
        going(*long_run(folder, url), cwd=folder) as started,
    ):
        run = Run(folder / "run")
        in_mid_run(started, run, 2 * USERS)
        return Ended(started.end(number), run)


def locust_killed(folder: Path) -> Ended:
    with (
        simulator("--exact", "30", "5") as url,
        going(*long_run(folder, url), cwd=folder) as started,
    ):
        run = Run(folder / "run")
        in_mid_run(started, run, 2 * USERS)
        kill(started.locusts()[0])
        return Ended(started.end(), run)


def front_killed(folder: Path) -> Ended:
    """The load must not go on unseen: Locust notices that nobody reads its progress."""
    with (
        simulator("--exact", "30", "5") as url,
        going(*long_run(folder, url), cwd=folder) as started,
    ):
        run = Run(folder / "run")
        in_mid_run(started, run, 2 * USERS)
        locusts = started.locusts()
        started.process.kill()
        _, alive = psutil.wait_procs(locusts, LONG_S)
        assert not alive
        return Ended(kvswarm("report", run.path, cwd=folder), run)


def all_killed(folder: Path) -> Ended:
    truth = folder / "truth.jsonl"
    with simulator("--exact", "30", "5", "--truth-log", str(truth)) as url:
        with going(*long_run(folder, url), cwd=folder) as started:
            run = Run(folder / "run")
            in_mid_run(started, run, USERS)
            begun_s = time.monotonic()
            until(lambda: time.monotonic() > begun_s + KEPT_S, "something is old enough")
            journalled = run.journalled()
            below = started.tree()
            killed_ns = time.time_ns()
            started.process.kill()
            for process in below:
                kill(process)
            started.process.wait()
        done = kvswarm("report", run.path, "--json", cwd=folder)
    return Ended(done, run, journalled, killed_ns, truth)


def worker_killed(folder: Path) -> Ended:
    arguments = ("--processes", "2", "--requests", "220")
    with (
        simulator("--exact", "30", "5") as url,
        going(*long_run(folder, url, *arguments), cwd=folder) as started,
    ):
        run = Run(folder / "run")
        in_mid_run(started, run, 2 * USERS)
        kill(started.locusts()[-1])
        return Ended(started.end(), run)


def drain_interrupted(folder: Path) -> Ended:
    """Ctrl-C while streams that never end are given a minute to."""
    profile = forgiving(
        folder, "pattern: constant\nrate_rps: 20\nrequests: null\nduration_s: 1\nconcurrency: null"
    )
    with (
        simulator("--exact", "30", "5", "--fault", "stall") as url,
        going(
            *KVSWARM, "run", "--profile", profile, "--url", url, "--out", folder / "run", cwd=folder
        ) as started,
    ):
        run_json = folder / "run" / "run.json"
        until(
            lambda: run_json.exists() and b'"load_stopped_ns": null' not in run_json.read_bytes(),
            "the load has stopped",
        )
        return Ended(started.end(signal.SIGINT), Run(folder / "run"))


SCENARIOS: dict[str, Callable[[Path], Ended]] = {
    "sigint": lambda folder: interrupted(folder, signal.SIGINT),
    "sigterm": lambda folder: interrupted(folder, signal.SIGTERM),
    "locust killed": locust_killed,
    "front killed": front_killed,
    "all killed": all_killed,
    "worker killed": worker_killed,
    "drain interrupted": drain_interrupted,
}


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {
            name: pool.submit(play, tmp_path_factory.mktemp(name.replace(" ", "-")))
            for name, play in SCENARIOS.items()
        }


@pytest.fixture(params=["sigint", "sigterm"])
def stopped(scenarios: dict[str, Future[Ended]], request: pytest.FixtureRequest) -> Ended:
    return scenarios[request.param].result()


def test_an_interrupted_run_ends_with_130_and_says_so(stopped: Ended) -> None:
    assert stopped.done.code == 130, stopped.done.err
    assert "Traceback" not in stopped.done.err
    assert stopped.run.info["ended"] == "interrupted"
    assert "cancelled" in stopped.done.out


def test_an_interrupted_run_has_one_row_for_every_request_that_was_started(
    stopped: Ended,
) -> None:
    rows = stopped.run.rows
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert [worker["records"] for worker in stopped.run.info["workers"]] == [len(rows)]


def test_of_two_interrupts_one_finds_requests_in_flight(
    scenarios: dict[str, Future[Ended]],
) -> None:
    """Or the test below would show nothing."""
    ends = [scenarios[name].result() for name in ("sigint", "sigterm")]
    assert any(end.run.summary["requests"]["cancelled"] for end in ends)


def test_requests_in_flight_at_an_interrupt_are_kept_as_cancelled(stopped: Ended) -> None:
    rows, summary = stopped.run.rows, stopped.run.summary
    ok = [row for row in rows if row["error_kind"] is None]
    cut = [row for row in rows if row["error_kind"] is not None]
    # None is left where the signal came just as all users' requests had ended.
    assert {row["error_kind"] for row in cut} <= {"cancelled"}
    assert len(cut) <= USERS
    assert summary["requests"]["ok"] == len(ok) >= 2 * USERS
    assert summary["requests"]["cancelled"] == len(cut)
    assert summary["requests"]["failed"] == 0
    assert summary["e2e_ms"]["count"] == len(ok)
    assert min(row["completion_tokens"] for row in ok) == 20


def test_an_interrupt_ends_the_drain_and_keeps_what_was_in_flight(
    scenarios: dict[str, Future[Ended]],
) -> None:
    """`drain_s` is a minute, and nobody who pressed Ctrl-C waits that long."""
    ended = scenarios["drain interrupted"].result()
    assert ended.done.code == 130, ended.done.err
    rows = ended.run.rows
    assert [row["index"] for row in rows] == list(range(20))
    assert {row["error_kind"] for row in rows} == {"cancelled"}
    assert max(row["end_ns"] - row["sent_ns"] for row in rows) < 30e9


def test_a_killed_locust_leaves_what_was_measured_and_a_verdict_that_says_so(
    scenarios: dict[str, Future[Ended]],
) -> None:
    ended = scenarios["locust killed"].result()
    assert ended.done.code == 1  # 130 would say that a person did it
    assert "Locust was ended by SIGKILL unexpectedly" in ended.done.err
    assert "Traceback" not in ended.done.err
    assert ended.run.info["ended"] is None
    assert len(ended.run.rows) >= 2 * USERS
    verdict = ended.run.summary["verdict"]
    assert verdict["status"] != "valid"
    assert any("cut off" in reason for reason in verdict["reasons"])


def test_locust_ends_in_order_when_the_front_is_killed(
    scenarios: dict[str, Future[Ended]],
) -> None:
    ended = scenarios["front killed"].result()
    assert ended.done.code == 0, ended.done.err
    rows = ended.run.rows
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert ended.run.info["ended"] == "stopped"
    assert {row["error_kind"] for row in rows} <= {None, "cancelled"}


def test_report_finishes_a_run_of_which_everything_was_killed(
    scenarios: dict[str, Future[Ended]],
) -> None:
    ended = scenarios["all killed"].result()
    assert ended.done.code == 0, ended.done.err
    assert json.loads(ended.done.out) == ended.run.summary
    kept = [row["index"] for row in ended.run.rows]
    assert len(kept) == len(set(kept)) >= ended.journalled
    had_ended = ended.true_indices(ended.killed_ns - int(KEPT_S * 1e9))
    assert had_ended
    assert had_ended <= set(kept)
    assert any("cut off" in reason for reason in ended.run.summary["verdict"]["reasons"])


def test_a_run_goes_on_without_a_killed_worker_and_says_so(
    scenarios: dict[str, Future[Ended]],
) -> None:
    ended = scenarios["worker killed"].result()
    assert "Traceback" not in ended.done.err
    assert [worker["lost"] for worker in ended.run.info["workers"]].count(True) == 1
    lost = next(worker["worker"] for worker in ended.run.info["workers"] if worker["lost"])
    assert f"worker {lost} was lost" in ended.run.info["notes"]
    summary, rows = ended.run.summary, ended.run.rows
    assert summary["verdict"]["status"] != "valid"
    assert any("lost" in reason for reason in summary["verdict"]["reasons"])
    # The other worker made the rest; missing is only what the lost one held or had not sent.
    indices = [row["index"] for row in rows]
    assert len(indices) == len(set(indices))
    assert 150 <= len(indices) < 220
    assert {row["worker"] for row in rows} == {0, 1}
