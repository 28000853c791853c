"""The workers of one run, as the master knows them: who is there, who is lost, who does what.

In:  what workers say, and which of them Locust sees.
Out: leases, seats and turns of the arrivals for those who are there; notes on those who are not.

A worker that is gone leaves its part to the others: requests that it had not begun, its users, and
its shard of the arrivals from the moment when it counts as lost. What it had begun and not
shipped is lost with it, unless it comes back before the end: then it ships what it has kept, and
does nothing else any more, for its part is others' by then.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunInfo, WorkerInfo
from kvswarm.swarm.clocks import FIRST_TRIPS, ClockFit
from kvswarm.swarm.leasing import Desk
from kvswarm.swarm.plan import Counts, Turn
from kvswarm.swarm.quota import Grants
from kvswarm.swarm.seats import SeatsGiven
from kvswarm.workload.arrivals import arrivals

LOST_GRACE_S: Final = 6.0
"""How long a worker may be missing, beyond Locust's 4 s, before it counts as lost."""
HAND_OVER_NS: Final = 2_000_000_000
"""A turn of the arrivals that changes hands does so this far ahead, so that both have heard it."""
Send = Callable[[str, dict[str, Any], str | None], None]


@dataclass
class Numbers:
    """Which batches of a worker have come: all below `low`, and those `ahead`."""

    low: int = 0
    ahead: set[int] = field(default_factory=set)

    def __contains__(self, number: int) -> bool:
        return number < self.low or number in self.ahead

    def add(self, number: int) -> None:
        """Note that a batch has come."""
        self.ahead.add(number)
        while self.low in self.ahead:
            self.ahead.remove(self.low)
            self.low += 1


@dataclass
class WorkerState:
    """What the master knows of one worker."""

    shard: int
    late: bool = False
    counts: Counts = field(default_factory=Counts)
    ready: bool = False
    started: bool = False
    info: WorkerInfo | None = None
    missing_since_s: float | None = None
    lost: bool = False
    away: bool = False
    """It was missing for so long that others got its part."""
    left: bool = False
    """Its part of the load is others' now."""
    begun: int = 0
    recorded: int = 0
    batches: Numbers = field(default_factory=Numbers)
    clock: ClockFit = field(default_factory=ClockFit)
    turns: dict[int, Turn] = field(default_factory=dict)
    unmade_arrivals: int = 0

    @property
    def over(self) -> bool:
        """Nothing more is expected of it."""
        return self.info is not None or self.lost

    @property
    def working(self) -> bool:
        """Whether it makes its part of the load."""
        return not self.over and not self.left

    def last_info(self, client: str) -> WorkerInfo:
        """What run.json tells of it."""
        info = self.info or WorkerInfo(
            worker=self.shard,
            host=client,
            pid=0,
            lost=True,
            records=self.recorded,
            lost_in_flight=max(0, self.begun - self.recorded),
        )
        info.away = self.away
        info.unmade_arrivals = self.unmade_arrivals
        if self.clock.offset_ns is not None and self.clock.rtt_ns is not None:
            info.clock_offset_us = self.clock.offset_ns // 1000
            info.clock_rtt_us = self.clock.rtt_ns // 1000
        return info


class Fleet:
    """The workers of one run.

    `elapsed_ns()`: since the load began; None: it has not. `note(text)`: for who reads the figures.
    """

    def __init__(
        self,
        profile: Profile,
        clients: list[str],
        send: Send,
        elapsed_ns: Callable[[], int | None],
        note: Callable[[str], None],
    ) -> None:
        self.workers = {client: WorkerState(shard) for shard, client in enumerate(clients)}
        self.shards = len(clients)
        self._note = note
        self.late_unused = 0
        self._idle: set[str] = set()
        self._profile = profile
        self._load = profile.load
        self._send = send
        self._elapsed_ns = elapsed_ns
        self._orphans: dict[int, Turn] = {}
        self._desk = Desk(
            Grants(
                None if self._load.open_loop else self._load.requests,
                gently=profile.warmup.requests or 0,
                workers=self.shards,
                round=max(1, -(-self._load.peak_users // self.shards)),
            ),
            self._send_lease,
        )
        self.seats = SeatsGiven(
            self._load.peak_users,
            lambda client, seats: send("kv_seats", {"seats": seats}, client),
        )
        self.seats.begin(clients)
        for client, worker in self.workers.items():
            self._desk.join(client)
            if self._load.open_loop:
                worker.turns[worker.shard] = Turn(shard=worker.shard)

    def _send_lease(self, client: str, number: int, first: int, count: int) -> None:
        self._send("kv_lease", {"number": number, "first": first, "count": count}, client)

    # -- what workers say --------------------------------------------------------------------

    def want(self, client: str, data: dict[str, Any]) -> None:
        """Grant request indices."""
        self._desk.want(client, int(data["wanted"]), int(data["got"]))

    def want_seats(self, client: str, data: dict[str, Any]) -> None:
        """Grant seats to users that have none."""
        if self.workers[client].working:
            self.seats.wish(client, int(data["waiting"]))

    def begun(self, client: str, total: int) -> None:
        """Note how many requests a worker has begun."""
        worker = self.workers[client]
        worker.begun = max(worker.begun, total)
        self._desk.begun(client, total)

    def pong(self, client: str, data: dict[str, Any]) -> None:
        """Take a round trip; the first ones follow each other at once."""
        worker = self.workers[client]
        worker.clock.add(int(data["sent_ns"]), int(data["there_ns"]), time.time_ns())
        if not worker.started and not self.may_start(worker):
            self.beat_to(client, worker)

    def may_start(self, worker: WorkerState) -> bool:
        """Whether it is ready, and its clock known."""
        return worker.ready and worker.clock.trips >= FIRST_TRIPS

    def last_word(self, client: str, info: WorkerInfo, *, early: bool) -> None:
        """Note that a worker has sent all. One that stopped early leaves its part to others."""
        worker = self.workers[client]
        self._come_back(worker)
        worker.info = info
        self.begun(client, info.records)
        if early or not self._load.open_loop:
            worker.away = worker.away or early
            self._leave(client, worker)

    # -- beats -------------------------------------------------------------------------------

    def beat(self) -> None:
        """Tell every worker that the master is there."""
        for client, worker in self.workers.items():
            if worker.ready and worker.info is None:
                self.beat_to(client, worker)
        self._desk.remind()

    def beat_to(self, client: str, worker: WorkerState) -> None:
        """The same for one, with its turns: said each time, because a message may get lost."""
        turns = msgspec.to_builtins(list(worker.turns.values()))
        self._send("kv_alive", {"sent_ns": time.time_ns(), "turns": turns}, client)

    # -- coming and going --------------------------------------------------------------------

    def present(self, clients: Collection[str]) -> Iterator[WorkerState]:
        """Compare with the workers that are there; yield those that count as lost now."""
        now_s = time.monotonic()
        for client, worker in self.workers.items():
            if client in clients:
                self._is_there(client, worker)
            elif not worker.over:
                worker.missing_since_s = worker.missing_since_s or now_s
                if now_s - worker.missing_since_s >= LOST_GRACE_S:
                    self._lose(client, worker)
                    yield worker
        for client in set(clients) - set(self.workers) - self._idle:
            self._idle.add(client)
            self.late_unused += 1
            self._send("kv_idle", {}, client)

    def _is_there(self, client: str, worker: WorkerState) -> None:
        worker.missing_since_s = None
        self._come_back(worker)
        if worker.left and worker.info is None:
            self._send("kv_finish", {"drain_s": self._load.drain_s}, client)

    def _come_back(self, worker: WorkerState) -> None:
        if worker.lost and worker.left:
            worker.lost = False
            self._note(
                f"worker {worker.shard} came back: what it had kept is in the table, and others "
                "make its part"
            )

    def _lose(self, client: str, worker: WorkerState) -> None:
        worker.lost = worker.away = True
        self._note(f"worker {worker.shard} was lost")
        self._leave(client, worker)

    def _leave(self, client: str, worker: WorkerState) -> None:
        """Give the part of a worker to the others."""
        if worker.left:
            return
        worker.left = True
        self._desk.leave(client)
        self.seats.leave(client)
        turns, worker.turns = worker.turns, {}
        elapsed_ns = self._elapsed_ns() or 0
        due = sum(self._due(turn, elapsed_ns) for turn in turns.values())
        worker.unmade_arrivals = max(0, due - worker.begun - worker.counts.dropped)
        for shard, turn in turns.items():
            from_ns = max(turn.from_ns, elapsed_ns)
            self._orphans[shard] = Turn(shard=shard, from_ns=from_ns, until_ns=turn.until_ns)
        self._adopt()

    def _due(self, turn: Turn, elapsed_ns: int) -> int:
        """Arrivals of a turn until now."""
        until_ns = elapsed_ns if turn.until_ns is None else min(elapsed_ns, turn.until_ns)
        schedule = arrivals(self._load, self._profile.seed, turn.shard, self.shards)
        offsets_ns = (offset_ns for _, offset_ns in schedule)
        due = itertools.takewhile(lambda offset_ns: offset_ns < until_ns, offsets_ns)
        return sum(offset_ns >= turn.from_ns for offset_ns in due)

    def _adopt(self) -> None:
        """Give each orphaned shard to the worker that has the fewest."""
        for shard in list(self._orphans):
            takers = [(len(w.turns), w.shard, c) for c, w in self.workers.items() if w.working]
            if not takers:
                return
            client = min(takers)[2]
            worker = self.workers[client]
            worker.turns[shard] = self._orphans.pop(shard)
            self._note(
                f"worker {worker.shard} makes the arrivals of shard {shard} from "
                f"{worker.turns[shard].from_ns / 1e9:.1f} s on"
            )
            self.beat_to(client, worker)

    # -- those who come after the start ------------------------------------------------------

    def has_part_for_late(self) -> bool:
        """Whether a worker that comes now can take part: in an open loop only for one that left."""
        return not self._load.open_loop or bool(self._orphans) or bool(self._adopted())

    def _adopted(self) -> list[tuple[str, Turn]]:
        return [
            (client, turn)
            for client, worker in self.workers.items()
            for turn in worker.turns.values()
            if worker.working and turn.shard != worker.shard and turn.until_ns is None
        ]

    def welcome(self, client: str) -> WorkerState:
        """Take a worker in that came after the start."""
        worker = WorkerState(len(self.workers), late=True)
        self.workers[client] = worker
        self._desk.join(client)
        self._note(f"worker {worker.shard} joined after the start")
        return worker

    def take_over(self, worker: WorkerState, elapsed_ns: int) -> None:
        """Give a late worker one shard that another one has adopted, or that nobody has."""
        adopted = self._adopted()
        if not adopted or self._orphans:
            self._adopt()
            return
        client, turn = adopted[0]
        change_ns = elapsed_ns + HAND_OVER_NS
        self.workers[client].turns[turn.shard] = msgspec.structs.replace(turn, until_ns=change_ns)
        worker.turns[turn.shard] = Turn(shard=turn.shard, from_ns=change_ns)
        self.beat_to(client, self.workers[client])

    def last_notes(self, info: RunInfo) -> list[str]:
        """What a reader must know of workers that were lost, at the end of the run."""
        notes = [
            f"worker {worker.worker} was lost with {worker.lost_in_flight} requests in flight"
            for worker in info.workers
            if worker.lost_in_flight
        ]
        notes += [
            f"{worker.unmade_arrivals} arrivals of worker {worker.worker}'s part were not made, "
            "because it was missing then"
            for worker in info.workers
            if worker.unmade_arrivals
        ]
        started_ns, stopped_ns = info.load_started_ns, info.load_stopped_ns
        if self._orphans and started_ns is not None and stopped_ns is not None:
            elapsed_ns = stopped_ns - started_ns
            left = sum(self._due(turn, elapsed_ns) for turn in self._orphans.values())
            notes.append(f"{left} arrivals were not made, because no worker was left to make them")
        return notes
