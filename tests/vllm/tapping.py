"""A relay between client and server that keeps what went either way, to judge it again by itself.

In:  a `Server`.
Out: a `Server` at the relay's address, and every POST that it passed on, with its whole answer.
Bytes are passed on as they come, so that a stream stays one. Nothing of kvswarm is in here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving import Server

RELAY_S = 120.0
PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Exchanged:
    """One request and its answer, as they went over the wire."""

    asked: dict[str, Any]
    raw: bytes

    @cached_property
    def chunks(self) -> list[dict[str, Any]]:
        """The events of the answer but the last, `[DONE]`."""
        data = [line[6:] for line in self.raw.split(b"\n") if line.startswith(b"data: ")]
        assert data.pop() == b"[DONE]"
        return [json.loads(piece) for piece in data]

    @property
    def _choices(self) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in chunk["choices"]]

    @property
    def usage(self) -> dict[str, Any]:
        """The server's count of tokens."""
        usage: dict[str, Any] = self.chunks[-1]["usage"]
        return usage

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        (reason,) = [one["finish_reason"] for one in self._choices if one["finish_reason"]]
        return str(reason)

    @property
    def texts(self) -> list[str]:
        """The texts of the chunks that have some."""
        found = [choice["delta"].get("content") for choice in self._choices]
        return [text for text in found if text]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of every call."""
        names: dict[int, str] = {}
        arguments: dict[int, str] = {}
        for choice in self._choices:
            for piece in choice["delta"].get("tool_calls") or []:
                place, function = piece["index"], piece["function"]
                names[place] = names.get(place, "") + (function.get("name") or "")
                arguments[place] = arguments.get(place, "") + (function.get("arguments") or "")
        return [(names[place], arguments[place]) for place in sorted(names)]


class Tap(ThreadingHTTPServer):
    """The relay."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.upstream = server.port
        self.seen: list[Exchanged] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no matter; whatever else goes wrong is seen in what it counted."""


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Tap

    def do_GET(self) -> None:
        self._pass_on("GET", None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        raw = self._pass_on("POST", body)
        self.server.seen.append(Exchanged(json.loads(body), raw))

    def _pass_on(self, method: str, body: bytes | None) -> bytes:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=RELAY_S)
        with contextlib.closing(upstream):
            upstream.request(method, self.path, body, {"Content-Type": "application/json"})
            response = upstream.getresponse()
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers["Content-Type"])
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            pieces = []
            while piece := response.read1(PIECE_BYTES):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                pieces.append(piece)
            self.wfile.write(b"0\r\n\r\n")
        return b"".join(pieces)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has
        """Say nothing."""


@contextlib.contextmanager
def tapping(server: Server) -> Iterator[tuple[Server, list[Exchanged]]]:
    """Relay to a server until the context ends."""
    with Tap(server) as tap:
        thread = threading.Thread(target=tap.serve_forever)
        thread.start()
        try:
            yield replace(server, port=tap.server_address[1]), tap.seen
        finally:
            tap.shutdown()
            thread.join()
