"""The runs of this process, as the web UI shows them while they go on and after their end.

In:  the coordinator of each run.  Out: `Watch`, which `table.py` and `pages.py` turn into rows and
JSON.
"""

from __future__ import annotations

import json
import logging
import time
from enum import Enum
from typing import Any, Final

import gevent

from kvswarm.rundir import RunDir
from kvswarm.swarm.coordinator import Coordinator
from kvswarm.swarm.merging import Merged, merged
from kvswarm.swarm.web.levels import Levels, ServerLevels
from kvswarm.swarm.web.samples import SAMPLE_S, Series

logger = logging.getLogger(__name__)

FILES: Final = ("summary.json", "report.html", "requests.parquet", "run.json")
"""What a run leaves for others to have."""


class State(Enum):
    """Life of a run, as far as whoever looks on is concerned."""

    PREPARING = "preparing"
    RUNNING = "running"
    REPORTING = "making the report"
    ENDED = "ended"
    FAILED = "failed"

    def __repr__(self) -> str:
        return self.value


class Watch:
    """One run."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.id = coordinator.run_id
        self.run: RunDir = coordinator.run
        self.profile = coordinator.profile
        self.target = coordinator.info.target
        self.started_ns = coordinator.info.started_ns or 0  # only imported runs have none
        self.state = State.PREPARING
        self.merged: Merged = merged([])
        self.elapsed_s = 0.0
        """From the start of the load to now, or to when it stopped."""
        self.series = Series()
        self.verdict: dict[str, Any] | None = None
        """`status` and `reasons`, once the rows were judged."""
        self.error: str | None = None
        self._coordinator: Coordinator | None = coordinator
        self._levels = ServerLevels(coordinator.run.server_pages)

    @property
    def over(self) -> bool:
        """Whether its files are whole."""
        return self.state in {State.ENDED, State.FAILED}

    def follow(self) -> None:
        """Look once a second while it goes on."""
        while self._coordinator is not None:
            gevent.sleep(SAMPLE_S)
            try:
                self._look()
            except Exception:
                logger.exception("the live view of %s misses a second", self.run.path.name)

    def _look(self) -> None:
        """Take a sample. The pages of the servers are read in a thread: it takes some ms."""
        levels: Levels = gevent.get_hub().threadpool.apply(self._levels.now, (time.time_ns(),))
        if self._coordinator is not None:
            self._count(self._coordinator)
            if self.state is State.RUNNING:
                self.series.add(self.elapsed_s, self.merged, levels)

    def _count(self, coordinator: Coordinator) -> None:
        info = coordinator.info
        if info.load_started_ns is None:
            return
        if self.state is State.PREPARING:
            self.state = State.RUNNING
        self.merged = merged(coordinator.counts)
        self.elapsed_s = ((info.load_stopped_ns or time.time_ns()) - info.load_started_ns) / 1e9

    def stopped(self) -> None:
        """The last counts are there; the report is to be made."""
        if self._coordinator is not None:
            self._count(self._coordinator)
            self.state = State.REPORTING
        self._coordinator = None

    def ended(self, failure: str | None) -> None:
        """All files are there, unless the load could not be made."""
        self.error = failure
        self.state = State.ENDED if failure is None else State.FAILED
        try:
            self.verdict = json.loads(self.run.summary.read_bytes())["verdict"]
        except (OSError, ValueError, KeyError):
            self.verdict = None  # no summary was made: its maker has said why

    def files(self) -> list[str]:
        """Names of its files that can be had now."""
        return [name for name in FILES if self.over and (self.run.path / name).is_file()]


class Watches:
    """All runs of this process."""

    def __init__(self) -> None:
        self._runs: dict[str, Watch] = {}
        self.refusal: str | None = None
        """Why the last start came to nothing."""

    @property
    def all(self) -> list[Watch]:
        """The newest first."""
        return list(reversed(self._runs.values()))

    @property
    def newest(self) -> Watch | None:
        """The run that goes on, or the last one."""
        return next(iter(self.all), None)

    def get(self, run_id: str) -> Watch | None:
        """A run of this process."""
        return self._runs.get(run_id)

    def began(self, coordinator: Coordinator) -> None:
        """Watch a run from its beginning."""
        self.refusal = None
        if self.newest is not None:
            self.newest.series = Series()  # its plots are shown no more
        watch = self._runs[coordinator.run_id] = Watch(coordinator)
        gevent.spawn(watch.follow)

    def stopped(self, run_id: str) -> None:
        """Its load is over."""
        if (watch := self._runs.get(run_id)) is not None:
            watch.stopped()

    def ended(self, run_id: str, failure: str | None) -> None:
        """It is over."""
        if (watch := self._runs.get(run_id)) is not None:
            watch.ended(failure)

    def refused(self, reason: str) -> None:
        """A run could not start."""
        self.refusal = reason
