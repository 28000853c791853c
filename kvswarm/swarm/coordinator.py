"""The run as a whole: its directory, its quota, its end. Lives in the master or the only process.

In:  `Settings`, and the messages of the workers.
Out: the run directory but for what analysis makes of it; progress lines; the end of the run.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
import gevent.event
import locust
import msgspec

import kvswarm
from kvswarm.errors import KvswarmError
from kvswarm.profiles.model import Profile
from kvswarm.rundir import JournalWriter, MetricsInfo, RunDir, RunInfo, TargetInfo, WorkerInfo
from kvswarm.swarm.plan import Counts, Plan
from kvswarm.swarm.progress import Progress
from kvswarm.swarm.quota import Grants
from kvswarm.swarm.server_pages import ServerPages
from kvswarm.telemetry.sources import Source

logger = logging.getLogger(__name__)

HOUSEKEEPING_S: Final = 0.5
MIN_FREE_BYTES: Final = 64 * 1024 * 1024
LAST_WORDS_S: Final = 30.0
"""How long the master waits at the end for workers to say that all is sent."""
LOST_GRACE_S: Final = 6.0
"""How long a worker may be missing, beyond Locust's 4 s, before it counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What a run begins with, resolved."""

    run: RunDir
    profile: Profile
    target: TargetInfo
    api_key_env: str | None
    ca_file: str | None
    insecure: bool
    traceparent: bool
    argv: list[str]
    workers: list[str]
    """Locust's ids of the workers, in the order of their shards."""
    metrics: tuple[Source, ...]
    """Who is asked for metrics, with the headers of the run where they may go."""


@dataclass
class WorkerState:
    """What the coordinator knows of one worker."""

    shard: int
    counts: Counts = field(default_factory=Counts)
    ready: bool = False
    info: WorkerInfo | None = None
    missing_since_s: float | None = None
    lost: bool = False

    @property
    def over(self) -> bool:
        """Nothing more is expected of it."""
        return self.info is not None or self.lost


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
        self._workers = {client: WorkerState(shard) for shard, client in enumerate(start.workers)}
        load = start.profile.load
        self._grants = Grants(
            None if load.open_loop else load.requests,
            gently=start.profile.warmup.requests or 0,
            workers=len(self._workers),
        )
        self._late: set[str] = set()
        self._load_started_s = self._load_stopped_s = 0.0
        self._records = 0
        self._all_sent = gevent.event.Event()
        self._ended = "completed"
        self._finishing = False
        self._closed = False
        self.progress = Progress(load)
        self._journal = JournalWriter(start.run.journal)
        self.info = self._new_info()
        start.run.write_info(self.info)
        self._keeper: Any = None
        self._pages: ServerPages | None = None
        self._page_notes: list[str] = []
        self._has_first_page = False

    def _new_info(self) -> RunInfo:
        start = self._start
        return RunInfo(
            run_id=self.run_id,
            profile=start.profile.to_dict(),
            seed=start.profile.seed,
            target=start.target,
            metrics=[MetricsInfo(name=s.name, url=s.url, own=s.own) for s in start.metrics],
            argv=start.argv,
            locust_argv=["locust", *sys.argv[1:]],
            versions={
                "kvswarm": kvswarm.__version__,
                "locust": locust.__version__,
                "python": platform.python_version(),
                "server": start.target.server_version or "unknown",
            },
            host={"name": platform.node(), "system": platform.platform(), "cpus": _cpus()},
            started_ns=time.time_ns(),
        )

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
        return [worker.counts for worker in self._workers.values()]

    @property
    def lost_workers(self) -> int:
        """Workers that are gone without a last word."""
        return sum(worker.lost for worker in self._workers.values())

    def _send(self, kind: str, data: dict[str, Any], client: str | None = None) -> None:
        """Send a message that only workers of this run take."""
        self._send_plain(kind, {**data, "run": self.run_id}, client)

    def begin(self) -> None:
        """Hand out the plans; the load starts when every worker has said that it is ready."""
        start = self._start
        self._keeper = gevent.spawn(self._keep_house)
        self._pages = ServerPages(start.metrics, start.run.server_pages)
        gevent.spawn(self._await_first_page, self._pages)
        for client, worker in self._workers.items():
            plan = Plan(
                run_id=self.run_id,
                profile=start.profile,
                base_url=start.target.base_url,
                model=start.target.model,
                api_key_env=start.api_key_env,
                ca_file=start.ca_file,
                insecure=start.insecure,
                shard=worker.shard,
                shards=len(self._workers),
                trace_prefix=self._trace_prefix,
            )
            self._send("kv_plan", plan.to_message(), client)

    def _await_first_page(self, pages: ServerPages) -> None:
        """What the server counted before the run is not this run's."""
        pages.wait()
        self._page_notes = pages.notes
        self.info.notes += self._page_notes
        self._has_first_page = True
        self._start_load()

    def _start_load(self) -> None:
        """Start all workers at once, so that their arrivals are those of one schedule."""
        waited_for = [w for w in self._workers.values() if not w.ready and not w.over]
        if (
            waited_for
            or not self._has_first_page
            or self._finishing
            or self.info.load_started_ns is not None
        ):
            return
        self.info.load_started_ns = time.time_ns()
        self._load_started_s = time.monotonic()
        for client in self._workers:
            self._send("kv_start", {}, client)
        self._start.run.write_info(self.info)

    # -- messages of workers -----------------------------------------------------------------

    def on_ready(self, client: str, _data: dict[str, Any]) -> None:
        """Note that a worker has made its first requests; the last one starts the load."""
        if client in self._workers:
            self._workers[client].ready = True
            self._start_load()

    def on_failed(self, client: str, data: dict[str, Any]) -> None:
        """End the run: a worker cannot make its part of the load."""
        if client not in self._workers or self._workers[client].over or self._finishing:
            return
        worker = self._workers[client]
        worker.lost = True
        self._ended = "failed"
        self.failure = KvswarmError(f"worker {worker.shard} could not start: {data['message']}")
        self.failure.exit_code = int(data["exit_code"])
        self.info.notes.append(str(self.failure))
        self._look_for_end()
        self._end_now()

    def on_want(self, client: str, data: dict[str, Any]) -> None:
        """Grant request indices."""
        first, count = self._grants.grant(0 if self._finishing else int(data["wanted"]))
        self._send("kv_lease", {"first": first, "count": count}, client)
        if self._grants.used_up:  # a process without a user never asks
            self._send("kv_lease", {"first": first, "count": 0})

    def on_records(self, _client: str, data: dict[str, Any]) -> None:
        """Write a batch of records into the journal."""
        if self._closed:
            logger.error("a batch of %d records came after the end of the run", data["count"])
            return
        try:
            self._journal.append(data["blob"])
        except OSError as error:
            self._disk_failed(f"{self._start.run.journal}: {error.strerror}")
            return
        self._records += int(data["count"])

    def on_counts(self, client: str, data: dict[str, Any]) -> None:
        """Note where a worker stands."""
        if client in self._workers:
            self._workers[client].counts = msgspec.convert(data["counts"], Counts)

    def on_all_sent(self, client: str, data: dict[str, Any]) -> None:
        """Note a worker's last word; the last of all ends the run."""
        worker = self._workers.get(client)
        if worker is None:
            return
        worker.info = msgspec.convert(data["info"], WorkerInfo)
        self.info.notes += [note for note in worker.info.notes if note not in self.info.notes]
        self._look_for_end()

    def on_present(self, clients: Collection[str]) -> None:
        """Compare with the workers that are there: what one that is gone had not sent is lost."""
        now_s = time.monotonic()
        for client, worker in self._workers.items():
            if client in clients:
                worker.missing_since_s = None
                if worker.lost and self.failure is None:
                    worker.lost = False
                    self.info.notes.append(f"worker {worker.shard} came back")
            elif not worker.over:
                worker.missing_since_s = worker.missing_since_s or now_s
                if now_s - worker.missing_since_s >= LOST_GRACE_S:
                    worker.lost = True
                    self.info.notes.append(f"worker {worker.shard} was lost")
                    self._start_load()
                    self._look_for_end()
        for client in set(clients) - set(self._workers) - self._late:
            self._late.add(client)
            self.info.late_workers += 1

    def _look_for_end(self) -> None:
        if all(worker.over for worker in self._workers.values()):
            self._all_sent.set()
            self._end_now()

    def _end_now(self) -> None:
        if not self._finishing:
            self._finishing = True
            gevent.spawn(self._on_over)

    # -- while it runs -----------------------------------------------------------------------

    def _keep_house(self) -> None:
        while True:
            gevent.sleep(self._until_stop_s(at_most_s=HOUSEKEEPING_S))
            try:
                self._look_at_the_clock()
                self._check_disk()
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
        if self._keeper is not None:
            self._keeper.kill()
        if self._pages is not None:
            self._pages.stop()
            told = [note for note in self.info.notes if note not in self._page_notes]
            self.info.notes = told + self._pages.notes
        self._close_files()
        self.progress.show(self.counts, last=True)

    def _close_files(self) -> None:
        for client, worker in self._workers.items():
            lost = WorkerInfo(worker=worker.shard, host=client, pid=0, lost=True)
            self.info.workers.append(worker.info or lost)
        self.info.ended_ns = time.time_ns()
        self.info.ended = self._ended
        try:
            self._journal.close()
            self._start.run.write_info(self.info)
        except OSError:
            logger.exception("%s: the end of the run could not be written", self._start.run.path)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
