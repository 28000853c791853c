"""Progress goes through a real pipe, and a reader that stands still costs the load nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from kvswarm.profiles.model import Load
from kvswarm.swarm import progress as module
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.progress import PROGRESS_FD_ENV, Progress

MANY_ERRORS = Counts(by_error={f"http_{status}": 10**9 for status in range(400, 600)})
"""A line longer than what a pipe takes whole or not at all."""


class Pipe:
    """A pipe of one page, with `Progress` at its one end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl  # noqa: PLC0415 - not on every system

        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        monkeypatch.setenv(PROGRESS_FD_ENV, str(self.writer))
        self.progress = Progress(Load(pattern="steady", open_loop=False, concurrency=1))

    def lines(self) -> list[dict[str, Any]]:
        """Everything up to the end."""
        os.close(self.writer)
        with os.fdopen(self.reader, "rb") as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    if not hasattr(__import__("fcntl"), "F_SETPIPE_SZ"):
        pytest.skip("only Linux sets the size of a pipe")
    monkeypatch.setattr(module, "LAST_LINE_S", 0.1)
    return Pipe(monkeypatch)


@pytest.mark.parametrize("counts", [Counts(), MANY_ERRORS], ids=["short", "long"])
def test_a_reader_that_stands_still_stops_nothing_and_gets_whole_lines(
    pipe: Pipe, counts: Counts
) -> None:
    """Ctrl-S in a terminal must not stop the process that measures, nor cut a line in two."""
    for started in range(50):
        pipe.progress.show([counts, Counts(started=started)])
    taken = os.read(pipe.reader, 4096)
    pipe.progress.show([counts, Counts(started=50)])
    head, _, rest = taken.partition(b"\n")
    if rest:
        assert json.loads(head)["started"] == 0
    # The pipe is one page, so that the end of a long line is read as it comes.
    text = taken
    os.set_blocking(pipe.reader, False)
    while not text.endswith(b"\n"):
        text += os.read(pipe.reader, 4096)
        pipe.progress.show([counts, Counts(started=51)])
    started_of = [json.loads(line)["started"] for line in text.splitlines()]
    assert started_of == sorted(started_of)
