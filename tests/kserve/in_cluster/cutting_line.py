"""A line to a port of this machine that is cut again and again: each connection after some bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

BLOCK_BYTES = 1 << 14


class Cutting:
    """Forwards TCP; a connection that has brought `after_bytes` is reset."""

    def __init__(self, port: int, after_bytes: int) -> None:
        self._to, self._after_bytes = port, after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._ends: list[socket.socket] = []

    def accept(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._ends += [near, far]
            threading.Thread(target=self._carry, args=(near, far, None), daemon=True).start()
            threading.Thread(
                target=self._carry, args=(far, near, self._after_bytes), daemon=True
            ).start()

    def close(self) -> None:
        """Cut everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # a close alone wakes nobody who reads from it
            end.close()

    def _carry(self, source: socket.socket, to: socket.socket, most_bytes: int | None) -> None:
        carried_bytes = 0
        with contextlib.suppress(OSError):
            while block := source.recv(BLOCK_BYTES):
                to.sendall(block)
                carried_bytes += len(block)
                if most_bytes is not None and carried_bytes > most_bytes:
                    self.cuts += 1
                    break
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(port: int, *, after_bytes: int) -> Iterator[Cutting]:
    """The line, while it is needed."""
    line = Cutting(port, after_bytes)
    thread = threading.Thread(target=line.accept, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.close()
        thread.join()
