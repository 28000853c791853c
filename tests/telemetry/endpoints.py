"""Real HTTP servers that say what a test wants of them, each path for itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PAGE: Final = "# TYPE up gauge\nup 1\n"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Endpoint(ThreadingHTTPServer):
    """Answers `paths`: path to (status, content type, body), or to what handles the request."""

    daemon_threads = True
    # Whoever gave up waiting for a hanging answer has closed the connection.
    block_on_close = False

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.paths: dict[str, tuple[int, str, str] | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each request."""
        self.released = threading.Event()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://{self.address}"

    def hang(self, _request: BaseHTTPRequestHandler) -> None:
        """Answer nothing until the test is over."""
        self.released.wait()

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        give_up_s = time.monotonic() + 60
        while not true():
            assert time.monotonic() < give_up_s
            time.sleep(0.02)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        """Answer as the test wants."""
        self.server.seen.append((self.path, dict(self.headers.items())))
        answer = self.server.paths.get(self.path, (404, "text/plain", "nothing here"))
        if callable(answer):
            answer(self)
            return
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A server with /metrics that holds one sample."""
    with Endpoint() as server:
        server.paths["/metrics"] = (200, METRICS, PAGE)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
