"""Whole runs, each by processes of its own, against simulators of their own.

They are started side by side, three at a time; the tests look at what they left behind.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kvswarm.swarm.options import OPTIONS

sys.path.insert(0, str(Path(__file__).parent))
from running import (
    CHECKOUT,
    LOCUST,
    Done,
    Run,
    command,
    forgiving,
    free_port,
    going,
    kvswarm,
    post,
    run,
    simulator,
    until,
)  # fmt: skip

LOCUSTFILE = CHECKOUT / "locustfiles" / "standard.py"
CONSTANT = "pattern: constant\nrate_rps: 100\nrequests: 60\nconcurrency: null"
STAGES = """\
pattern: stages
requests: null
concurrency: null
stages:
  - {duration_s: 0.5, concurrency: 4}
  - {duration_s: 1.5, concurrency: 1}
  - {duration_s: 0.5, concurrency: 4}
"""
SLOW_S = 1.5
SLOW_LOCUSTFILE = f"""
import gevent

from kvswarm.swarm import session
from kvswarm.swarm.users import LLMUser


class Slow(session.Generator):
    def prepare(self):
        gevent.sleep({SLOW_S} * self._plan.shard)
        super().prepare()


session.Generator = Slow
session.attach("standard")


class SlowUser(LLMUser):
    pass
"""
OWN_PORT = ("--master-port", "{port}", "--master-bind-port", "{port}")
Play = Callable[[Path, str], Done]


def closed(folder: Path, _url: str) -> Done:
    """The simplest run there is: no URL, so the embedded simulator."""
    profile = forgiving(folder, "warmup: {requests: 5}\ncooldown: {requests: 2}")
    return run(
        folder / "run", "--profile", profile, "--json",
        "--requests", "37", "--concurrency", "5", "--max-tokens", "6",
    )  # fmt: skip


def of_a_duration(folder: Path, url: str) -> Done:
    """A closed loop that time ends."""
    return run(
        folder / "run", "--profile", forgiving(folder), "--url", url,
        "--duration", "1.5", "--endpoint", "completions",
    )  # fmt: skip


def with_locusts_own_settings(folder: Path, url: str) -> Done:
    """Where Locust finds files and variables that say something else."""
    (folder / "locust.conf").write_text("users = 1\nrun-time = 1s\n")
    (folder / "pyproject.toml").write_text("[tool.locust]\nspawn-rate = 0.1\n")
    return run(
        folder / "run", "--profile", forgiving(folder), "--url", url,
        "--requests", "30", "--concurrency", "5", env={"LOCUST_USERS": "2"},
    )  # fmt: skip


def arrivals(folder: Path, url: str) -> Done:
    """An open loop."""
    profile = forgiving(folder, CONSTANT)
    return run(folder / "run", "--profile", profile, "--url", url, "--rate", "50")


def closed_by_two(folder: Path, url: str) -> Done:
    """A closed loop over two processes."""
    return run(
        folder / "run", "--profile", forgiving(folder), "--url", url, "--processes", "2",
        "--requests", "61", "--concurrency", "6",
    )  # fmt: skip


def one_user_for_two(folder: Path, url: str) -> Done:
    """A closed loop in which one process has no user."""
    return run(
        folder / "run", "--profile", forgiving(folder), "--url", url, "--processes", "2",
        "--requests", "9", "--concurrency", "1",
    )  # fmt: skip


def arrivals_by_two(folder: Path, url: str) -> Done:
    """An open loop over two processes."""
    profile = forgiving(folder, CONSTANT)
    return run(folder / "run", "--profile", profile, "--url", url, "--processes", "2")


def slow_to_be_ready(folder: Path, url: str) -> Done:
    """An open loop over two processes, of which one takes its time to make its first requests."""
    (folder / "locustfile.py").write_text(SLOW_LOCUSTFILE)
    port = str(free_port())
    done = command(
        [*LOCUST, "--headless", "--host", url, "--only-summary", "--processes", "2",
         "--master-port", port, "--master-bind-port", port,
         "--kv-profile", forgiving(folder, CONSTANT), "--kv-out", folder / "run"],
        cwd=folder,
    )  # fmt: skip
    return Done(done.code, done.out, done.err, folder / "run")


def of_stages(folder: Path, url: str) -> Done:
    """A closed loop whose users are sent away for a while."""
    profile = forgiving(folder, STAGES)
    return run(folder / "run", "--profile", profile, "--url", url)


def failing_in_part(folder: Path, _url: str) -> Done:
    """Plain Locust, with failures that the profile's gate allows."""
    profile = forgiving(folder, "gate: {error_share: 0.9}")
    with simulator("--exact", "10", "1", "--fault", "status-500", "--fault-share", "0.3") as url:
        done = command(
            [*LOCUST, "-f", LOCUSTFILE, "--headless", "--host", url, "--only-summary",
             "--kv-profile", profile, "--kv-out", folder / "run"],
            cwd=folder,
        )  # fmt: skip
    return Done(done.code, done.out, done.err, folder / "run")


def plain_locust(folder: Path, url: str) -> Done:
    """A closed loop without kvswarm's command line; Locust decides on the users."""
    done = command(
        [*LOCUST, "-f", LOCUSTFILE, "--headless", "--host", url, "--only-summary", "--users", "3",
         "--csv", folder / "own", "--kv-profile", forgiving(folder), "--kv-requests", "20"],
        cwd=folder,
    )  # fmt: skip
    (made,) = (folder / "runs").iterdir()
    return Done(done.code, done.out, done.err, made)


def plain_arrivals(folder: Path, url: str) -> Done:
    """An open loop with more Locust users than it needs."""
    done = command(
        [*LOCUST, "-f", LOCUSTFILE, "--headless", "--host", url, "--only-summary", "--users", "3",
         "--kv-profile", forgiving(folder, CONSTANT), "--kv-out", folder / "run"],
        cwd=folder,
    )  # fmt: skip
    return Done(done.code, done.out, done.err, folder / "run")


PLAYS: tuple[Play, ...] = (
    closed, of_a_duration, arrivals, closed_by_two, one_user_for_two, arrivals_by_two,
    with_locusts_own_settings, plain_locust, plain_arrivals, slow_to_be_ready, of_stages, failing_in_part,
)  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A simulator of fixed times."""
    with simulator("--exact", "10", "1") as address:
        yield address


@pytest.fixture(scope="module")
def runs(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Play], Done]]:
    """What each play left behind."""
    with ThreadPoolExecutor(3) as pool:
        made: dict[Play, Future[Done]] = {
            play: pool.submit(play, tmp_path_factory.mktemp(play.__name__), url) for play in PLAYS
        }
        yield lambda play: made[play].result()


Runs = Callable[[Play], Done]


def intended_gaps_ns(rows: list[dict[str, Any]]) -> list[int]:
    """Times between the intended starts of consecutive rows."""
    return [late["intended_ns"] - early["intended_ns"] for early, late in itertools.pairwise(rows)]


# -- a closed loop ---------------------------------------------------------------------------


def test_a_closed_loop_makes_exactly_the_requests_that_were_asked_for(runs: Runs) -> None:
    """No request more or less, and each one has the tokens that it asked for."""
    done = runs(closed)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(37))
    assert {row["error_kind"] for row in done.run.rows} == {None}
    assert {row["completion_tokens"] for row in done.run.rows} == {6}
    assert {len(row["itl_us"]) for row in done.run.rows} == {5}


def test_users_of_a_closed_loop_have_one_request_at_a_time(runs: Runs) -> None:
    """Five users: never more than five requests at once, on five connections that are kept."""
    done = runs(closed)
    moments = [(row["sent_ns"], 1) for row in done.run.rows]
    moments += [(row["last_token_ns"], -1) for row in done.run.rows]
    in_flight = itertools.accumulate(change for _, change in sorted(moments))
    assert max(in_flight) <= 5
    assert sum(row["connect_us"] is not None for row in done.run.rows) <= 5


def test_warm_up_and_cool_down_are_recorded_but_not_counted(runs: Runs) -> None:
    """They are rows of the table, and in none of the figures."""
    done = runs(closed)
    phases = [row["phase"] for row in done.run.rows]
    assert phases == ["warmup"] * 5 + ["measure"] * 30 + ["cooldown"] * 2
    summary = done.run.summary
    assert summary["requests"]["phases"] == {"warmup": 5, "measure": 30, "cooldown": 2}
    assert summary["requests"]["sent"] == summary["requests"]["ok"] == 30
    assert summary["ttft_ms"]["count"] == summary["e2e_ms"]["count"] == 30
    assert summary["tokens"]["completion"] == 180


def test_the_moments_of_a_request_are_in_order(runs: Runs) -> None:
    """Kernel stamps and ours are of one clock: mixing two would show here at once."""
    names = ("sent_ns", "first_byte_ns", "first_token_ns", "last_token_ns", "end_ns")
    for row in runs(closed).run.rows:
        moments = [row[name] for name in ("intended_ns", *names)]
        assert moments == sorted(moments)


def test_with_json_standard_output_is_the_summary_alone(runs: Runs) -> None:
    """A script reads it; people read standard error."""
    done = runs(closed)
    assert json.loads(done.out) == done.run.summary
    assert "37 of 37 done" in done.err
    assert str(done.directory) in done.err


def test_a_run_without_url_says_that_it_measures_the_simulator(runs: Runs) -> None:
    """Nobody may take the simulator's figures for a server's."""
    assert "simulator" in runs(closed).err
    assert runs(closed).run.summary["run"]["simulator"] is True
    assert runs(arrivals).run.summary["run"]["simulator"] is False


def test_the_run_directory_tells_what_was_run(runs: Runs) -> None:
    """Profile, command line, versions, workers, how it ended; and nothing half-made is left."""
    done = runs(closed)
    info = done.run.info
    assert info["profile"]["load"]["requests"] == 37
    assert info["profile"]["warmup"]["requests"] == 5
    assert info["argv"][:2] == ["kvswarm", "run"]
    assert info["ended"] == "completed"
    assert [worker["records"] for worker in info["workers"]] == [37]
    assert info["started_ns"] <= info["load_started_ns"] <= info["ended_ns"]
    assert {"kvswarm", "locust", "python", "server"} <= set(info["versions"])
    left = {entry.name for entry in done.run.path.iterdir()}
    assert {"run.json", "requests.parquet", "summary.json", "report.html", "locust.log"} <= left
    assert "requests.journal" not in left


def test_the_plain_locust_command_that_is_printed_does_the_same(runs: Runs, url: str) -> None:
    """But for the port, as the embedded simulator is gone, and the run directory: a new one."""
    done = runs(closed)
    printed = re.search(r"plain Locust: (locust .*)", done.err)
    assert printed is not None, done.err
    words = shlex.split(printed[1])
    words[words.index("--host") + 1] = url
    again = command([*LOCUST, *words[1:]], cwd=done.run.path.parent)
    (found,) = (done.run.path.parent / "runs").iterdir()
    second = Run(found)
    assert again.code == 0, again.err
    assert [row["index"] for row in second.rows] == list(range(37))
    assert second.info["profile"]["load"] == done.run.info["profile"]["load"]
    assert second.summary["requests"] == done.run.summary["requests"]


# -- other ends and patterns -----------------------------------------------------------------


def test_a_run_of_a_duration_ends_after_it(runs: Runs) -> None:
    """What was in flight may end: nothing of a run that ends in order is cancelled."""
    done = runs(of_a_duration)
    assert done.code == 0, done.err
    info, rows = done.run.info, done.run.rows
    assert info["load_stopped_ns"] - info["load_started_ns"] >= 1.5e9
    assert done.run.summary["duration_s"] >= 1.5
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert {row["endpoint"] for row in rows} == {"completions"}
    assert {row["error_kind"] for row in rows} == {None}
    assert done.run.summary["requests"]["sent"] == len(rows) > 4


def test_an_open_loop_intends_its_requests_at_the_rate_that_was_asked(runs: Runs) -> None:
    """The schedule is exact, however late the machine was; how late it was is in the rows."""
    done = runs(arrivals)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(60))
    assert intended_gaps_ns(done.run.rows) == [pytest.approx(20e6, abs=1000)] * 59
    assert all(row["sent_ns"] >= row["intended_ns"] for row in done.run.rows)
    assert done.run.summary["run"]["pattern"] == "constant"


# -- many processes --------------------------------------------------------------------------


@pytest.mark.parametrize("play", [closed, plain_locust, slow_to_be_ready])
def test_what_the_server_counted_meanwhile_is_recorded(runs: Runs, play: Play) -> None:
    """From before the first request to after the last, by itself where nobody else uses it."""
    done = runs(play)
    rows = pq.read_table(done.run.path / "server.parquet").to_pylist()
    assert done.run.info["load_started_ns"] > rows[0]["time_ns"]
    assert max(row["end_ns"] for row in done.run.rows) < rows[-1]["time_ns"]
    if play is closed:  # the others share their simulator
        tokens = [row["value"] for row in rows if row["name"] == "vllm:generation_tokens_total"]
        assert tokens[-1] - tokens[0] == 37 * 6


def test_processes_share_one_quota(runs: Runs) -> None:
    """Both work, no index is made twice, and none is left out."""
    done = runs(closed_by_two)
    assert done.code == 0, done.err
    rows, workers = done.run.rows, done.run.info["workers"]
    assert [row["index"] for row in rows] == list(range(61))
    assert len({worker["pid"] for worker in workers}) == 2
    made = Counter(row["worker"] for row in rows)
    assert {worker["worker"]: worker["records"] for worker in workers} == made
    assert set(made) == {0, 1}
    assert not any(worker["lost"] for worker in workers)
    assert done.run.summary["generator"]["workers"] == 2


def test_a_process_without_a_user_keeps_no_part_of_the_quota(runs: Runs) -> None:
    """It would keep it for ever, and the run would never end."""
    done = runs(one_user_for_two)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(9))


def test_processes_share_the_arrivals_of_one_schedule(runs: Runs) -> None:
    """Each takes its turns of it."""
    done = runs(arrivals_by_two)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(60))
    for worker in (0, 1):
        rows = [row for row in done.run.rows if row["worker"] == worker]
        assert [row["index"] % 2 for row in rows] == [worker] * 30
        assert intended_gaps_ns(rows) == [pytest.approx(20e6, abs=1000)] * 29


def test_the_schedule_is_one_over_all_processes_whenever_they_are_ready(runs: Runs) -> None:
    """Else a constant rate would have doubled and missing arrivals."""
    done = runs(slow_to_be_ready)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(60))
    assert {row["worker"] for row in done.run.rows} == {0, 1}
    gaps_ns = intended_gaps_ns(done.run.rows)
    assert max(map(abs, gaps_ns)) < SLOW_S / 3 * 1e9
    # The time until all were ready is no time of the load.
    lead_ns = done.run.rows[0]["intended_ns"] - done.run.info["load_started_ns"]
    assert 0 <= lead_ns < SLOW_S / 3 * 1e9
    assert done.run.summary["duration_s"] < 0.6 + SLOW_S / 3


def test_settings_of_locust_do_not_change_the_load(runs: Runs) -> None:
    """`users = 1` in somebody's locust.conf is no part of this run."""
    done = runs(with_locusts_own_settings)
    assert done.code == 0, done.err
    assert done.run.info["ended"] == "completed"
    assert done.run.info["profile"]["load"]["concurrency"] == 5
    assert len({row["sent_ns"] for row in done.run.rows}) == 30
    first = sorted(row["sent_ns"] for row in done.run.rows)[:5]
    assert min(row["end_ns"] for row in done.run.rows) > first[4]


# -- stages ----------------------------------------------------------------------------------


def test_a_user_that_was_sent_away_did_not_want_to_send_all_the_while(runs: Runs) -> None:
    """Its next request is intended when it comes back: the generator kept nobody waiting."""
    done = runs(of_stages)
    assert done.code == 0, done.err
    waits_ns = [row["sent_ns"] - row["intended_ns"] for row in done.run.rows]
    assert max(waits_ns) < 0.75e9
    starts_ns = [row["intended_ns"] - done.run.info["load_started_ns"] for row in done.run.rows]
    per_second = [
        sum(begin <= ns / 1e9 < begin + 0.5 for ns in starts_ns) for begin in (0.0, 1.0, 2.0)
    ]
    assert per_second[1] < min(per_second[0], per_second[2])


# -- nothing at all --------------------------------------------------------------------------


def test_a_dry_run_shows_the_resolved_profile_and_starts_nothing(tmp_path: Path) -> None:
    """Nobody listens at that address: asking it anything would end with code 4."""
    out = tmp_path / "out"
    done = kvswarm(
        "run", "--dry-run", "--profile", "burst", "--requests", "3", "--out", out,
        "--url", "http://127.0.0.1:9/v1", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["profile"]["load"]["pattern"] == "bursty"
    assert shown["profile"]["load"]["requests"] == 3
    assert shown["target"] == "http://127.0.0.1:9/v1"
    assert "--kv-requests 3" in shown["locust"]
    assert list(tmp_path.iterdir()) == []


# -- plain Locust ----------------------------------------------------------------------------


def test_plain_locust_leaves_a_run_of_the_users_that_it_was_told(runs: Runs) -> None:
    """--users is Locust's own flag: run.json must not tell of the profile's number."""
    done = runs(plain_locust)
    assert done.code == 0, done.err
    assert [row["index"] for row in done.run.rows] == list(range(20))
    assert done.run.summary["requests"]["ok"] == 20
    assert done.run.info["profile"]["load"]["concurrency"] == 3


def test_the_tables_of_locust_hold_every_request_and_every_gap(runs: Runs) -> None:
    """Locust writes them every second, and this run was over before."""
    own = runs(plain_locust).run.path.parents[1] / "own_stats.csv"
    with own.open(newline="") as file:
        counts = {row["Type"]: int(row["Request Count"]) for row in csv.DictReader(file)}
    assert counts == {"TTFT": 20, "TPOT": 20, "ITL": 20 * 5, "E2E": 20, "": 20}


def test_more_users_than_an_open_loop_needs_do_not_repeat_its_arrivals(runs: Runs) -> None:
    """Each user would send the whole schedule: thrice the load that was asked for."""
    done = runs(plain_arrivals)
    assert done.code == 0, done.err
    assert [worker["records"] for worker in done.run.info["workers"]] == [60]
    assert [row["index"] for row in done.run.rows] == list(range(60))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "--host"),
        (("--host", "http://127.0.0.1:9"), 4, "cannot be reached"),
        (("--kv-profile", "standart", "--processes", "2", *OWN_PORT), 2, "'standard'"),
    ],
    ids=["no host", "nothing there", "no profile, two processes"],
)
def test_plain_locust_that_cannot_start_says_why_and_leaves(
    arguments: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    """With the exit codes of `kvswarm run`, and without users that wait for ever."""
    port = free_port()
    words = [word.format(port=port) for word in arguments]
    done = command([*LOCUST, "-f", LOCUSTFILE, "--headless", *words], cwd=tmp_path)
    assert done.code == code, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_plain_locust_ends_as_the_gates_say(runs: Runs) -> None:
    """Locust by itself ends with 1 for a single failed request."""
    done = runs(failing_in_part)
    assert done.run.summary["requests"]["failed"] > 0
    assert done.code == 0, done.err


def test_a_process_that_cannot_make_its_load_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """Only workers open the prompts; the master would wait for them for ever."""
    port = str(free_port())
    profile = tmp_path / "mine.yaml"
    profile.write_text("concurrency: 2\nrequests: 5\nmax_tokens: 5\nprompts: ./none.jsonl\n")
    with simulator("--exact", "10", "1") as url:
        done = command(
            [*LOCUST, "-f", LOCUSTFILE, "--headless", "--host", url, "--processes", "2",
             "--master-port", port, "--master-bind-port", port,
             "--kv-profile", profile, "--kv-out", tmp_path / "run"],
            cwd=tmp_path,
        )  # fmt: skip
    assert done.code == 2, done.err
    assert "none.jsonl" in done.err
    assert "Traceback" not in done.err
    info = Run(tmp_path / "run").info
    assert info["ended"] == "failed"
    assert any("could not start" in note and "none.jsonl" in note for note in info["notes"])


def test_fewer_users_than_the_stages_want_are_refused(tmp_path: Path) -> None:
    """The load would be capped, and nothing would tell."""
    with simulator("--exact", "10", "1") as url:
        done = command(
            [*LOCUST, "-f", LOCUSTFILE, "--headless", "--host", url, "--users", "2",
             "--kv-profile", forgiving(tmp_path, STAGES)],
            cwd=tmp_path,
        )  # fmt: skip
    assert done.code == 2, done.err
    assert "want up to 4 users" in done.err


# -- the web UI ------------------------------------------------------------------------------


def test_the_start_form_has_the_options_of_a_load_and_none_of_this_machine(
    url: str, tmp_path: Path
) -> None:
    """Whoever has the page could send any variable of this machine to any host."""
    with going(
        *LOCUST, "-f", LOCUSTFILE, "--host", url, "--web-host", "127.0.0.1", "--web-port", "0",
        "--kv-profile", forgiving(tmp_path), cwd=tmp_path, env={"A_SECRET": "key-0815"},
    ) as locust:  # fmt: skip
        address = locust.address()
        with urllib.request.urlopen(address, timeout=30) as response:  # noqa: S310 - http
            page = response.read().decode()
        post(f"{address}/swarm", "user_count=1&spawn_rate=1&kv_requests=2&kv_api_key_env=A_SECRET"
             "&kv_out=/proc/elsewhere&kv_insecure=true")  # fmt: skip
        until(lambda: len(list(tmp_path.glob("runs/*/summary.json"))) == 1, "the run has ended")
        locust.end(signal.SIGTERM)
    shown = {option.key for option in OPTIONS if f"kv_{option.key}" in page}
    assert shown == {
        "profile", "model", "requests", "duration", "rate", "max_tokens", "endpoint", "seed",
    }  # fmt: skip
    (made,) = runs_in(tmp_path)
    assert made.summary["requests"]["ok"] == 2
    assert "A_SECRET" not in (made.path / "run.json").read_text()


def runs_in(folder: Path) -> list[Run]:
    """Run directories of a web UI, the oldest first."""
    return [
        Run(path) for path in sorted((folder / "runs").glob("*"), key=lambda p: p.stat().st_ctime)
    ]


def test_every_start_from_the_web_ui_is_a_run_of_its_own(url: str, tmp_path: Path) -> None:
    """The page sends every option as text, and empty text for those that nobody filled in."""
    form = "user_count=2&spawn_rate=2&kv_model=&kv_rate=&kv_duration=&kv_insecure=false&kv_seed="
    with going(
        *LOCUST, "-f", LOCUSTFILE, "--host", url, "--web-host", "127.0.0.1", "--web-port", "0",
        "--kv-profile", forgiving(tmp_path), cwd=tmp_path,
    ) as locust:  # fmt: skip
        address = locust.address()
        post(f"{address}/swarm", f"{form}&kv_requests=11&kv_max_tokens=3")
        until(lambda: len(list(tmp_path.glob("runs/*/summary.json"))) == 1, "the first has ended")
        known = runs_in(tmp_path)
        post(f"{address}/swarm", f"{form}&kv_requests=1000000&kv_max_tokens=3")
        until(lambda: len(runs_in(tmp_path)) == 2, "the second has begun")
        (second,) = [run for run in runs_in(tmp_path) if run not in known]
        until(lambda: second.journalled() > 0, "the second makes requests")
        post(f"{address}/stop", "")
        until((second.path / "summary.json").exists, "the second has ended")
        locust.end(signal.SIGTERM)
    (first,) = known
    assert [row["index"] for row in first.rows] == list(range(11))
    assert {row["completion_tokens"] for row in first.rows} == {3}
    assert (first.info["ended"], second.info["ended"]) == ("completed", "stopped")
    assert [row["index"] for row in second.rows] == list(range(len(second.rows)))
    assert first.info["profile"]["load"]["concurrency"] == 2
