"""The recorder of the servers' metrics, as a child of the master or only process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.event
import msgspec

from kvswarm.rundir import MetricsInfo
from kvswarm.telemetry.sources import Source

FIRST_PAGE_S: Final = 6.0
LAST_PAGE_S: Final = 6.0


def metrics_info(sources: Sequence[Source]) -> list[MetricsInfo]:
    """The sources as run.json has them; a list of pods is none, but each pod that it names."""
    return [
        MetricsInfo(name=each.name, url=each.url, own=each.own)
        for each in sources
        if not each.lists_pods
    ]


class ServerPages:
    """Records the metrics of its sources from its making to `stop`."""

    def __init__(self, sources: Sequence[Source], path: Path) -> None:
        asked = json.dumps([source.to_message() for source in sources])
        self._notes: dict[str, str | None] = {}
        self._found: list[MetricsInfo] = []
        self._ready = gevent.event.Event()
        self._process: Any = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "kvswarm.telemetry.recorder", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._talking = gevent.spawn(self._talk, asked + "\n")

    def _talk(self, asked: str) -> None:
        # Secrets go through the pipe: a command line is for everybody to read.
        with contextlib.suppress(OSError):
            self._process.stdin.write(asked)
            self._process.stdin.flush()
            for line in self._process.stdout:
                message = json.loads(line)
                if "pod" in message:
                    self._found.append(msgspec.convert(message["pod"], MetricsInfo))
                elif "source" in message:
                    self._notes[message["source"]] = message["note"]
                else:
                    self._ready.set()
        if not self._ready.is_set():
            self._notes[""] = "no metrics: their recorder ended before it began"
            self._ready.set()

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the sources, as far as it is known."""
        return [note for note in self._notes.values() if note is not None]

    def take_found(self) -> list[MetricsInfo]:
        """Pods of a service that are asked, each once, since this was called last."""
        found, self._found = self._found, []
        return found

    def wait(self) -> None:
        """Wait until each source has been asked, or is too slow to be waited for."""
        self._ready.wait(FIRST_PAGE_S)

    def stop(self) -> None:
        """Have the last pages recorded."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(LAST_PAGE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._talking.join(LAST_PAGE_S)
        self._process.stdout.close()
