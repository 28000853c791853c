"""The load of one process: users or arrivals in, records out.

In:  a `Plan`, and grants of request indices from the master.
Out: messages to the master: batches of records, counts, and at the end that all is sent.
Not: files and the run as a whole (`coordinator.py`), sockets (`kvswarm.stream`).
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final

import gevent
import gevent.event
import msgspec
from locust.env import Environment
from locust.runners import WorkerRunner

from kvswarm.errors import KvswarmError
from kvswarm.profiles.model import Profile
from kvswarm.profiles.phases import phase_of
from kvswarm.rundir import WorkerInfo
from kvswarm.stream.client import Deadlines
from kvswarm.stream.exchange import Exchange
from kvswarm.stream.outcome import Ask
from kvswarm.swarm.arriving import Arriving, Doer
from kvswarm.swarm.clients import Clients
from kvswarm.swarm.dialogues import Dialogues
from kvswarm.swarm.judging import answer_of
from kvswarm.swarm.lifeline import Lifeline, Listener
from kvswarm.swarm.plan import Plan, Turn
from kvswarm.swarm.quota import Leases
from kvswarm.swarm.recording import Recorder
from kvswarm.swarm.seats import Seats, own_seats
from kvswarm.swarm.secrets import Mask, targets_of
from kvswarm.swarm.shipping import Shipping
from kvswarm.swarm.stock import Stock
from kvswarm.workload.answers import Answer
from kvswarm.workload.arrivals import users_at
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.workload import Requests, open_workload

logger = logging.getLogger(__name__)

FLUSH_S: Final = 0.25
UNSENT_PAUSE_S: Final = 0.1
"""A user that found no connection waits this long, or it would burn the quota in a moment."""
LEVEL_CHECK_S: Final = 0.05
FIRST_LEASE_S: Final = 5.0
LAST_RECORDS_S: Final = 10.0
"""How long the end waits for greenlets of cancelled requests to leave their records."""
SETTLE_S: Final = 60.0
"""How long the end waits for the master to say that it has everything."""
SAY_AGAIN_S: Final = 5.0
LOOPBACK: Final = ("127.", "::1", "localhost")
BEHIND: Final = (
    "the master took records more slowly than they were made: requests waited or were dropped"
)
Send = Callable[[str, dict[str, Any]], None]


class State(Enum):
    """Life of a generator: it makes requests, then waits for those in flight, then is over."""

    RUNNING = "running"
    DRAINING = "draining"
    OVER = "over"

    def __repr__(self) -> str:
        return self.value


class Generator:
    """Makes this process's share of the requests of one run."""

    def __init__(self, environment: Environment, plan: Plan, send: Send) -> None:
        self.state = State.RUNNING
        self._environment = environment
        self._plan = plan
        self._send = send
        self._load = plan.profile.load
        targets = targets_of(plan)
        self._shipping = Shipping(
            send, lambda: self._recorder.counts.started, squeeze=_is_far(environment.runner)
        )
        self._recorder = Recorder(
            environment, plan.profile, Mask(targets[0].headers), self._shipping
        )
        self._client = Clients(targets, _deadlines(plan), self._recorder.take, plan.arm)
        for client in self._client.all:
            self._recorder.listen(client)
        # A tokenizer or a file of prompts can take seconds; heartbeats must go on meanwhile.
        workload: Requests | KvswarmError = gevent.get_hub().threadpool.apply(
            _workload_or_why_not, (plan.profile,)
        )
        if isinstance(workload, KvswarmError):
            raise workload
        share = -(-self._load.peak_users // plan.shards)
        self._leases = Leases(self._want, batch=share)
        own = range(0) if plan.late else own_seats(self._load.peak_users, plan.shard, plan.shards)
        self._seats = Seats(
            own,
            lambda waiting: send("kv_want_seats", {"waiting": waiting}),
            lambda number: send("kv_seat_back", {"number": number}),
        )
        self._turns: dict[int, int] = {}
        """Seat -> how often another worker had it before."""
        self._busy: set[int] = set()
        self._notes = workload.notes
        self._stock = Stock(plan, workload, targets, self._upcoming)
        self._dialogues: Dialogues | None = None
        if plan.profile.has_dialogues:
            self._dialogues = Dialogues(workload, self._load.peak_users)
        doer = Doer(self._perform_stocked, self._stock.forget, self._shipping.room.is_set)
        self._arriving = Arriving(plan, doer)
        listener = Listener(
            quiet=self._shipping.master_away, back=self._shipping.master_back, silent=self._orphaned
        )
        self._lifeline = Lifeline(environment, plan.run_id, listener)
        self._left_early = False
        self._is_over = gevent.event.Event()
        self._heard_out = gevent.event.Event()
        self._give_up_s = 0.0
        self.started_ns = 0
        self._cpu_start_s = time.process_time()
        self._cpu_s = 0.0
        self._flusher: Any = None

    def prepare(self) -> None:
        """Make the first requests. Leases that are granted must be able to reach `add_lease`."""
        if self._load.peak_users >= self._plan.shards and not self._load.open_loop:
            self._leases.ask()  # a process without a user would keep what it is granted
            self._leases.wait(FIRST_LEASE_S)
        self._fill_stock()
        gc.collect()
        gc.freeze()  # what lives until the end need not be looked at again by the collector

    def begin(self, started_ns: int, turns: list[Turn]) -> None:
        """Start the clock of the run, and the arrivals. Waits for the moment, by our clock."""
        gevent.sleep(max(0, started_ns - time.time_ns()) / 1e9)
        self.started_ns = started_ns
        self._cpu_start_s = time.process_time()
        if self.state is not State.RUNNING:
            return
        self._lifeline.start()
        if self._load.open_loop:
            self._arriving.start(started_ns, turns)
        self._flusher = gevent.spawn(self._flush_forever)

    def _fill_stock(self) -> None:
        while self._stock.fill():
            self._client.breathe()
            gevent.sleep(0)

    # -- closed loop -------------------------------------------------------------------------

    def join(self) -> int:
        """Give a new user of the closed loop its number; wait while there are as many as asked."""
        while self._load.open_loop:
            gevent.sleep(3600)  # requests come without users
        number, turn = self._seats.take()
        self._turns[number] = turn
        if self._dialogues is not None:
            self._dialogues.sit_down(number, turn)
        return number

    def leave(self, number: int) -> None:
        """A user was sent away: another one may have its number, here or elsewhere."""
        if self.state is State.RUNNING:
            self._seats.leave(number, self._turns.pop(number))

    def is_busy(self, number: int) -> bool:
        """Whether a request of a user is on its way in a load that goes on."""
        return self.state is State.RUNNING and number in self._busy

    def next_request(self, user_number: int, free_ns: int | None) -> int | None:
        """Make one request of a user; give when the user is free again.

        `free_ns`: when the user became free; None for now. Waits for ever when the load is over:
        the runner ends the users.
        """
        think_time_s = self._dialogues.think_time_s(user_number) if self._dialogues else 0.0
        if think_time_s:
            free_ns = (free_ns or time.time_ns()) + int(think_time_s * 1e9)
            gevent.sleep(max(0, free_ns - time.time_ns()) / 1e9)
        if self._wait_for_level(user_number):
            free_ns = None  # it was not the generator that kept this user back
        self._shipping.room.wait()
        closed = self.state is State.RUNNING and not self._load.open_loop
        index = self._leases.take() if closed else None
        while index is None:
            gevent.sleep(3600)
        intended_ns = free_ns if free_ns is not None else time.time_ns()
        self._busy.add(user_number)
        try:
            exchange = self._perform_for(user_number, index, intended_ns)
        finally:
            self._busy.discard(user_number)
        if exchange is None:
            gevent.sleep(UNSENT_PAUSE_S)
            return None
        return exchange.ended_ns

    def _perform_for(self, user_number: int, index: int, intended_ns: int) -> Exchange | None:
        if self._dialogues is None:
            return self._perform_stocked(index, intended_ns)
        request = self._dialogues.next(user_number, index)
        exchange = self._perform(request, self._stock.encoded(request), intended_ns)
        self._dialogues.heard(user_number, self._answer(exchange))
        return exchange

    def _answer(self, exchange: Exchange | None) -> Answer | None:
        meaning = self._client.meaning_of(exchange) if exchange is not None else None
        return answer_of(meaning) if meaning is not None else None

    def _wait_for_level(self, user_number: int) -> bool:
        """Hold a user back while `ramp` or `stages` want fewer users; tell whether it was."""
        waited = False
        while self._load.stages and self.state is State.RUNNING:
            level = users_at(self._load, (time.time_ns() - self.started_ns) / 1e9)
            if level is None:
                self._leases.stop()
                break
            if user_number < level:
                break
            waited = True
            gevent.sleep(LEVEL_CHECK_S)
        return waited

    def _want(self, wanted: int) -> None:
        self._send("kv_want", {"wanted": wanted, "got": self._leases.received})

    def add_lease(self, number: int, first: int, count: int) -> None:
        """Take request indices that the master grants, in the order of its grants."""
        if number == self._leases.received:
            self._leases.add(first, count)

    def add_seats(self, seats: list[tuple[int, int]]) -> None:
        """Take seats that the master gives."""
        self._seats.add(seats)

    # -- one request -------------------------------------------------------------------------

    def _perform_stocked(self, index: int, intended_ns: int) -> Exchange | None:
        return self._perform(*self._stock.take(index), intended_ns)

    def _perform(self, request: LLMRequest, data: bytes, intended_ns: int) -> Exchange | None:
        plan = self._plan
        ask = Ask(
            index=request.index,
            worker=plan.shard,
            phase=phase_of(plan.profile, request.index, (intended_ns - self.started_ns) / 1e9),
            scenario=request.scenario,
            endpoint=request.endpoint,
            intended_ns=intended_ns,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.output_tokens,
            variant=request.variant,
            case=request.case,
            group=request.group,
            turn=request.turn,
            trace_id=self._stock.trace_id(request.index),
        )
        self._recorder.expect(request.index, request.expectation)
        self._recorder.counts.started += 1
        return self._client.perform(ask, data)

    def _upcoming(self) -> Iterator[int]:
        """Indices of the requests that come next, as far as nothing is to be heard before."""
        if self._dialogues is not None:
            return iter(())
        if self._load.open_loop:
            return self._arriving.upcoming()
        return self._leases.upcoming()

    # -- to the master -----------------------------------------------------------------------

    def _flush_forever(self) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            try:
                self._flush()
                self._fill_stock()
            except Exception:
                logger.exception("a step of housekeeping failed; the next one tries again")
            if self.state is State.RUNNING and self._has_nothing_left():
                gevent.spawn(self.finish)
                return

    def _has_nothing_left(self) -> bool:
        """True when every request of this worker was made and has ended."""
        made = self._arriving.done if self._load.open_loop else self._leases.over
        return made and self._nothing_in_flight()

    def _nothing_in_flight(self) -> bool:
        return (
            self._recorder.counts.started == self._recorder.made
            and not self._arriving.busy
            and not self._client.undecoded
        )

    def _flush(self) -> None:
        self._shipping.ship()
        self._client.breathe()
        self._recorder.count_fresh()
        self._leases.remind()
        self._seats.remind()
        counts = self._recorder.counts
        counts.in_flight = self._client.in_flight
        counts.dropped = self._arriving.dropped
        counts.streaming_events = self._client.streaming_events
        self._send("kv_counts", {"counts": self._recorder.packed()})

    def alive(self, data: dict[str, Any]) -> None:
        """Hear a beat of the master, with the turns of the arrivals that are ours."""
        self._send("kv_pong", {"sent_ns": data["sent_ns"], "there_ns": time.time_ns()})
        self._lifeline.beat()
        if self.state is State.RUNNING:
            self._arriving.hear(msgspec.convert(data["turns"], list[Turn]))

    def foreign(self) -> None:
        """The master does not know our run."""
        self._lifeline.another_master()

    def acknowledged(self, number: int | None) -> None:
        """The master has written a batch down, or (None) has heard our last word."""
        if number is None:
            self._heard_out.set()
        else:
            self._shipping.acknowledged(number)

    def _orphaned(self) -> None:
        """Nobody has heard from the master for long: make no load that nobody wants."""
        self._left_early = True
        gevent.spawn(self.finish, self._load.drain_s)

    # -- the end -----------------------------------------------------------------------------

    def finish(self, drain_s: float = 0.0) -> None:
        """End this worker's part: let requests end for `drain_s`, cancel the rest, ship all.

        Called more than once, it waits for the first call to be done, sooner if it says so. That
        the master has it all is waited for elsewhere: its messages may come in by our caller.
        """
        give_up_s = time.monotonic() + drain_s
        if self.state is not State.RUNNING:
            self._give_up_s = min(self._give_up_s, give_up_s)
            self._is_over.wait()
            return
        self.state = State.DRAINING
        self._give_up_s = give_up_s
        try:
            self._drain()
        except Exception:
            logger.exception("records of this process may be missing")
        finally:
            self.state = State.OVER
            gc.unfreeze()
            settling = gevent.spawn(self._settle)
            if not isinstance(self._environment.runner, WorkerRunner):
                settling.join()  # the master is this process: it has answered by then
            self._is_over.set()

    def _drain(self) -> None:
        self._leases.stop()
        self._arriving.stop()
        while time.monotonic() < self._give_up_s and not self._nothing_in_flight():
            gevent.sleep(FLUSH_S / 5)
            self._flush()
        self._arriving.cancel()
        self._client.cancel_all()
        give_up_s = time.monotonic() + LAST_RECORDS_S
        while not self._nothing_in_flight() and time.monotonic() < give_up_s:
            self._client.decode_rest()  # a listener that ends the run holds the decoder
            gevent.sleep(0.01)
        if missing := self._recorder.counts.started - self._recorder.made:
            self._notes = [*self._notes, f"{missing} requests left no record"]
        if self._shipping.was_full:
            self._notes = [*self._notes, BEHIND]
        self._cpu_s = time.process_time() - self._cpu_start_s
        if self._flusher is not None:
            self._flusher.kill()
        self._client.close()
        self._flush()

    def _settle(self) -> None:
        """Wait until the master has every record, then until it has heard the last word."""
        give_up_s = time.monotonic() + SETTLE_S
        try:
            while self._shipping.unwritten and self._may_wait(give_up_s):
                self._shipping.ship()
                gevent.sleep(FLUSH_S / 5)
            while not self._heard_out.is_set() and self._may_wait(give_up_s):
                if not self._lifeline.silent:
                    self._say_last_word()
                self._heard_out.wait(SAY_AGAIN_S)
        except Exception:
            logger.exception("records of this process may be missing")
        finally:
            self._lifeline.stop()

    def _may_wait(self, give_up_s: float) -> bool:
        return time.monotonic() < give_up_s and not self._lifeline.gone

    def _say_last_word(self) -> None:
        info = WorkerInfo(
            worker=self._plan.shard,
            host=socket.gethostname(),
            pid=os.getpid(),
            records=max(self._recorder.counts.started, self._recorder.made),
            cpu_s=self._cpu_s,
            token_events=self._client.token_events,
            dropped_arrivals=self._arriving.dropped,
            failed_listeners=self._recorder.failed_listeners,
            notes=self._notes,
        )
        message = {"info": msgspec.to_builtins(info), "early": self._left_early}
        self._send("kv_all_sent", message)


def _workload_or_why_not(profile: Profile) -> Requests | KvswarmError:
    """Open the workload; what a thread of gevent raises is printed as a traceback as well."""
    try:
        return open_workload(profile)
    except KvswarmError as error:
        return error


def _deadlines(plan: Plan) -> Deadlines:
    limits = plan.profile.timeouts
    return Deadlines(
        connect_s=limits.connect_s,
        first_byte_s=limits.first_byte_s,
        between_bytes_s=limits.between_bytes_s,
        total_s=limits.total_s,
    )


def _is_far(runner: Any) -> bool:
    """Whether records go over a network, where fewer bytes are worth some CPU."""
    return isinstance(runner, WorkerRunner) and not runner.master_host.startswith(LOOPBACK)
