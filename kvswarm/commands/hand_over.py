"""The other end of a run on a cluster: its results wait here until they are fetched.

In:  a run as a function, its directory, a port, a token.
Out: the run's exit code, once the directory was taken, nobody came for it, or a signal came.

The requests are those of `kserve/handing.py`.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import os
import re
import signal
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.archive import BLOCK_BYTES, pack
from kvswarm.errors import EXIT_INTERRUPTED, KvswarmError, UsageError
from kvswarm.kserve.handing import OUR_HEADER, TOKEN_HEADER, State
from kvswarm.kserve.on_cluster import TOKEN_VARIABLE
from kvswarm.rundir import RunDir

WAIT_S: Final = 3600.0
"""How long the results wait."""
RANGE: Final = re.compile(r"bytes=(\d+)-")
LEAST_TOKEN_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """Where the results are handed over, and to whom."""

    directory: Path
    port: int
    token: str
    wait_s: float = WAIT_S


def hand_over_of(port: int, out: Path | None) -> HandOver:
    """Read what `--hand-over` needs beside its port. Raises UsageError."""
    token = os.environ.pop(TOKEN_VARIABLE, "")  # no child of this process needs it
    if len(token) < LEAST_TOKEN_CHARACTERS:
        raise UsageError(
            f"--hand-over {port}: {TOKEN_VARIABLE} is unset or short",
            fix=f"Set it to a secret of {LEAST_TOKEN_CHARACTERS} characters or more: whoever has "
            "it gets the results.",
        )
    if out is None:
        raise UsageError(
            f"--hand-over {port}: of which run directory?", fix="Name it with --out DIR."
        )
    return HandOver(directory=out, port=port, token=token)


def handed_over(run: Callable[[], int], wanted: HandOver) -> int:
    """Run, wait for the results to be taken, and give the run's exit code.

    Raises UsageError where nothing can listen, and what `run` raises once that was told.
    """
    desk = _Desk(wanted)
    with _listening(desk), _sigterm_as_ctrl_c():
        failure: KvswarmError | None = None
        try:
            code = run()
        except KvswarmError as error:
            failure, code = error, error.exit_code
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder:
            desk.end(code, failure, Path(folder) / "run.tar.gz")
            _say(f"the results wait at port {wanted.port} for {wanted.wait_s:g} s at most.")
            if not desk.taken.wait(wanted.wait_s):
                _say("nobody came for the results.")
        if failure is not None:
            raise failure
        return code


class _Desk:
    """What the handler's threads and the run share."""

    def __init__(self, wanted: HandOver) -> None:
        self.wanted = wanted
        self.taken = threading.Event()
        self.archive: Path | None = None
        self._ended: State | None = None

    def state(self) -> State:
        """Where the run stands."""
        if self._ended is not None:
            return self._ended
        begun = RunDir(self.wanted.directory).run_json.exists()
        return State(phase="running" if begun else "starting")

    def end(self, code: int, failure: KvswarmError | None, archive: Path) -> None:
        """Pack the directory, if there is one, and tell that the run has ended."""
        state = State(
            phase="ended", exit_code=code, error=None if failure is None else str(failure)
        )
        directory = self.wanted.directory
        if directory.is_dir() and any(directory.iterdir()):
            try:
                state.archive_sha256 = pack(directory, archive)
            except OSError as error:
                state.error = f"{directory}: cannot be packed: {error}"
            else:
                state.archive_bytes = archive.stat().st_size
                self.archive = archive
        self._ended = state


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk
        super().__init__(("", desk.wanted.port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: who asked has gone, and asks again."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60.0

    def do_GET(self) -> None:
        """The state, or the archive."""
        if not self._may():
            return
        desk = self.server.desk
        if self.path == "/state":
            self._answer(200, msgspec.json.encode(desk.state()))
        elif self.path == "/archive" and desk.archive is not None:
            self._send(desk.archive)
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        """Stop the run, or note that its results were taken."""
        if not self._may():
            return
        if self.path == "/stop":
            self._answer(202, b"{}")
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.path == "/taken":
            self._answer(200, b"{}")
            self.server.desk.taken.set()
        else:
            self._answer(404, b"{}")

    def _may(self) -> bool:
        given = self.headers.get(TOKEN_HEADER, "")
        if hmac.compare_digest(given.encode(), self.server.desk.wanted.token.encode()):
            return True
        self._answer(403, b'{"error": "the token is another one"}')
        return False

    def _send(self, archive: Path) -> None:
        size_bytes = archive.stat().st_size
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        start_bytes = int(asked.group(1)) if asked else 0
        if start_bytes > size_bytes:
            self._answer(416, b"{}")
            return
        self._head(206 if asked else 200, size_bytes - start_bytes, "application/gzip")
        with archive.open("rb") as file:
            file.seek(start_bytes)
            while block := file.read(BLOCK_BYTES):
                self.wfile.write(block)

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, len(body), "application/json")
        self.wfile.write(body)

    def _head(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        self.send_header(OUR_HEADER, "hand-over")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the log is the run's."""


@contextlib.contextmanager
def _listening(desk: _Desk) -> Iterator[None]:
    try:
        server = _Server(desk)
    except OSError as error:
        raise UsageError(
            f"--hand-over {desk.wanted.port}: cannot listen there: {error.strerror}",
            fix="Give a port that is free.",
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """While no load runs, whose own handler ends it in order, SIGTERM interrupts."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    sys.stderr.write(f"kvswarm: {text}\n")
    sys.stderr.flush()
