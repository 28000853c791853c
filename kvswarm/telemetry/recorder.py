"""Ask servers for their metrics once a second, in a process of its own.

Use: python -m kvswarm.telemetry.recorder FILE
In:  on standard input one line of JSON, a list of `Source.to_message`s, and then nothing, until
     its end says that the run is over. So it ends when the process that measures does.
Out: FILE (`pages.py`); on standard output one JSON object a line: `{"source": name, "note": text}`
     for a source without metrics, `{"pod": {"name", "url", "late"}}` for each pod that a list of
     pods brought, `{"ready": true}` once each has answered or was waited for long
     enough, and at the end the note on each source, null where there is nothing to say of it.

A source may list pods instead of having metrics: it is read once a second, each pod that it names
is asked from then on, and one that it names no more is asked once more, and then not again.

The process that measures has no time for this: a page of vLLM is 60 kB. Each source has a thread
of its own, so that one that is slow, or never answers, delays no other.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

from kvswarm.errors import UsageError
from kvswarm.stream.target import Target
from kvswarm.telemetry.pages import Page, append_page
from kvswarm.telemetry.sources import Source

INTERVAL_S: Final = 1.0
PAGES_PER_INTERVAL: Final = 600
"""After so many pages the interval doubles: a day's run must not fill the disk."""
TIMEOUT_S: Final = 5.0
MAX_PAGE_BYTES: Final = 16 << 20
PIECE_BYTES: Final = 1 << 16
OK: Final = 200
SERVER_ERROR: Final = 500
SAMPLE: Final = rb"[A-Za-z_:][\w:]*(?:\{[^\n]*\})?[ \t]+[-+]?(?:[0-9]|NaN|Inf)"
PROMETHEUS: Final = re.compile(rb"\s*(?:#[^\n]*\n\s*)*" + SAMPLE)
"""What a page of metrics begins with: comments, then a sample. JSON and HTML do not."""


class NoMetricsError(Exception):
    """The source answers, but not with metrics: there is no sense in asking it again."""


NOT_LISTED: Final = (
    OSError, http.client.HTTPException, ValueError, KeyError, TypeError, UsageError, NoMetricsError,
)  # fmt: skip
"""What reading a list of pods may end in: it is read again."""


def fetch(target: Target, path: str) -> bytes:
    """Give a page of metrics.

    Raises OSError or HTTPException where none came this time, NoMetricsError where none will.
    """
    kind, text = _get(target, path, "text/plain")
    if not PROMETHEUS.match(text):
        raise NoMetricsError(f"{kind}, which is not Prometheus's text format")
    return text


def _get(target: Target, path: str, accepted: str) -> tuple[str, bytes]:
    """Content type and body of a page. Raises as `fetch` does."""
    give_up_s = time.monotonic() + TIMEOUT_S
    connection = target.connection(TIMEOUT_S)
    try:
        headers = {**target.headers, "Accept": accepted}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        pieces = []
        while piece := response.read1(PIECE_BYTES):
            pieces.append(piece)
            if time.monotonic() > give_up_s or sum(map(len, pieces)) > MAX_PAGE_BYTES:
                raise TimeoutError(f"no whole page in {TIMEOUT_S:g} s")
    finally:
        connection.close()
    if response.status >= SERVER_ERROR:
        raise http.client.HTTPException(_told(response))
    if response.status != OK:
        raise NoMetricsError(_told(response))
    return response.headers.get_content_type(), b"".join(pieces)


def _told(response: http.client.HTTPResponse) -> str:
    """The status, and its reason where that is not the usual one."""
    usual = http.client.responses.get(response.status, "")
    reason = "" if response.reason in {"", usual} else f": {response.reason}"
    return f"status {response.status}{reason}"


class PageFile:
    """The file of pages, for many threads. A disk that is full ends it, and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.error: OSError | None = None
        self.pages = 0

    def append(self, page: Page) -> None:
        """Write a page, unless an earlier one could not be written."""
        with self._lock:
            if self.error is not None:
                return
            try:
                append_page(self._file, page)
                self.pages += 1
            except OSError as error:
                self.error = error


class Asking(threading.Thread):
    """Asks one source until the run is over, and once more then."""

    def __init__(self, source: Source, file: PageFile, over: threading.Event) -> None:
        super().__init__(daemon=True)  # one that hangs must not keep the process
        self.source = source
        self._file, self._over = file, over
        self._paths = list(source.paths)
        self._asked = self._answered = 0
        self._last_error: Exception | None = None
        self.settled = threading.Event()
        """It has answered, or it is known that it did not."""

    def run(self) -> None:
        """See the class."""
        try:
            self._ask()
            self.settled.set()
            while not self._over.is_set():
                self._over.wait(INTERVAL_S * 2 ** (self._answered // PAGES_PER_INTERVAL))
                self._ask()
        except NoMetricsError:
            self.settled.set()

    def _ask(self) -> None:
        """Ask once; the first path that has metrics stays the only one. Raises NoMetricsError."""
        self._asked += 1
        first_error: Exception | None = None
        for path in self._paths:
            asked_ns = time.time_ns()
            try:
                text = fetch(self.source.target, path)
            except NoMetricsError as error:
                first_error = first_error or error  # that of the usual path says most
            except (OSError, http.client.HTTPException, ValueError, UsageError) as error:
                self._last_error = error
                return
            else:
                self._paths = [path]
                self._answered += 1
                name, time_ns = self.source.name, time.time_ns()
                page = Page(source=name, asked_ns=asked_ns, time_ns=time_ns, text=text)
                self._file.append(page)
                return
        self._last_error = first_error
        raise NoMetricsError

    def notes(self) -> dict[str, str | None]:
        """What a reader of the figures must know of this source, if anything, by its name."""
        return {self.source.name: self._note()}

    def _note(self) -> str | None:
        place = f"{self.source.name} ({self.source.url})"
        error = str(self._last_error or "") or "no answer in time"
        if not self._answered:
            return f"no metrics of {place}: {error}"
        missing = self._asked - self._answered
        if missing:
            return f"metrics of {place}: {missing} of {self._asked} pages missing, last: {error}"
        return None


class Following(threading.Thread):
    """Keeps one `Asking` for each pod that a list names, until the run is over."""

    def __init__(self, source: Source, file: PageFile, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._source, self._file, self._over = source, file, over
        self._asking: dict[str, tuple[Asking, threading.Event]] = {}
        self._gone: dict[str, str] = {}
        self._error: Exception | None = None
        self.settled = threading.Event()
        """The list was read, and its pods have settled, or it is known that it was not."""

    def run(self) -> None:
        """See the class."""
        self._follow(first=True)
        _wait(asking.settled.wait for asking, _ in self._asking.values())
        self.settled.set()
        while not self._over.wait(INTERVAL_S):
            self._follow(first=False)
        self._follow(first=False)  # one may have come in the last second
        for _, left in self._asking.values():
            left.set()
        _wait(asking.join for asking, _ in self._asking.values())

    def _follow(self, *, first: bool) -> None:
        try:
            _, text = _get(self._source.target, self._source.paths[0], "application/json")
            listed = [(Source.of_pod(entry), bool(entry["ready"])) for entry in json.loads(text)]
        except NOT_LISTED as error:
            self._error = error
            return
        self._error = None
        there = {source.name for source, _ in listed}
        for name in self._asking.keys() - there - self._gone.keys():
            self._asking[name][1].set()
            self._gone[name] = time.strftime("%H:%M:%S", time.gmtime())
        for source, ready in listed:
            known = source.name in self._asking
            if not known:
                late = not (first and ready)
                _say({"pod": {"name": source.name, "url": source.url, "late": late}})
            if not known or self._gone.pop(source.name, None) is not None:
                asking = Asking(source, self._file, left := threading.Event())
                self._asking[source.name] = (asking, left)
                asking.start()

    def notes(self) -> dict[str, str | None]:
        """What a reader of the figures must know of the list and its pods, by name."""
        if not self._asking:
            why = str(self._error) if self._error is not None else "no pod of it runs"
            return {self._source.name: f"no metrics of the service's pods: {why}"}
        notes: dict[str, str | None] = {self._source.name: None}
        for name, (asking, _) in list(self._asking.items()):  # its thread may go on
            notes |= asking.notes()
            if name in self._gone:
                notes[name] = f"{name} left the service at {self._gone[name]} UTC"
        return notes


def record(sources: list[Source], path: Path) -> None:
    """Record until standard input ends, and once more then."""
    over = threading.Event()
    with path.open("xb", buffering=0) as raw:
        file = PageFile(raw)
        threads = [
            (Following if source.lists_pods else Asking)(source, file, over) for source in sources
        ]
        for thread in threads:
            thread.start()
        _wait(thread.settled.wait for thread in threads)
        for thread in threads:
            for name, note in thread.notes().items():
                if note is not None:
                    _say({"source": name, "note": note})
        _say({"ready": True})
        sys.stdin.read()
        over.set()
        _wait(thread.join for thread in threads)
        for thread in threads:
            for name, note in thread.notes().items():
                _say({"source": name, "note": note})
        if file.error is not None:
            note = f"metrics are recorded in part: {path.name}: {file.error.strerror}"
            _say({"source": path.name, "note": note})
    if not file.pages:
        path.unlink(missing_ok=True)


def _wait(waits: Iterable[Callable[[float], object]]) -> None:
    """Wait for all, no longer than one page may take."""
    give_up_s = time.monotonic() + TIMEOUT_S
    for wait in waits:
        wait(max(0.0, give_up_s - time.monotonic()))


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(message)}\n")  # one write: threads must not mix their lines
    sys.stdout.flush()


def main() -> None:
    """Read what to ask, and ask."""
    asked = json.loads(sys.stdin.readline())
    record([Source.from_message(message) for message in asked], Path(sys.argv[1]))


if __name__ == "__main__":
    main()
