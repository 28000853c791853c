"""The run as a whole: its directory, its quota, its end. Lives in the master or the only process.

In:  `Settings`, and the messages of the workers.
Out: the run directory but for what analysis makes of it; progress lines; the end of the run.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import gevent
import gevent.event
import msgspec

from kvswarm.errors import KvswarmError
from kvswarm.profiles.model import Profile
from kvswarm.rundir import JournalWriter, RunDir, WorkerInfo
from kvswarm.swarm.fleet import Fleet, WorkerState
from kvswarm.swarm.lifeline import BEAT_S
from kvswarm.swarm.plan import Counts, Plan, other_of
from kvswarm.swarm.progress import Progress
from kvswarm.swarm.run_start import RunStart, first_info
from kvswarm.swarm.server_pages import ServerPages
from kvswarm.swarm.shipping import unsqueezed

logger = logging.getLogger(__name__)

HOUSEKEEPING_S: Final = 0.5
MIN_FREE_BYTES: Final = 64 * 1024 * 1024
LAST_WORDS_S: Final = 30.0
"""How long the master waits at the end for workers to say that all is sent."""
START_MARGIN_NS: Final = 5_000_000
"""How long after the slowest message to a worker the load starts, at most START_LIMIT_NS ahead."""
START_LIMIT_NS: Final = 2_000_000_000


class Coordinator:
    """One run, from the plan to the last worker's last word."""

    def __init__(
        self,
        start: RunStart,
        send: Callable[[str, Any, str | None], None],
        on_over: Callable[[], None],
    ) -> None:
        self._start = start
        self._send_plain = send
        self._on_over = on_over
        self.run_id = secrets.token_hex(6)
        self._trace_prefix = secrets.token_hex(8) if start.traceparent else None
        self.failure: KvswarmError | None = None
        """Why the load could not be made."""
        load = start.profile.load
        self.fleet = Fleet(start.profile, start.workers, self._send, self._elapsed_ns, self._note)
        self._load_started_s = self._load_stopped_s = 0.0
        self._all_sent = gevent.event.Event()
        self._ended = "completed"
        self._finishing = False
        self._closed = False
        self.progress = Progress(load)
        self._journal = JournalWriter(start.run.journal)
        self.info = first_info(start, self.run_id)
        start.run.write_info(self.info)
        self._keepers: list[Any] = []
        self._pages: ServerPages | None = None
        self._page_notes: list[str] = []
        self._has_first_page = False

    @property
    def run(self) -> RunDir:
        """The directory of this run."""
        return self._start.run

    @property
    def profile(self) -> Profile:
        """What is run."""
        return self._start.profile

    @property
    def counts(self) -> list[Counts]:
        """Where each worker stands, as far as it has told."""
        return [worker.counts for worker in self.fleet.workers.values()]

    @property
    def lost_workers(self) -> int:
        """Workers that are gone without a last word."""
        return sum(worker.lost for worker in self.fleet.workers.values())

    def _note(self, text: str) -> None:
        logger.warning("%s", text)
        self.info.notes.append(text)

    def _send(self, kind: str, data: dict[str, Any], client: str | None = None) -> None:
        """Send a message that only workers of this run take."""
        self._send_plain(kind, {**data, "run": self.run_id}, client)

    def begin(self) -> None:
        """Hand out the plans; the load starts when every worker has said that it is ready."""
        start = self._start
        self._keepers = [gevent.spawn(self._keep_house), gevent.spawn(self._beat)]
        self._pages = ServerPages(start.metrics, start.run.server_pages)
        gevent.spawn(self._await_first_page, self._pages)
        for client, worker in self.fleet.workers.items():
            self._send_plan(client, worker)

    def _send_plan(self, client: str, worker: WorkerState) -> None:
        start = self._start
        plan = Plan(
            run_id=self.run_id,
            profile=start.profile,
            base_url=str(start.target.base_url),
            model=str(start.target.model),
            api_key_env=start.api_key_env,
            header_names=start.header_names,
            ca_file=start.ca_file,
            insecure=start.insecure,
            gateway=start.gateway,
            shard=worker.shard,
            shards=self.fleet.shards,
            late=worker.late,
            other=other_of(start.interleave),
            trace_prefix=self._trace_prefix,
        )
        self._send("kv_plan", plan.to_message(), client)

    def _await_first_page(self, pages: ServerPages) -> None:
        """What the server counted before the run is not this run's."""
        pages.wait()
        self._page_notes = pages.notes
        self.info.notes += self._page_notes
        self.info.metrics += pages.take_found()
        self._has_first_page = True
        self._start_load()

    def _start_load(self) -> None:
        """Start all workers at one moment, so that their arrivals are those of one schedule."""
        fleet = self.fleet
        waited_for = [w for w in fleet.workers.values() if not w.over and not fleet.may_start(w)]
        if (
            waited_for
            or not self._has_first_page
            or self._finishing
            or self.info.load_started_ns is not None
        ):
            return
        trips_ns = [worker.clock.rtt_ns or 0 for worker in fleet.workers.values()]
        ahead_ns = 0
        if len(trips_ns) > 1 or trips_ns[0] > START_MARGIN_NS:
            ahead_ns = min(START_LIMIT_NS, max(trips_ns) + START_MARGIN_NS)
        self.info.load_started_ns = time.time_ns() + ahead_ns
        self._load_started_s = time.monotonic() + ahead_ns / 1e9
        for client, worker in fleet.workers.items():
            self._start_worker(client, worker)
        self._start.run.write_info(self.info)

    def _start_worker(self, client: str, worker: WorkerState) -> None:
        worker.started = True
        message = {
            "start_ns": (self.info.load_started_ns or 0) + worker.clock.known_ns,
            "turns": msgspec.to_builtins(list(worker.turns.values())),
        }
        self._send("kv_start", message, client)

    def _elapsed_ns(self) -> int | None:
        started_ns = self.info.load_started_ns
        return None if started_ns is None else time.time_ns() - started_ns

    # -- messages of workers -----------------------------------------------------------------

    def on_here(self, client: str) -> None:
        """Send a worker its plan again: it listens only now."""
        worker = self.fleet.workers.get(client)
        if worker is not None and not worker.ready and not worker.over:
            self._send_plan(client, worker)

    def on_ready(self, client: str, _data: dict[str, Any]) -> None:
        """Note that a worker has made its first requests, and ask for its clock."""
        worker = self.fleet.workers.get(client)
        if worker is not None:
            worker.ready = True
            self.fleet.beat_to(client, worker)

    def on_pong(self, client: str, data: dict[str, Any]) -> None:
        """Note what a worker's clock says; the last one to be known starts the load."""
        worker = self.fleet.workers.get(client)
        if worker is None:
            return
        self.fleet.pong(client, data)
        elapsed_ns = self._elapsed_ns()
        if elapsed_ns is None:
            self._start_load()
        elif worker.late and not worker.started and self.fleet.may_start(worker):
            self.fleet.take_over(worker, elapsed_ns)
            self._start_worker(client, worker)

    def on_failed(self, client: str, data: dict[str, Any]) -> None:
        """End the run: a worker cannot make its part of the load."""
        worker = self.fleet.workers.get(client)
        if worker is None or worker.over or self._finishing:
            return
        worker.lost = True
        self._ended = "failed"
        self.failure = KvswarmError(f"worker {worker.shard} could not start: {data['message']}")
        self.failure.exit_code = int(data["exit_code"])
        self.info.notes.append(str(self.failure))
        self._look_for_end()
        self._end_now()

    def on_want(self, client: str, data: dict[str, Any]) -> None:
        """Grant request indices."""
        self.fleet.want(client, data)

    def on_want_seats(self, client: str, data: dict[str, Any]) -> None:
        """Grant seats to users."""
        if client in self.fleet.workers:
            self.fleet.want_seats(client, data)

    def on_seat_back(self, client: str, data: dict[str, Any]) -> None:
        """Take a user's seat back."""
        self.fleet.seats.give_back(client, int(data["number"]))

    def on_records(self, client: str, data: dict[str, Any]) -> None:
        """Write a batch of records into the journal, once, and say so."""
        worker = self.fleet.workers.get(client)
        if worker is None:
            return
        if self._closed:
            logger.error("a batch of %d records came after the end of the run", data["count"])
            return
        number, size_bytes = int(data["number"]), data["size_bytes"]
        if number not in worker.batches:
            blob = data["blob"]
            if size_bytes is not None:
                blob = unsqueezed(blob, size_bytes)
            try:
                self._journal.append(blob)
            except OSError as error:
                # Acknowledged all the same: to keep it would not mend the disk. The verdict
                # compares what workers made with what is in the table.
                self._disk_failed(f"{self._start.run.journal}: {error.strerror}")
            else:
                worker.recorded += int(data["count"])
            worker.batches.add(number)
        self._send("kv_ack", {"number": number}, client)
        self.fleet.begun(client, int(data["begun"]))

    def on_counts(self, client: str, data: dict[str, Any]) -> None:
        """Note where a worker stands."""
        worker = self.fleet.workers.get(client)
        if worker is not None:
            worker.counts = msgspec.convert(data["counts"], Counts)
            self.fleet.begun(client, worker.counts.started)

    def on_all_sent(self, client: str, data: dict[str, Any]) -> None:
        """Note a worker's last word; the last of all ends the run."""
        worker = self.fleet.workers.get(client)
        if worker is None:
            return
        self._send("kv_ack", {"number": None}, client)
        if worker.info is not None:
            return
        info = msgspec.convert(data["info"], WorkerInfo)
        self.info.notes += [note for note in info.notes if note not in self.info.notes]
        self.fleet.last_word(client, info, early=bool(data["early"]))
        self._look_for_end()

    def on_present(self, clients: Collection[str], users: int) -> None:
        """Compare with the workers that are there. `users`: as many as Locust wants now."""
        fleet = self.fleet
        fleet.seats.limit = users
        if self._elapsed_ns() is not None and not self._finishing and not self._load_stopped_s:
            for client in set(clients) - set(fleet.workers):
                if fleet.has_part_for_late():
                    self._send_plan(client, fleet.welcome(client))
        for worker in fleet.present(clients):
            self._start_load()
            if self._start.profile.on_worker_loss == "stop" and not self._finishing:
                self._stop_for(worker)
            self._look_for_end()

    def _stop_for(self, lost: WorkerState) -> None:
        self._ended = "worker_lost"
        self._note(f"stopped, because worker {lost.shard} was lost (on_worker_loss: stop)")
        if self._load_started_s and not self._load_stopped_s:
            self._stop_load()
        else:
            self._end_now()

    def _look_for_end(self) -> None:
        if all(worker.over for worker in self.fleet.workers.values()):
            self._all_sent.set()
            self._end_now()

    def _end_now(self) -> None:
        if not self._finishing:
            self._finishing = True
            gevent.spawn(self._on_over)

    # -- while it runs -----------------------------------------------------------------------

    def _beat(self) -> None:
        while True:
            try:
                self.fleet.beat()
            except Exception:
                logger.exception("a beat failed; the next one comes")
            gevent.sleep(BEAT_S)

    def _keep_house(self) -> None:
        while True:
            gevent.sleep(self._until_stop_s(at_most_s=HOUSEKEEPING_S))
            try:
                self._look_at_the_clock()
                self._check_disk()
                self._note_pods()
                self.progress.show(self.counts)
            except Exception:
                logger.exception("a step of housekeeping failed; the next one tries again")

    def _until_stop_s(self, at_most_s: float) -> float:
        """Time until the load is to stop, where that is known and sooner than `at_most_s`."""
        duration_s = self._start.profile.load.duration_s
        if duration_s is None or not self._load_started_s or self._load_stopped_s:
            return at_most_s
        return max(0.0, min(at_most_s, self._load_started_s + duration_s - time.monotonic()))

    def _look_at_the_clock(self) -> None:
        if self._until_stop_s(at_most_s=HOUSEKEEPING_S) <= 0:
            self._stop_load()
        patience_s = self._start.profile.load.drain_s + LAST_WORDS_S
        if self._load_stopped_s and time.monotonic() - self._load_stopped_s > patience_s:
            self._end_now()  # `finish` says who has not said that all was sent

    def _stop_load(self) -> None:
        self._load_stopped_s = time.monotonic()
        self.info.load_stopped_ns = time.time_ns()
        self._send("kv_finish", {"drain_s": self._start.profile.load.drain_s})
        self._start.run.write_info(self.info)

    def _note_pods(self) -> None:
        """Name the pods that came since the load began among those that are asked for metrics."""
        found = self._pages.take_found() if self._pages is not None else []
        if found:
            self.info.metrics += found
            self._start.run.write_info(self.info)

    def _check_disk(self) -> None:
        try:
            free_bytes = shutil.disk_usage(self._start.run.path).free
        except OSError as error:
            self._disk_failed(f"{self._start.run.path}: {error.strerror}")
            return
        if free_bytes < MIN_FREE_BYTES:
            self._disk_failed(f"{self._start.run.path}: only {free_bytes >> 20} MiB left")

    def _disk_failed(self, detail: str) -> None:
        if self._ended == "disk_full":
            return
        self._ended = "disk_full"
        self.info.notes.append(f"stopped, because the disk is full or gone: {detail}")
        logger.error("stopping, because the disk is full or gone: %s", detail)
        self._end_now()

    # -- the end -----------------------------------------------------------------------------

    def stopped(self, how: str) -> None:
        """Note that the runner stops, and why, unless something ended the run before."""
        if self._ended == "completed" and not self._all_sent.is_set():
            self._ended = how
        self._finishing = True  # to stop it once more would end the process under the first

    def finish(self) -> None:
        """Wait for every worker's last word, then close the files. Twice is once."""
        if self._closed:
            return
        self._finishing = True
        if self.info.load_stopped_ns is None:
            self.info.load_stopped_ns = time.time_ns()
        if not self._all_sent.is_set():
            self._send("kv_finish", {"drain_s": 0.0})
            self._all_sent.wait(LAST_WORDS_S)
        if self._closed:
            return  # somebody else waited, too
        self._closed = True
        gevent.killall(self._keepers)
        if self._pages is not None:
            self._pages.stop()
            self.info.metrics += self._pages.take_found()
            told = [note for note in self.info.notes if note not in self._page_notes]
            self.info.notes = told + self._pages.notes
        self._close_files()
        self.progress.show(self.counts, last=True)

    def _close_files(self) -> None:
        fleet = self.fleet
        self.info.workers = [w.last_info(client) for client, w in fleet.workers.items()]
        self.info.late_workers = fleet.late_unused
        self.info.notes += fleet.last_notes(self.info)
        self.info.ended_ns = time.time_ns()
        self.info.ended = self._ended
        try:
            self._journal.close()
            self._start.run.write_info(self.info)
        except OSError:
            logger.exception("%s: the end of the run could not be written", self._start.run.path)
