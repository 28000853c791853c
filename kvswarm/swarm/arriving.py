"""The open loop of one process: its arrivals at their times, each in a greenlet of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.pool

from kvswarm.swarm.plan import Plan
from kvswarm.workload.arrivals import arrivals


class Arriving:
    """Starts `perform(index, due_ns)` as the schedule says; counts what it had to drop."""

    def __init__(
        self,
        plan: Plan,
        perform: Callable[[int, int], object],
        dropped: Callable[[int], object],
    ) -> None:
        self._plan = plan
        self._perform = perform
        self._tell_dropped = dropped
        self._group = gevent.pool.Group()
        self._source: Any = None
        self.dropped = 0
        self.next_index = plan.shard
        self.done = False
        """True when the schedule is over."""

    def start(self, started_ns: int) -> None:
        """Begin; the schedule counts from this moment."""
        # Not a user's task: Locust's users come when they come, arrivals at their times.
        self._source = gevent.spawn(self._run, started_ns)

    @property
    def busy(self) -> bool:
        """Whether requests are on their way."""
        return bool(self._group)

    def _run(self, started_ns: int) -> None:
        plan, load = self._plan, self._plan.profile.load
        room = max(1, load.max_in_flight // plan.shards)
        for index, offset_ns in arrivals(load, plan.profile.seed, plan.shard, plan.shards):
            due_ns = started_ns + offset_ns
            self.next_index = index
            while (wait_ns := due_ns - time.time_ns()) > 0:
                gevent.sleep(wait_ns / 1e9)
            if len(self._group) >= room:
                self.dropped += 1
                self._tell_dropped(index)
            else:
                self._group.spawn(self._perform, index, due_ns)
        self.done = True

    def stop(self) -> None:
        """Start no more."""
        if self._source is not None:
            self._source.kill()

    def cancel(self) -> None:
        """End what is on its way."""
        self._group.kill()
