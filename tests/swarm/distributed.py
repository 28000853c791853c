"""A master and workers as people start them, and a line between them that can be slow or cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from running import KVSWARM, Done, Going, Run, forgiving, free_port, going, until

BLOCK_BYTES = 1 << 16
TICK_S = 0.002


class Line:
    """Forwards TCP to a port, each byte `delay_s` later; `cut` holds everything back."""

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self._to = port
        self._delay_s = delay_s
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._held: dict[socket.socket, deque[tuple[float, bytes]]] = {}
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def __enter__(self) -> Line:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all."""
        self._over.set()
        self._thread.join()

    def cut(self) -> None:
        """Let nothing through, and nobody know."""
        self._cut.set()

    def mend(self) -> None:
        """Let through what was held back, and what comes."""
        self._cut.clear()

    def _forward(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, _ in selector.select(TICK_S):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket):
                        self._read(key.fileobj, selector)
                self._write(selector)
            for end in [*self._pairs, self._listener]:
                end.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        for end, other in ((near, far), (far, near)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[end] = other
            self._held[end] = deque()
            selector.register(end, selectors.EVENT_READ)

    def _read(self, end: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            data = end.recv(BLOCK_BYTES)
        except OSError:
            data = b""
        selector_knows = end in self._pairs
        if selector_knows and not data:
            selector.unregister(end)
        if selector_knows:
            self._held[end].append((time.monotonic() + self._delay_s, data))

    def _write(self, selector: selectors.BaseSelector) -> None:
        if self._cut.is_set():
            return
        for end, held in list(self._held.items()):
            while end in self._pairs and held and held[0][0] <= time.monotonic():
                _, data = held.popleft()
                other = self._pairs[end]
                if not data:
                    self._close(other, end, selector)
                    continue
                with contextlib.suppress(OSError):
                    other.sendall(data)

    def _close(
        self, one: socket.socket, other: socket.socket, selector: selectors.BaseSelector
    ) -> None:
        for end in (one, other):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(end)
            self._pairs.pop(end, None)
            self._held.pop(end, None)
            end.close()


@dataclass(frozen=True)
class Cluster:
    """A master and its workers while they run."""

    master: Going
    workers: list[Going]
    run: Run

    def in_mid_run(self, requests: int) -> None:
        """Wait until so many requests have been written down."""
        until(
            lambda: self.run.journalled() >= requests or self.master.process.poll() is not None,
            "in mid-run",
        )
        assert self.master.process.poll() is None, self.master.err

    def end(self) -> Done:
        """Wait for the end of the master."""
        return self.master.end()

    def log(self) -> str:
        """What Locust's master said."""
        return (self.run.path / "locust.log").read_text(errors="replace")


@contextlib.contextmanager
def worker(folder: Path, port: int, name: str) -> Iterator[Going]:
    """`kvswarm worker` in a process of its own."""
    logs = folder / name
    logs.mkdir()
    arguments = ("worker", "--master-host", "127.0.0.1", "--master-port", str(port))
    with going(*KVSWARM, *arguments, cwd=folder, logs=logs) as started:
        yield started


@contextlib.contextmanager
def master(folder: Path, port: int, expected: int, *arguments: str | Path) -> Iterator[Going]:
    """`kvswarm run --master` with the forgiving profile, or the one that the arguments name."""
    profile = () if "--profile" in arguments else ("--profile", forgiving(folder))
    with going(
        *KVSWARM, "run", *profile, "--master", "--expect-workers", str(expected),
        "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port), *arguments, cwd=folder,
    ) as started:  # fmt: skip
        yield started


@contextlib.contextmanager
def cluster(
    folder: Path, url: str, workers: int, *arguments: str | Path, delay_s: float | None = None
) -> Iterator[Cluster]:
    """A whole run's processes; with `delay_s`, a slow line is between them."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        to_port = port
        if delay_s is not None:
            to_port = stack.enter_context(Line(port, delay_s)).port
        out = folder / "run"
        started = stack.enter_context(
            master(folder, port, workers, "--url", url, "--out", out, *arguments)
        )
        going_workers = [
            stack.enter_context(worker(folder, to_port, f"worker-{number}"))
            for number in range(workers)
        ]
        yield Cluster(started, going_workers, Run(out))
