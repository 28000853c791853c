"""The master's desk for leases: who was granted what, who waits, and when there is no more.

In:  wishes of workers, how many requests each has begun, and which of them are gone.
Out: `kv_lease` messages, numbered per worker, so that one which got lost is sent again.

A worker begins its leases in the order of their grants, so a number says which are begun. What a
worker that is gone had not begun goes to others. Hence nobody is told that there is no more while
another one still holds what may come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kvswarm.swarm.quota import Grants

SendLease = Callable[[str, int, int, int], None]
"""`(client, number, first, count)`."""


@dataclass
class Held:
    """What one worker was granted, in order; ranges that it has begun wholly are forgotten."""

    ranges: deque[tuple[int, int]] = field(default_factory=deque)
    forgotten_ranges: int = 0
    forgotten: int = 0
    """Indices in the ranges that were forgotten."""
    granted: int = 0
    begun: int = 0
    wanted: int | None = None
    """A wish that was not answered yet."""
    told_over: bool = False

    @property
    def number(self) -> int:
        """Number of the next grant."""
        return self.forgotten_ranges + len(self.ranges)

    @property
    def holds(self) -> bool:
        """Whether there is something that it has not begun."""
        return self.begun < self.granted

    def add(self, first: int, count: int) -> None:
        """Note a grant."""
        self.ranges.append((first, count))
        self.granted += count

    def begin(self, total: int) -> None:
        """Note that it has begun so many of them in all."""
        self.begun = max(self.begun, total)
        while self.ranges and self.forgotten + self.ranges[0][1] <= self.begun:
            self.forgotten += self.ranges.popleft()[1]
            self.forgotten_ranges += 1

    def unbegun(self) -> Iterator[tuple[int, int]]:
        """Ranges of what it has not begun."""
        skip = self.begun - self.forgotten
        for first, count in self.ranges:
            if count > skip:
                yield first + skip, count - skip
            skip = max(0, skip - count)


class Desk:
    """All grants of one run."""

    def __init__(self, grants: Grants, send: SendLease) -> None:
        self._grants = grants
        self._send = send
        self._held: dict[str, Held] = {}

    def join(self, client: str) -> None:
        """Take a worker in."""
        self._held[client] = Held()

    def want(self, client: str, wanted: int, got: int) -> None:
        """Grant up to `wanted` indices, at once or when there are some; `got`: grants received."""
        held = self._held.get(client)
        if held is None:  # it is gone for us: what it held is others' now
            return
        if got < held.number:
            for number, (first, count) in enumerate(held.ranges, held.forgotten_ranges):
                if number >= got:
                    self._send(client, number, first, count)
            return
        held.wanted = wanted
        self._answer()

    def begun(self, client: str, total: int) -> None:
        """Note how many requests a worker has begun."""
        if client in self._held:
            self._held[client].begin(total)
            self._answer()

    def leave(self, client: str) -> None:
        """Give what a worker had not begun to the others; it gets no more."""
        held = self._held.pop(client, None)
        if held is not None:
            self._grants.give_back(held.unbegun())
            self._answer()

    def remind(self) -> None:
        """Tell those again that there is no more: the message may have got lost."""
        for client, held in self._held.items():
            if held.told_over:
                self._send(client, held.number, 0, 0)

    def _answer(self) -> None:
        for client, held in list(self._held.items()):
            if held.wanted and not self._grants.used_up:
                number = held.number
                first, count = self._grants.grant(held.wanted)
                held.wanted = None
                held.add(first, count)
                self._send(client, number, first, count)
        if not self._grants.used_up:
            return
        for client, held in list(self._held.items()):
            others = (other for name, other in self._held.items() if name != client)
            if not held.told_over and not any(other.holds for other in others):
                held.told_over = True  # also one without a user, which never asks
                self._send(client, held.number, 0, 0)
