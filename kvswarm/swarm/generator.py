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
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final

import gevent
import gevent.event
import msgspec
from locust.env import Environment
from locust.exception import StopTest

from kvswarm.errors import KvswarmError
from kvswarm.profiles.model import Profile
from kvswarm.profiles.phases import phase_of
from kvswarm.records import Record, encode_batch
from kvswarm.rundir import WorkerInfo
from kvswarm.stream.client import Deadlines, StreamClient
from kvswarm.stream.exchange import Exchange
from kvswarm.stream.outcome import Ask
from kvswarm.swarm import events
from kvswarm.swarm.arriving import Arriving
from kvswarm.swarm.dialogues import Dialogues
from kvswarm.swarm.judging import answer_of, judged
from kvswarm.swarm.plan import Plan
from kvswarm.swarm.quota import Leases
from kvswarm.swarm.secrets import Mask, target_of
from kvswarm.swarm.standing import Standing
from kvswarm.swarm.statistics import Rows
from kvswarm.swarm.stock import Stock
from kvswarm.workload.answers import Answer
from kvswarm.workload.arrivals import users_at
from kvswarm.workload.requests import Expectation, LLMRequest
from kvswarm.workload.workload import Requests, open_workload

logger = logging.getLogger(__name__)

FLUSH_S: Final = 0.25
BATCH_RECORDS: Final = 64
UNSENT_PAUSE_S: Final = 0.1
"""A user that found no connection waits this long, or it would burn the quota in a moment."""
LEVEL_CHECK_S: Final = 0.05
FIRST_LEASE_S: Final = 5.0
LAST_RECORDS_S: Final = 10.0
"""How long the end waits for greenlets of cancelled requests to leave their records."""
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
        self._failed_listeners = 0
        self._records_made = 0
        self._outbox: list[Record] = []
        self._fresh: list[Record] = []
        self._standing = Standing(plan.profile)
        self._rows = Rows(environment)
        target = target_of(plan)
        self._mask = Mask(target.headers)
        self._client = StreamClient(target, _deadlines(plan), self._take_record)
        # A tokenizer or a file of prompts can take seconds; heartbeats must go on meanwhile.
        workload: Requests | KvswarmError = gevent.get_hub().threadpool.apply(
            _workload_or_why_not, (plan.profile,)
        )
        if isinstance(workload, KvswarmError):
            raise workload
        share = -(-self._load.peak_users // plan.shards)
        self._leases = Leases(lambda wanted: send("kv_want", {"wanted": wanted}), batch=share)
        self._notes = workload.notes
        self._stock = Stock(plan, workload, target, self._upcoming)
        self._dialogues: Dialogues | None = None
        if plan.profile.has_dialogues:
            self._dialogues = Dialogues(workload, self._load.peak_users)
        self._arriving = Arriving(plan, self._perform_stocked, self._stock.forget)
        self._expectations: dict[int, Expectation] = {}
        self._users = 0
        self._is_over = gevent.event.Event()
        if events.has_listeners(events.request_sent):
            self._client.listen_sent(self._tell_sent)
        if events.has_listeners(events.first_token):
            self._client.listen_first_token(self._tell_first_token)
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

    def begin(self) -> None:
        """Start the clock of the run, and the arrivals."""
        self.started_ns = time.time_ns()
        self._cpu_start_s = time.process_time()
        self._flusher = gevent.spawn(self._flush_forever)
        if self._load.open_loop:
            self._arriving.start(self.started_ns)

    def _fill_stock(self) -> None:
        while self._stock.fill():
            self._client.breathe()
            gevent.sleep(0)

    # -- closed loop -------------------------------------------------------------------------

    def join(self) -> int:
        """Number a new user of the closed loop, from 0 over all workers."""
        number = self._users * self._plan.shards + self._plan.shard
        self._users += 1
        return number

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
        closed = self.state is State.RUNNING and not self._load.open_loop
        index = self._leases.take() if closed else None
        while index is None:
            gevent.sleep(3600)
        intended_ns = free_ns if free_ns is not None else time.time_ns()
        if self._dialogues is None:
            exchange = self._perform_stocked(index, intended_ns)
        else:
            request = self._dialogues.next(user_number, index)
            exchange = self._perform(request, self._stock.encoded(request), intended_ns)
            self._dialogues.heard(user_number, self._answer(exchange))
        if exchange is None:
            gevent.sleep(UNSENT_PAUSE_S)
            return None
        return exchange.ended_ns

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

    def add_lease(self, first: int, count: int) -> None:
        """Take request indices that the master grants."""
        self._leases.add(first, count)

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
        if request.expectation is not None:
            self._expectations[request.index] = request.expectation
        self._standing.counts.started += 1
        return self._client.perform(ask, data)

    def _upcoming(self) -> Iterator[int]:
        """Indices of the requests that come next, as far as nothing is to be heard before."""
        if self._dialogues is not None:
            return iter(())
        if self._load.open_loop:
            last = self._load.requests or sys.maxsize
            return iter(range(self._arriving.next_index, last, self._plan.shards))
        return self._leases.upcoming()

    def _take_record(self, record: Record, exchange: Exchange | None) -> None:
        """Keep a record. Called once per request, by the decoder."""
        if record.error_detail is not None:
            masked = self._mask(record.error_detail)
            record = msgspec.structs.replace(record, error_detail=masked)
        expectation = self._expectations.pop(record.index, None)
        if expectation is not None and record.ok and exchange is not None:
            record = judged(record, expectation, exchange.meaning)
        self._records_made += 1
        self._outbox.append(record)
        self._fresh.append(record)
        try:
            self._show(record, exchange)
        except StopTest:
            gevent.spawn(self._environment.runner.quit)  # type: ignore[union-attr]
        except Exception:  # what a listener raises must cost neither this record nor later ones
            self._failed_listeners += 1
            logger.exception("a listener of Locust's request event failed")
        if len(self._outbox) >= BATCH_RECORDS:
            self._ship()
            self._count_fresh()

    def _show(self, record: Record, exchange: Exchange | None) -> None:
        """Put a record before Locust and whoever listens."""
        self._rows.add(record)
        if events.has_listeners(events.stream_end):
            meaning = exchange.meaning if exchange is not None else None
            self._tell(
                events.stream_end,
                record,
                text="".join(meaning.text) if meaning else "",
                reasoning="".join(meaning.reasoning_text) if meaning else "",
                tool_calls=meaning.tool_calls if meaning else [],
            )

    def _tell_sent(self, ask: Ask, sent_ns: int) -> None:
        self._tell(events.request_sent, _partial(ask, sent_ns=sent_ns))

    def _tell_first_token(self, ask: Ask, first_token_ns: int) -> None:
        self._tell(events.first_token, _partial(ask, first_token_ns=first_token_ns))

    def _tell(self, hook: Any, record: Record, **details: Any) -> None:
        self._failed_listeners += events.fire(hook, record=record, **details)

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
            self._standing.counts.started == self._records_made
            and not self._arriving.busy
            and not self._client.undecoded
        )

    def _flush(self) -> None:
        self._ship()
        self._client.breathe()
        self._count_fresh()
        counts = self._standing.counts
        counts.in_flight = self._client.in_flight
        counts.dropped = self._arriving.dropped
        counts.streaming_events = self._client.streaming_events
        self._send("kv_counts", {"counts": self._standing.packed()})

    def _ship(self) -> None:
        if not self._outbox:
            return
        records, self._outbox = self._outbox, []
        try:
            self._send("kv_records", {"blob": encode_batch(records), "count": len(records)})
        except Exception:
            self._outbox[:0] = records
            raise

    def _count_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._standing.add(fresh)
            self._rows.flush()

    # -- the end -----------------------------------------------------------------------------

    def finish(self, drain_s: float = 0.0) -> None:
        """End this worker's part: let requests end for `drain_s`, cancel the rest, send all.

        Called more than once, it waits for the first call to be done, sooner if it says so.
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
            self._say_last_word()
            self.state = State.OVER
            gc.unfreeze()
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
        if missing := self._standing.counts.started - self._records_made:
            self._notes = [*self._notes, f"{missing} requests left no record"]
        self._cpu_s = time.process_time() - self._cpu_start_s
        if self._flusher is not None:
            self._flusher.kill()
        self._client.close()
        self._flush()

    def _say_last_word(self) -> None:
        info = WorkerInfo(
            worker=self._plan.shard,
            host=socket.gethostname(),
            pid=os.getpid(),
            records=max(self._standing.counts.started, self._records_made),
            cpu_s=self._cpu_s,
            token_events=self._client.token_events,
            dropped_arrivals=self._arriving.dropped,
            failed_listeners=self._failed_listeners,
            notes=self._notes,
        )
        self._send("kv_all_sent", {"info": msgspec.to_builtins(info)})


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


def _partial(ask: Ask, **moments: int) -> Record:
    """The record of a request that goes on, for listeners."""
    return Record(**{name: getattr(ask, name) for name in Ask.__slots__}, **moments)  # type: ignore[arg-type]
