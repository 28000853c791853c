"""Servers that go wrong: each fault is one error kind, counted once, and the run goes on.

One run meets every fault with which `kvswarm simulate` makes a request fail: a front door hands each new connection to the next
of many simulators, one per fault and a sound one, and counts the requests that each has got.
"""

from __future__ import annotations

import csv
import itertools
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kvswarm.records import ERROR_KINDS
from kvswarm.simulator.config import STREAM_FAULTS
from kvswarm.simulator.launch import start_simulator

sys.path.insert(0, str(Path(__file__).parent))
from running import KVSWARM, Done, Run, forgiving, going, run, until

SOUND = "sound"
KINDS = {
    SOUND: None,
    "cut": "disconnected",
    "stall": "stall",
    "error_event": "server_error_event",
    "malformed": "malformed_event",
    "no_done": "no_done",
    "no_finish": "no_finish_reason",
    "empty": "empty_output",
    "content-type": "content_type",
    "gzip": "content_encoding",
    "status-400": "http_400",
    "status-429": "http_429",
    "status-500": "http_500",
    "status-503": "http_503",
}
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"


@dataclass
class FrontDoor:
    """Connects each new client to the next back end, and counts the requests of each."""

    back_ends: dict[str, int]
    counts: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> FrontDoor:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more clients."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        """Where clients come."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            for name in itertools.cycle(self.back_ends):
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client, name), daemon=True).start()

    def _serve(self, client: socket.socket, name: str) -> None:
        with client, socket.create_connection(("127.0.0.1", self.back_ends[name])) as server:
            back = threading.Thread(target=carry, args=(server, client), daemon=True)
            back.start()
            rest = b""
            for data in carry_on(client, server):
                rest += data
                self.counts[name] += rest.count(LINE)
                rest = rest[max(rest.rfind(LINE) + 1, len(rest) - len(LINE) + 1) :]
            back.join()


def carry_on(source: socket.socket, sink: socket.socket) -> Iterator[bytes]:
    """Carry bytes from one to the other until either ends, then end both; show the bytes."""
    with suppress(OSError):
        while data := source.recv(65536):
            yield data
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def carry(source: socket.socket, sink: socket.socket) -> None:
    """The same, with nobody to look."""
    for _ in carry_on(source, sink):
        pass


@dataclass(frozen=True)
class Faulty:
    """A run through the front door, and how many requests met which fault."""

    done: Done
    met: Counter[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the run."""
        return self.done.run.rows

    @property
    def expected(self) -> dict[str, int]:
        """Requests by the kind of error that they must have."""
        return {kind: self.met[name] for name, kind in KINDS.items() if kind is not None}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """As many users as back ends, so that each back end has at least one of them."""
    folder = tmp_path_factory.mktemp("faults")
    profile = forgiving(folder, "timeouts: {between_bytes_s: 1.5}")

    def start(name: str) -> int:
        fault = () if name == SOUND else ("--fault", name)
        simulator = stack.enter_context(start_simulator(("--exact", "20", "2", *fault)))
        stack.callback(simulator.process.kill)  # thirteen at their leisure take seconds
        return urlsplit(simulator.url).port or 0

    with ExitStack() as stack:
        with ThreadPoolExecutor(4) as pool:
            back_ends = dict(zip(KINDS, pool.map(start, KINDS), strict=True))
        with FrontDoor(back_ends) as door:
            done = run(
                folder / "run", "--profile", profile, "--url", door.url,
                "--requests", str(5 * len(KINDS)), "--concurrency", str(len(KINDS)),
            )  # fmt: skip
            yield Faulty(done, door.counts)


def test_every_fault_that_fails_a_request_is_met(faulty: Faulty) -> None:
    """Or the tests below would say less than they seem to."""
    assert set(STREAM_FAULTS) == set(KINDS) - {SOUND}
    assert set(faulty.met) == set(KINDS)
    assert min(faulty.met.values()) >= 1


def test_every_request_has_one_row_and_the_run_goes_on(faulty: Faulty) -> None:
    """To its end, whatever the server does."""
    assert faulty.done.code == 0, faulty.done.err
    assert [row["index"] for row in faulty.rows] == list(range(5 * len(KINDS)))
    assert sum(faulty.met.values()) == 5 * len(KINDS)
    assert faulty.done.run.info["ended"] == "completed"


def test_every_fault_is_counted_once_as_its_own_kind(faulty: Faulty) -> None:
    """The front door counted what the servers got; the run must come to the same numbers."""
    requests = faulty.done.run.summary["requests"]
    assert requests["by_error"] == faulty.expected
    assert requests["failed"] == sum(faulty.expected.values())
    assert requests["ok"] == faulty.met[SOUND]
    assert Counter(row["error_kind"] for row in faulty.rows if row["error_kind"]) == Counter(
        faulty.expected
    )


def test_failed_requests_are_in_no_latency(faulty: Faulty) -> None:
    """Many of them had a first token, and gaps."""
    summary = faulty.done.run.summary
    for name in ("ttft_ms", "ttft_from_intended_ms", "tpot_ms", "e2e_ms"):
        assert summary[name]["count"] == faulty.met[SOUND]
    assert summary["itl_ms"]["count"] == 5 * faulty.met[SOUND]
    assert any(row["error_kind"] and row["first_token_ns"] for row in faulty.rows)


def test_the_rows_of_failures_tell_status_and_reason(faulty: Faulty) -> None:
    """A kind alone does not tell a person what the server said."""
    for row in faulty.rows:
        if row["error_kind"] is None:
            assert row["error_detail"] is None
            continue
        assert row["error_detail"], row
        status = re.fullmatch(r"http_(\d+)", row["error_kind"])
        assert row["http_status"] == (int(status[1]) if status else 200)
        assert status or row["error_kind"] in ERROR_KINDS


def test_retry_after_of_a_429_is_recorded(faulty: Faulty) -> None:
    """The simulator asks for two seconds, with this status alone."""
    told = {row["error_kind"]: row["retry_after_s"] for row in faulty.rows}
    assert told.pop("http_429") == 2.0
    assert set(told.values()) == {None}


def test_failures_are_failures_for_locust_too(faulty: Faulty) -> None:
    """By kind, with the number of each."""
    with (faulty.done.run.path / "locust_failures.csv").open(newline="") as file:
        shown = {
            row["Error"].partition("(")[2][1:].partition(":")[0]: int(row["Occurrences"])
            for row in csv.DictReader(file)
        }
    assert shown == faulty.expected


def test_a_server_that_dies_in_mid_run_costs_requests_but_no_rows(tmp_path: Path) -> None:
    """Requests in flight are cut, later ones find nobody: the quota is still made, in its time."""
    with start_simulator(("--exact", "20", "5")) as simulator:
        made = Run(tmp_path / "run")
        with going(
            *KVSWARM, "run", "--profile", forgiving(tmp_path), "--url", simulator.url,
            "--requests", "80", "--max-tokens", "10", "--out", made.path, cwd=tmp_path,
        ) as started:  # fmt: skip
            until(lambda: made.journalled() >= 8, "some requests have ended")
            simulator.process.kill()
            done = started.end()
    assert done.code == 0, done.err
    assert [row["index"] for row in made.rows] == list(range(80))
    kinds = Counter(row["error_kind"] for row in made.rows)
    assert kinds[None] >= 8
    assert kinds["connect"] >= 1
    assert set(kinds) <= {None, "connect", "disconnected"}
    assert {row["sent_ns"] for row in made.rows if row["error_kind"] == "connect"} == {None}
