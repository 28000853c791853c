"""The recorder of the server's metrics, as a child of the master or only process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.event

from kvswarm.stream.target import TLS, Target
from kvswarm.telemetry.recorder import READY

FIRST_PAGE_S: Final = 6.0
LAST_PAGE_S: Final = 6.0


class ServerPages:
    """Records /metrics of a target from its making to `stop`."""

    def __init__(self, target: Target, path: Path) -> None:
        tls = target.tls or TLS()
        asked = {
            "url": target.url, "headers": dict(target.headers),
            "ca_file": tls.ca_file, "insecure": tls.insecure,
        }  # fmt: skip
        self.note: str | None = None
        """Why there are no pages."""
        self._said = gevent.event.Event()
        self._process: Any = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "kvswarm.telemetry.recorder", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        gevent.spawn(self._talk, json.dumps(asked) + "\n")

    def _talk(self, asked: str) -> None:
        # Secrets go through the pipe: a command line is for everybody to read.
        with contextlib.suppress(OSError):
            self._process.stdin.write(asked)
            self._process.stdin.flush()
            said = self._process.stdout.readline().strip()
            if said != READY:
                self.note = said or "no /metrics: its recorder ended"
        self._said.set()

    def wait(self) -> None:
        """Wait until the first page is there, or there will be none."""
        self._said.wait(FIRST_PAGE_S)

    def stop(self) -> None:
        """Have the last page recorded."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(LAST_PAGE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
