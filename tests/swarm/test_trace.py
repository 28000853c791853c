"""`--traceparent`: what a server is told of a request's trace is what the request's row says."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Done, forgiving, run, simulator

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")
STREAM = b"".join(
    b"data: %b\n\n" % data
    for data in (
        b'{"choices": [{"delta": {"content": "a"}}]}',
        b'{"choices": [{"delta": {}, "finish_reason": "stop"}]}',
        b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}',
        b"[DONE]",
    )
)


class Listener(ThreadingHTTPServer):
    """A model of one token that remembers the headers of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[dict[str, str]] = []

    def traces(self) -> dict[int, list[str]]:
        """Every traceparent, by the index of its request."""
        found: dict[int, list[str]] = {}
        for headers in self.heard:
            index = int(headers["x-request-id"].rpartition("-")[2])
            found.setdefault(index, []).extend(
                [headers["traceparent"]] if "traceparent" in headers else []
            )
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version: ClassVar[str] = "HTTP/1.1"
    server: Listener

    def do_GET(self) -> None:
        """Name the model."""
        known = self.path == "/v1/models"
        body = {"data": [{"id": "tiny"}]} if known else {}
        self._send(200 if known else 404, "application/json", json.dumps(body).encode())

    def do_POST(self) -> None:
        """Say one token."""
        self.rfile.read(int(self.headers["content-length"]))
        names = [name.lower() for name in self.headers]
        assert len(names) == len(set(names)), "a header came twice"
        self.server.heard.append({name.lower(): text for name, text in self.headers.items()})
        self._send(200, "text/event-stream", STREAM)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def measured(folder: Path, server: Listener, *arguments: str, profile: str = "") -> Done:
    done = run(
        folder / "run", "--profile", forgiving(folder, profile), *arguments,
        "--url", f"http://127.0.0.1:{server.server_port}",
    )  # fmt: skip
    assert done.code == 0, done.err
    return done


def rows_and_traces(done: Done, server: Listener) -> list[tuple[dict[str, Any], str]]:
    """Each row with the one traceparent that the server heard of it."""
    traces = server.traces()
    assert traces.keys() == {row["index"] for row in done.run.rows}
    assert all(len(heard) == 1 for heard in traces.values())
    return [(row, traces[row["index"]][0]) for row in done.run.rows]


DIALOGUES = "conversation: {turns: 3, think_time_s: 0}\nrequests: 12"


@pytest.mark.parametrize(
    ("arguments", "profile"),
    [
        ((), ""),
        (("--processes", "2"), ""),
        (("--rate", "100", "--requests", "20"), "pattern: constant\nconcurrency: null"),
        ((), DIALOGUES),
    ],
    ids=["closed", "two processes", "open", "dialogues"],
)
def test_each_request_carries_the_trace_that_its_row_names(
    arguments: tuple[str, ...], profile: str, tmp_path: Path
) -> None:
    """One trace per request, one prefix per run over all processes, and a span of its own."""
    with listening() as server:
        done = measured(tmp_path, server, *arguments, "--traceparent", profile=profile)
    spans = set()
    for row, heard in rows_and_traces(done, server):
        match = TRACEPARENT.fullmatch(heard)
        assert match is not None, heard
        assert match[1] == row["trace_id"]
        assert int(match[1][16:], 16) == row["index"]
        spans.add(match[2])
    assert len(spans) == len(done.run.rows)
    assert len({row["trace_id"][:16] for row in done.run.rows}) == 1
    assert done.run.rows[0]["trace_id"][:16] != "0" * 16


def test_without_the_flag_there_is_neither_header_nor_trace(tmp_path: Path) -> None:
    """A server that traces what it is told to trace is slower than one that does not."""
    with listening() as server:
        done = measured(tmp_path, server)
    assert {row["trace_id"] for row in done.run.rows} == {None}
    assert server.traces() == {row["index"]: [] for row in done.run.rows}


def test_a_trace_of_the_users_own_goes_along_without_the_flag(tmp_path: Path) -> None:
    """It is a header as any other."""
    own = f"00-{'a' * 32}-{'b' * 16}-01"
    with listening() as server:
        done = measured(tmp_path, server, "--header", f"traceparent: {own}")
    assert {heard for _, heard in rows_and_traces(done, server)} == {own}


def test_two_traces_of_one_request_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A header that comes twice is read by each server in a way of its own."""
    with simulator() as url:
        done = run(
            tmp_path / "run", "--profile", forgiving(tmp_path), "--url", url, "--traceparent",
            "--header", "Traceparent: 00-secret",
        )  # fmt: skip
    assert done.code == 2, done.err
    assert "--traceparent" in done.err
    assert "secret" not in done.err
    assert not (tmp_path / "run").exists()
