"""The open loop of one process: its arrivals at their times, each in a greenlet of its own.

The schedule is cut into as many shards as the run began with workers. Each worker has its own; one
of a worker that was lost is another one's from a moment on. `Turn`s say whose a shard is when.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import gevent.pool

from kvswarm.swarm.plan import Plan, Turn
from kvswarm.workload.arrivals import arrivals


@dataclass(frozen=True, slots=True)
class Doer:
    """What is done with arrivals."""

    perform: Callable[[int, int], object]
    """`(index, due_ns)`: make the request."""
    dropped: Callable[[int], object]
    """`(index)`: it was not made."""
    has_room: Callable[[], bool]
    """Whether its record could be kept."""


class Arriving:
    """Starts requests as the schedule says; counts what it had to drop."""

    def __init__(self, plan: Plan, doer: Doer) -> None:
        self._plan = plan
        self._doer = doer
        self._group = gevent.pool.Group()
        self._turns: dict[int, Turn] = {}
        self._sources: dict[int, Any] = {}
        self._next: dict[int, int] = {}
        self._started_ns = 0
        self.dropped = 0
        if not plan.late:
            self._next[plan.shard] = plan.shard

    def start(self, started_ns: int, turns: Iterable[Turn]) -> None:
        """Begin; the schedule counts from this moment."""
        self._started_ns = started_ns
        self.hear(turns)

    def hear(self, turns: Iterable[Turn]) -> None:
        """Take the turns that the master gives, as often as it says so; one may get an end."""
        for turn in turns:
            if turn.shard not in self._turns and self._started_ns:
                self._take(turn)
            elif turn.shard in self._turns:
                self._turns[turn.shard] = turn

    def _take(self, turn: Turn) -> None:
        self._turns[turn.shard] = turn
        self._next.setdefault(turn.shard, turn.shard)
        # Not a user's task: Locust's users come when they come, arrivals at their times.
        self._sources[turn.shard] = gevent.spawn(self._run, turn.shard)

    @property
    def busy(self) -> bool:
        """Whether requests are on their way."""
        return bool(self._group)

    @property
    def done(self) -> bool:
        """True when the schedule is over."""
        return all(source.dead for source in self._sources.values())

    def upcoming(self) -> Iterator[int]:
        """Indices of the arrivals that come next."""
        last = self._plan.profile.load.requests or sys.maxsize
        ranges = [range(first, last, self._plan.shards) for first in self._next.values()]
        return heapq.merge(*ranges)

    def _run(self, shard: int) -> None:
        plan, load = self._plan, self._plan.profile.load
        room = max(1, load.max_in_flight // plan.shards)
        for index, offset_ns in arrivals(load, plan.profile.seed, shard, plan.shards):
            if offset_ns < self._turns[shard].from_ns:
                continue
            due_ns = self._started_ns + offset_ns
            self._next[shard] = index
            while (wait_ns := due_ns - time.time_ns()) > 0:
                gevent.sleep(wait_ns / 1e9)
            until_ns = self._turns[shard].until_ns
            if until_ns is not None and offset_ns >= until_ns:
                break
            if len(self._group) >= room * len(self._turns) or not self._doer.has_room():
                self.dropped += 1
                self._doer.dropped(index)
            else:
                self._group.spawn(self._doer.perform, index, due_ns)
        del self._next[shard]

    def stop(self) -> None:
        """Start no more."""
        self._started_ns = 0
        for source in self._sources.values():
            source.kill()

    def cancel(self) -> None:
        """End what is on its way."""
        self._group.kill()
