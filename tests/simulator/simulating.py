"""A simulator as a process of its own, and plain HTTP to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

READY = "kvswarm simulator on http://"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PATIENCE_S = 30.0
"""How long to wait for what must come: a slow machine is no failure."""
FAST = ("--step-ms", "0.5", "--decode-us", "1", "--prefill-us", "1")

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def data(self) -> list[str]:
        """What each event of the stream says; every event is one line and a blank one."""
        parts = self.body.decode().split("\n\n")
        assert parts.pop() == ""
        assert all(part.startswith("data: ") and "\n" not in part for part in parts)
        return [part.removeprefix("data: ") for part in parts]

    def chunks(self) -> list[Any]:
        """The events of a stream that ended as it should."""
        *events, last = self.data()
        assert last == "[DONE]"
        return [json.loads(event) for event in events]

    def tokens(self) -> list[str]:
        """The texts of the events that bear one."""
        return [text for chunk in self.chunks() if (text := text_of(chunk))]


def text_of(chunk: Any) -> str:
    """The text of a chunk; empty where it bears no token."""
    for choice in chunk["choices"]:
        return str((choice["delta"].get("content") or "") if "delta" in choice else choice["text"])
    return ""


class Server:
    """A running simulator."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        """Make a connection; it opens with the first request."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Make one request on a connection of its own and read the answer whole."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str) -> Answer:
        """GET."""
        return self.call("GET", path)

    def ask(self, path: str = CHAT, request_id: str | None = None, **values: Any) -> Answer:
        """POST what `request` makes of the values."""
        headers = {"x-request-id": request_id} if request_id else None
        return self.call("POST", path, request(path, **values), headers)

    def ask_all(self, count: int, **values: Any) -> list[Answer]:
        """Make many requests at the same time, with the ids 0, 1, 2 and so on."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda i: self.ask(request_id=str(i), **values), range(count)))

    def hold(self, **values: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Start a stream and leave it open."""
        connection = self.connect()
        connection.request("POST", CHAT, request(CHAT, stream=True, **values))
        return connection, connection.getresponse()

    def metrics(self) -> Metrics:
        """Every sample of /metrics by name and labels."""
        return parse_metrics(self.get("/metrics").body.decode())

    def value(self, name: str, **labels: str) -> float:
        """A metric of one model."""
        return total(self.metrics(), name, **labels)

    def wait_for(self, told: Callable[[Metrics], bool]) -> None:
        """Poll /metrics until it tells so."""
        until_s = time.monotonic() + PATIENCE_S
        while not told(metrics := self.metrics()):
            assert time.monotonic() < until_s, metrics
            time.sleep(0.01)


def request(path: str, *, prompt: str = "one two three", **values: Any) -> bytes:
    """A request body."""
    asked: dict[str, Any] = {"model": "sim", "max_tokens": 4, "ignore_eos": True}
    asked |= (
        {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {"prompt": prompt}
    )
    return json.dumps({k: v for k, v in (asked | values).items() if v is not None}).encode()


SAMPLE = re.compile(
    r'(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>(?:[a-z_]+="[^"]*",?)*)\} (?P<value>\S+)'
)


def parse_metrics(text: str) -> Metrics:
    """Read Prometheus's text format; strict, so far as the simulator uses it."""
    metrics: Metrics = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        labels = frozenset(re.findall(r'([a-z_]+)="([^"]*)"', match["labels"]))
        assert (match["name"], labels) not in metrics, line
        metrics[match["name"], labels] = float(match["value"])
    assert text.endswith("\n")
    return metrics


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum of the samples of a name that bear these labels."""
    values = [
        value
        for (found, given), value in metrics.items()
        if found == name and labels.items() <= dict(given).items()
    ]
    assert values, name
    return sum(values)


def start(*options: str) -> subprocess.Popen[str]:
    """Start `kvswarm simulate` with these options."""
    return subprocess.Popen(
        [sys.executable, "-m", "kvswarm", "simulate", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def simulating(*options: str) -> Iterator[Server]:
    """Serve with these options on a free port; what it says on standard error fails the test."""
    with start(*options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(READY), process.communicate()[1]
            yield Server(process, int(line.rpartition(":")[2]))
        finally:
            process.terminate()
            try:
                _, complaints = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    assert process.returncode == 0
    assert complaints == ""
