"""Workers come and go: every request of the quota is made once, by as many users as were asked for."""

from __future__ import annotations

from collections import deque

import gevent
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.swarm.clocks import ClockFit
from kvswarm.swarm.leasing import Desk
from kvswarm.swarm.quota import Grants
from kvswarm.swarm.seats import Seats, SeatsGiven, own_seats


class Lessee:
    """A worker that begins requests one by one, and says how many at times."""

    def __init__(self) -> None:
        self.leases: deque[tuple[int, int]] = deque()
        self.received = 0
        self.over = False
        self.begun: list[int] = []

    def hear(self, number: int, first: int, count: int) -> None:
        if number != self.received:
            return
        self.received += bool(count)
        self.over = self.over or not count
        if count:
            self.leases.append((first, count))

    def begin(self) -> None:
        first, count = self.leases.popleft()
        self.begun.append(first)
        if count > 1:
            self.leases.appendleft((first + 1, count - 1))


class Office:
    """A desk and its workers, between which some messages get lost."""

    def __init__(self, limit: int, losses: list[bool]) -> None:
        self.lessees = {str(number): Lessee() for number in range(3)}
        self.made: list[int] = []
        self._losses = losses
        self._desk = Desk(Grants(limit), self._send)
        for client in self.lessees:
            self._desk.join(client)

    def _send(self, client: str, number: int, first: int, count: int) -> None:
        lost = bool(self._losses) and self._losses.pop()
        if client in self.lessees and not lost:
            self.lessees[client].hear(number, first, count)

    def act(self, client: str, what: str) -> None:
        lessee = self.lessees[client]
        if what == "ask" and not lessee.over:
            self._desk.want(client, 4, lessee.received)
        elif what == "begin" and lessee.leases:
            lessee.begin()
        elif what == "tell":
            self._desk.begun(client, len(lessee.begun))
        elif what == "lose" and len(self.lessees) > 1:
            self._desk.begun(client, len(lessee.begun))
            self.made.extend(self.lessees.pop(client).begun)
            self._desk.leave(client)

    def go_on(self, turns: int) -> None:
        for _ in range(turns):
            for client in list(self.lessees):
                for what in ("ask", *["begin"] * 4, "tell"):
                    self.act(client, what)
            self._desk.remind()


@given(
    limit=st.integers(0, 60),
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["ask", "begin", "tell", "lose"])),
        max_size=80,
    ),
    losses=st.lists(st.booleans(), max_size=40),
)
def test_what_a_lost_worker_had_not_begun_is_made_by_the_others(
    limit: int, steps: list[tuple[int, str]], losses: list[bool]
) -> None:
    """Nor is anybody told that there is no more before that is sure; a grant may get lost, too."""
    office = Office(limit, losses)
    for place, what in steps:
        office.act(list(office.lessees)[place % len(office.lessees)], what)
    office.go_on(limit + 60)
    left = office.lessees.values()
    assert all(lessee.over and not lessee.leases for lessee in left)
    made = [*office.made, *(index for lessee in left for index in lessee.begun)]
    assert sorted(made) == list(range(limit))


class Hall:
    """A master's seats and workers whose users come and go."""

    def __init__(self, users: int, shards: int) -> None:
        self.workers: dict[str, Seats] = {}
        self.sitting: dict[str, list[tuple[int, int]]] = {}
        self.waiting: dict[str, list[gevent.Greenlet[..., None]]] = {}
        self._given = SeatsGiven(users, lambda client, seats: self.workers[client].add(seats))
        self._given.begin([str(shard) for shard in range(shards)])
        for shard in range(shards):
            self._open(str(shard), own_seats(users, shard, shards))

    def _open(self, name: str, own: range) -> None:
        self.sitting[name], self.waiting[name] = [], []
        self.workers[name] = Seats(
            own,
            lambda wanted: self._given.wish(name, wanted),
            lambda number: self._given.give_back(name, number),
        )

    def _sit(self, name: str) -> None:
        self.sitting[name].append(self.workers[name].take())

    def move(self, name: str, what: str) -> None:
        if what == "come":
            self.waiting[name].append(gevent.spawn(self._sit, name))
        elif what == "go" and self.sitting[name]:
            self.workers[name].leave(*self.sitting[name].pop())
        elif what == "lose" and len(self.workers) > 1:
            gevent.killall(self.waiting.pop(name))
            del self.workers[name], self.sitting[name]
            self._given.leave(name)
        for _ in range(5):
            gevent.sleep(0)

    def numbers(self) -> list[int]:
        return [number for seats in self.sitting.values() for number, _ in seats]

    def unused(self) -> int:
        """Seats that a worker has for users of its own that may come yet."""
        return sum(len(seats._free) for seats in self.workers.values())

    def wait_in_vain(self) -> bool:
        """Whether a user waits although its worker has a seat."""
        return any(
            seats._free and any(not greenlet.dead for greenlet in self.waiting[name])
            for name, seats in self.workers.items()
        )


@given(
    users=st.integers(0, 30),
    shards=st.integers(1, 5),
    moves=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["come", "go", "lose"])), max_size=60
    ),
)
def test_there_are_never_more_users_at_work_than_asked_and_none_waits_for_nothing(
    users: int, shards: int, moves: list[tuple[int, str]]
) -> None:
    """Locust moves users between workers; each must have a number that no other one has."""
    hall = Hall(users, shards)
    for place, what in moves:
        hall.move(list(hall.workers)[place % len(hall.workers)], what)
        numbers = hall.numbers()
        assert len(numbers) == len(set(numbers)) <= users
        assert not hall.wait_in_vain()
    if any(not greenlet.dead for group in hall.waiting.values() for greenlet in group):
        assert users == len(hall.numbers()) + hall.unused()
    gevent.killall([greenlet for group in hall.waiting.values() for greenlet in group])


def test_of_many_round_trips_the_quickest_tells_the_offset() -> None:
    """The others were held up on one of the two ways, nobody knows which."""
    clock = ClockFit()
    clock.add(1_000, 5_000_900, 1_900)
    clock.add(10_000, 5_010_050, 10_100)
    clock.add(20_000, 5_020_400, 20_500)
    assert (clock.offset_ns, clock.rtt_ns, clock.trips) == (5_000_000, 100, 3)
    assert clock.known_ns == 5_000_000


@given(
    offset_ns=st.integers(-(10**12), 10**12),
    ways=st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)),
)
def test_the_error_of_an_offset_is_at_most_half_the_round_trip(
    offset_ns: int, ways: tuple[int, int]
) -> None:
    clock = ClockFit()
    there_ns, back_ns = ways
    asked_ns = 10**18
    clock.add(asked_ns, asked_ns + there_ns + offset_ns, asked_ns + there_ns + back_ns)
    assert clock.offset_ns is not None
    assert clock.rtt_ns is not None
    assert abs(clock.offset_ns - offset_ns) <= clock.rtt_ns / 2 + 1
    if abs(clock.offset_ns) <= clock.rtt_ns:
        assert clock.known_ns == 0, "an offset within the noise must add none"
