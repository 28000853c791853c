"""Seats of a closed loop: as many as it has users, over all workers; who has none waits.

Locust moves users between workers as these come and go. The load must have as many users as was
asked for meanwhile, neither more nor fewer, and each must have a number of its own (for the levels
of `stages`, and for its dialogues). So a user makes requests only while it has a seat.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

import gevent.event


class SeatsGiven:
    """The master's side. `send(client, seats)`: pairs of a number and how often it was given."""

    def __init__(self, users: int, send: Callable[[str, list[tuple[int, int]]], None]) -> None:
        self.limit = users
        """Seats that there may be; Locust may be told to raise the number of users in mid-run."""
        self._send = send
        self._next = users
        self._free: list[int] = []
        self._turns: dict[int, int] = {}
        self._owners: dict[int, str] = {}
        self._wishes: dict[str, int] = {}

    def begin(self, clients: list[str]) -> None:
        """Deal out equal parts, as `own_seats` does; the rest goes to those who have users."""
        shards = len(clients)
        for shard, client in enumerate(clients):
            for number in own_seats(self._next, shard, shards):
                self._owners[number] = client
        self._free = [number for number in range(self._next) if number not in self._owners]

    def wish(self, client: str, wanted: int) -> None:
        """Note how many users of a worker have no seat, and give what is free."""
        self._wishes[client] = wanted
        self._give()

    def give_back(self, client: str, number: int) -> None:
        """Take a seat back."""
        if self._owners.get(number) == client:
            self._release(number)
            self._give()

    def leave(self, client: str) -> None:
        """Take all seats of a worker back."""
        self._wishes.pop(client, None)
        for number in [n for n, owner in self._owners.items() if owner == client]:
            self._release(number)
        self._give()

    def _release(self, number: int) -> None:
        del self._owners[number]
        self._turns[number] = self._turns.get(number, 0) + 1
        heapq.heappush(self._free, number)

    def _give(self) -> None:
        for client, wanted in list(self._wishes.items()):
            given: list[tuple[int, int]] = []
            while len(given) < wanted and (self._free or self._next < self.limit):
                if self._free:
                    number = heapq.heappop(self._free)
                else:
                    number, self._next = self._next, self._next + 1
                self._owners[number] = client
                given.append((number, self._turns.get(number, 0)))
            if given:
                self._wishes[client] = wanted - len(given)
                self._send(client, given)


def own_seats(users: int, shard: int, shards: int) -> range:
    """Seats that a worker has from the start: the same number for each, interleaved."""
    return range(shard, users - users % shards, shards)


class Seats:
    """A worker's side. `wish(n)` tells the master that n users wait; `give_back` returns a seat."""

    def __init__(
        self, own: range, wish: Callable[[int], None], give_back: Callable[[int], None]
    ) -> None:
        self._free: deque[tuple[int, int]] = deque((number, 0) for number in own)
        self._wish = wish
        self._give_back = give_back
        self._waiting = 0
        self._came = gevent.event.Event()

    def take(self) -> tuple[int, int]:
        """Give a free seat and how often it was given before, waiting for one where needed."""
        while not self._free:
            self._waiting += 1
            try:
                self._came.clear()
                self._wish(self._waiting)
                if not self._free:
                    self._came.wait()
            finally:
                self._waiting -= 1
        return self._free.popleft()

    def leave(self, number: int, turn: int) -> None:
        """A user goes: its seat is for another one here, or elsewhere."""
        if self._waiting:
            self._free.append((number, turn + 1))
            self._came.set()
        else:
            self._give_back(number)

    def add(self, seats: list[tuple[int, int]]) -> None:
        """Take what the master gives; it gives back what nobody here waits for any more."""
        for number, turn in seats:
            if len(self._free) < self._waiting:
                self._free.append((number, turn))
            else:
                self._give_back(number)
        self._came.set()

    def remind(self) -> None:
        """Tell the master again who waits: a message may have got lost."""
        if self._waiting > len(self._free):
            self._wish(self._waiting - len(self._free))
