"""A person's own locustfile that listens to kvswarm's events, run by plain Locust."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import LOCUST, Done, Run, command, forgiving, simulator

REQUESTS, TOKENS = 9, 24
LOCUSTFILE = '''
import json
import time

from kvswarm.swarm import events
from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("standard")
seen = open("seen.jsonl", "w")


class Mine(LLMUser):
    """Load as the profile says."""


@events.stream_end.add_listener
def broken(record, **kwargs):
    raise ValueError("a defect of the person who wrote this")


def note(event, record, **more):
    known = {name: getattr(record, name) for name in ("index", "sent_ns", "first_token_ns", "end_ns")}
    line = {"event": event, "at_ns": time.time_ns(), **known, **more}
    print(json.dumps(line), file=seen, flush=True)


@events.request_sent.add_listener
def sent(record, **kwargs):
    note("request_sent", record)


@events.first_token.add_listener
def first(record, **kwargs):
    note("first_token", record)


@events.stream_end.add_listener
def end(record, text, reasoning, tool_calls, **kwargs):
    note("stream_end", record, text=text, reasoning=reasoning, tool_calls=tool_calls, ok=record.ok)
'''


@dataclass(frozen=True)
class Listened:
    """A run, and what its listeners noted, in order."""

    done: Done
    run: Run
    lines: list[dict[str, Any]]

    def of(self, event: str) -> dict[int, dict[str, Any]]:
        """The notes of one event by the request's index."""
        return {line["index"]: line for line in self.lines if line["event"] == event}


@pytest.fixture(scope="module")
def listened(tmp_path_factory: pytest.TempPathFactory) -> Listened:
    """Three users, each three answers of about half a second."""
    folder = tmp_path_factory.mktemp("events")
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    with simulator("--exact", "30", "20") as url:
        done = command(
            [*LOCUST, "--headless", "--host", url, "--kv-profile", forgiving(folder),
             "--kv-requests", str(REQUESTS), "--kv-concurrency", "3",
             "--kv-max-tokens", str(TOKENS), "--kv-out", folder / "run"],
            cwd=folder,
        )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    return Listened(done, Run(folder / "run"), lines)


@pytest.mark.parametrize("event", ["request_sent", "first_token", "stream_end"])
def test_every_event_is_told_once_for_every_request(listened: Listened, event: str) -> None:
    """A listener that counts must come to the number of rows."""
    told = sorted(line["index"] for line in listened.lines if line["event"] == event)
    assert told == list(range(REQUESTS)), listened.done.err


def test_the_events_of_a_request_come_in_their_order(listened: Listened) -> None:
    """Sent, first token, end; each with the moment that it is about as the newest."""
    for index in range(REQUESTS):
        of_one = [line for line in listened.lines if line["index"] == index]
        assert [line["event"] for line in of_one] == ["request_sent", "first_token", "stream_end"]
        sent, first, end = of_one
        assert sent["first_token_ns"] is None
        assert sent["end_ns"] is None
        assert first["end_ns"] is None
        assert end["ok"] is True


def test_the_records_that_listeners_get_are_those_of_the_table(listened: Listened) -> None:
    """To the nanosecond: both are the kernel's stamps."""
    rows = {row["index"]: row for row in listened.run.rows}
    for index, row in rows.items():
        assert listened.of("first_token")[index]["first_token_ns"] == row["first_token_ns"]
        end = listened.of("stream_end")[index]
        assert {name: end[name] for name in ("sent_ns", "first_token_ns", "end_ns")} == {
            name: row[name] for name in ("sent_ns", "first_token_ns", "end_ns")
        }


def test_the_end_of_a_stream_hands_over_the_answer(listened: Listened) -> None:
    """The text is whole: a word or mark for each token of the simulator's."""
    for line in listened.of("stream_end").values():
        assert len(line["text"]) >= TOKENS
        assert line["reasoning"] == ""
        assert line["tool_calls"] == []


def test_the_first_token_is_told_while_the_stream_goes_on(listened: Listened) -> None:
    """One of them in time is enough here: the machine may be slow at any single one."""
    rows = {row["index"]: row for row in listened.run.rows}
    told = listened.of("first_token")
    assert any(told[index]["at_ns"] < row["last_token_ns"] for index, row in rows.items())


def test_a_listener_that_raises_is_counted_and_costs_nothing(listened: Listened) -> None:
    """Neither rows, nor the listeners after it, nor the exit code."""
    assert listened.done.code == 0, listened.done.err
    assert [row["index"] for row in listened.run.rows] == list(range(REQUESTS))
    assert {row["error_kind"] for row in listened.run.rows} == {None}
    assert [worker["failed_listeners"] for worker in listened.run.info["workers"]] == [REQUESTS]
    assert listened.run.summary["generator"]["failed_listeners"] == REQUESTS


STOPPING_LOCUSTFILE = """
import os

import gevent
from locust import events as locust_events
from locust.exception import StopTest

from kvswarm.swarm import events
from kvswarm.swarm.session import attach
from kvswarm.swarm.users import LLMUser

attach("standard")
seen = []


class Mine(LLMUser):
    pass


@events.request_sent.add_listener
def slow(record, **kwargs):
    gevent.sleep(0.02)


@locust_events.request.add_listener
def stop(**kwargs):
    seen.append(1)
    if len(seen) == 5 and os.environ["HOW"] == "StopTest":
        raise StopTest


@events.stream_end.add_listener
def leave(record, **kwargs):
    if len(seen) == 5 and os.environ["HOW"] == "quit":
        Mine.environment.runner.quit()


@locust_events.init.add_listener
def remember(environment, **kwargs):
    Mine.environment = environment
"""


@pytest.mark.parametrize("how", ["StopTest", "quit"])
def test_a_listener_may_end_the_run(how: str, tmp_path: Path) -> None:
    """It runs within the decoder: the end must not wait for that, nor lose what it holds."""
    (tmp_path / "locustfile.py").write_text(STOPPING_LOCUSTFILE)
    with simulator("--exact", "30", "2") as url:
        done = command(
            [*LOCUST, "--headless", "--host", url, "--kv-profile", forgiving(tmp_path),
             "--kv-requests", "100000", "--kv-concurrency", "3", "--kv-out", tmp_path / "run"],
            cwd=tmp_path, env={"HOW": how},
        )  # fmt: skip
    assert done.code == 0, done.err
    made = Run(tmp_path / "run")
    assert made.info["ended"] == "stopped"
    rows = made.rows
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert [worker["records"] for worker in made.info["workers"]] == [len(rows)]
    assert sum(row["error_kind"] is None for row in rows) >= 5
    assert not [note for note in made.info["notes"] if "left no record" in note]
