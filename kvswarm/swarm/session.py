"""What makes a Locust process a kvswarm process: options, messages, the start and end of runs.

A locustfile calls `attach(profile)`; the rest happens in Locust's own events. The master (or the
only process) has a `Coordinator` per run, each worker (or the only process) a `Generator`.
Locust swallows what a listener raises, so the listeners here catch their own and end the run.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import gevent
import gevent.event
import msgspec
from locust import events as locust_events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner, WorkerRunner

from kvswarm.errors import KvswarmError
from kvswarm.profiles.load import packaged_names
from kvswarm.rundir import RunDir, WorkerInfo
from kvswarm.swarm.coordinator import Coordinator
from kvswarm.swarm.generator import Generator
from kvswarm.swarm.options import (
    Choices,
    add_options,
    locust_users,
    metrics_address,
)
from kvswarm.swarm.plan import Plan, Turn
from kvswarm.swarm.progress import PROGRESS_FD_ENV
from kvswarm.swarm.prometheus import LiveMetrics
from kvswarm.swarm.statistics import write_csv
from kvswarm.swarm.web.pages import Pages, open_pages
from kvswarm.swarm.wishes import Wishes

logger = logging.getLogger(__name__)

COORDINATORS: Final = (
    "ready", "failed", "want", "want_seats", "seat_back", "records", "counts", "pong", "all_sent",
)  # fmt: skip
"""Messages of workers, each a method `on_NAME` of the coordinator."""
GENERATORS: Final[dict[str, Callable[[Generator, dict[str, Any]], None]]] = {
    "lease": lambda load, data: load.add_lease(data["number"], data["first"], data["count"]),
    "seats": lambda load, data: load.add_seats([(n, turn) for n, turn in data["seats"]]),
    "ack": lambda load, data: load.acknowledged(data["number"]),
    "alive": lambda load, data: load.alive(data),
    "foreign": lambda load, _data: load.foreign(),
}
"""Messages of the master to the load of its run."""
REPORT_TIMEOUT_S: Final = 1800.0
WATCH_WORKERS_S: Final = 0.5


def attach(profile: str) -> None:
    """Make this locustfile a kvswarm one; `profile` is the default of --kv-profile."""

    profiles = Choices()

    def on_parser(parser: LocustArgumentParser) -> None:
        if not profiles:
            profiles.extend(packaged_names())
        add_options(parser, profile, profiles)

    def on_init(environment: Environment, **_: Any) -> None:
        given: Any = environment.parsed_options
        if given.kv_profile not in packaged_names():
            profiles.insert(0, given.kv_profile)
        environment.kvswarm = Session(environment)  # type: ignore[attr-defined]

    locust_events.init_command_line_parser.add_listener(on_parser)
    locust_events.init.add_listener(on_init)


class Session:
    """kvswarm in one Locust process, over as many runs as are started in it."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._coordinator: Coordinator | None = None
        self._generator: Generator | None = None
        self._plan: Plan | None = None
        self._preparing: Any = None
        self._ready = gevent.event.Event()
        # The web UI's start form writes into the parsed options, also what it does not show.
        self._options_at_start = dict(vars(environment.parsed_options))
        self._wishes = Wishes(environment, self._options_at_start)
        self._runs = 0
        self._web: Pages | None = None
        self._unserved: KvswarmError | None = None
        self._register()
        events = environment.events
        events.test_stop.add_listener(self._on_test_stop)
        if not isinstance(environment.runner, WorkerRunner):
            events.test_start.add_listener(self._on_test_start)
            events.test_stopping.add_listener(self._on_test_stopping)
            # At SIGTERM, Locust takes the exit code before it stops the test.
            events.quitting.add_listener(self._on_quitting)
            self._web = self._open_web()
            self._set_defaults()
            self._live = self._serve_metrics()
            # Locust closes its files after its last event, so that only this is late enough.
            atexit.register(write_csv, environment)

    def _open_web(self) -> Pages | None:
        """Add to the web UI, where there is one."""
        if self._environment.web_ui is None:
            return None
        try:
            return open_pages(self._environment, self._options_at_start, self._wanted_users)
        except KvswarmError as error:
            self._say(error)
            sys.exit(error.exit_code)

    def _wanted_users(self) -> int:
        """How many users the profile of the options wants, of the processes that are there."""
        workers = getattr(self._environment.runner, "worker_count", 1)
        return locust_users(self._wishes.profile().load, max(1, workers))

    # -- wiring ------------------------------------------------------------------------------

    def _register(self) -> None:
        runner: Any = self._environment.runner
        if isinstance(runner, MasterRunner | LocalRunner):
            for name in COORDINATORS:
                runner.register_message(f"kv_{name}", self._for_coordinator(f"on_{name}"))
            runner.register_message("kv_hello", self._on_hello)
            runner.register_message("kv_here", self._on_here)
        if isinstance(runner, WorkerRunner | LocalRunner):
            runner.register_message("kv_plan", self._on_plan)
            runner.register_message("kv_start", self._for_generator(self._on_start))
            runner.register_message("kv_finish", self._for_generator(self._on_finish))
            for name, take in GENERATORS.items():
                runner.register_message(f"kv_{name}", self._for_generator(self._with_load(take)))
            runner.register_message("kv_idle", self._on_idle)
        if isinstance(runner, WorkerRunner):
            # Locust is connected before its first event, and drops what came until now.
            self._send("kv_here", {})

    def _for_coordinator(self, method: str) -> Any:
        """Hand over messages of the current run; a worker may be late with those of another."""

        def listener(environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG001
            coordinator = self._coordinator
            if coordinator is not None and msg.data["run"] == coordinator.run_id:
                getattr(coordinator, method)(msg.node_id, msg.data)

        return listener

    def _for_generator(self, take: Callable[[dict[str, Any]], None]) -> Any:
        """The same on a worker's side."""

        def listener(environment: Environment, msg: Any, **_: Any) -> None:  # noqa: ARG001
            if self._plan is not None and msg.data["run"] == self._plan.run_id:
                take(msg.data)

        return listener

    def _with_load(self, take: Callable[[Generator, dict[str, Any]], None]) -> Any:
        def listener(data: dict[str, Any]) -> None:
            if self._generator is not None:
                take(self._generator, data)

        return listener

    def _on_hello(self, msg: Any, **_: Any) -> None:
        """A worker hears nothing of its run: tell it where that is not a run of ours."""
        coordinator = self._coordinator
        if coordinator is None or msg.data["run"] != coordinator.run_id:
            self._send("kv_foreign", msg.data, msg.node_id)

    def _on_here(self, msg: Any, **_: Any) -> None:
        """A worker can take messages from now on; what was sent to it before may be lost."""
        if self._coordinator is not None:
            self._coordinator.on_here(msg.node_id)

    def _on_idle(self, **_: Any) -> None:
        logger.info("the run that goes on has no part for this worker: it came after the start")

    def _send(self, kind: str, data: Any, client: str | None = None) -> None:
        runner: Any = self._environment.runner
        runner.send_message(kind, data, client)

    def _set_defaults(self) -> None:
        """Fill Locust's number of users from the profile, where nobody gave one."""
        options: Any = self._environment.parsed_options
        # Users of a worker that is lost move at once, not after a minute; and while Locust waits
        # for their reports (1 s), it hands over no message.
        options.enable_rebalancing = True
        os.environ.setdefault("LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP", "0.1")
        try:
            profile = self._wishes.profile()
        except KvswarmError as error:
            if isinstance(self._environment.runner, MasterRunner):
                return  # its workers must be told to leave: when they have come, at the start
            self._say(error)
            sys.exit(error.exit_code)
        load = profile.load
        workers = int(getattr(options, "expect_workers", 1) or 1)
        if options.num_users is None and self._web is not None:
            self._web.form.offer(locust_users(load, workers))
        options.num_users = options.num_users or locust_users(load, workers)
        options.spawn_rate = options.spawn_rate or options.num_users
        if self._environment.web_ui is not None:
            arguments = self._environment.web_ui.template_args
            arguments.update(num_users=options.num_users, spawn_rate=options.spawn_rate)

    def _serve_metrics(self) -> LiveMetrics:
        """Tell Prometheus where the runs stand."""
        live = LiveMetrics(self._environment)
        try:
            if (address := metrics_address(self._wishes.values())) is not None:
                live.listen(address)
        except KvswarmError as error:
            if not isinstance(self._environment.runner, MasterRunner):
                self._say(error)
                sys.exit(error.exit_code)
            # As with a wrong profile, workers must be told to leave: when they have come.
            logger.error("%s", error)  # noqa: TRY400 - a person's mistake has no traceback
            self._unserved = error
        return live

    # -- master or only process --------------------------------------------------------------

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        self._environment = environment
        self._ready.clear()
        try:
            if self._unserved is not None:
                raise self._unserved  # noqa: TRY301 - told below, as all that keeps a run back
            start = self._wishes.start(first=self._runs == 0)
            self._runs += 1
            self._coordinator = Coordinator(start, self._send, self._leave)
            self._live.follow(self._coordinator)
            self._coordinator.begin()
            if self._web is not None:
                self._web.watches.began(self._coordinator)
            gevent.spawn(self._watch_workers, self._coordinator)
        except KvswarmError as error:
            self._give_up(error)
        except Exception:
            logger.exception("kvswarm could not start the run")
            environment.process_exit_code = 1
            gevent.spawn(self._leave)

    def _watch_workers(self, coordinator: Coordinator) -> None:
        """Tell the coordinator which workers are there: Locust has no event for a lost one."""
        runner: Any = self._environment.runner
        while self._coordinator is coordinator:
            present = {"local"}
            if isinstance(runner, MasterRunner):
                present = {c.id for c in runner.clients.all if c.state != STATE_MISSING}
            coordinator.on_present(present, runner.target_user_count)
            gevent.sleep(WATCH_WORKERS_S)

    def _give_up(self, error: KvswarmError) -> None:
        self._say(error)
        if self._web is not None:
            self._web.watches.refused(str(error))
        gevent.spawn(self._leave)

    def _say(self, error: KvswarmError) -> None:
        logger.error("%s", error)
        print(f"kvswarm: {error}", file=sys.stderr)  # noqa: T201 - the person's answer
        self._environment.process_exit_code = error.exit_code

    def _leave(self) -> None:
        """End the run, and without a web UI, which can start another, the process."""
        runner: Any = self._environment.runner
        if self._environment.web_ui is None:
            runner.quit()
        else:
            runner.stop()

    def _on_test_stopping(self, **_: Any) -> None:
        if self._coordinator is not None:
            self._coordinator.stopped("stopped")

    def _on_quitting(self, **_: Any) -> None:
        self._on_test_stopping()
        self._on_test_stop()

    def _on_test_stop(self, **_: Any) -> None:
        try:
            generator, coordinator = self._generator, self._coordinator
            if self._plan is not None:
                self._finish(0.0)
            self._ready.clear()
            if generator is self._generator and coordinator is not None:
                # A worker's must still hear what the master has of it.
                self._generator = self._plan = None
            if coordinator is not None:
                # Workers' messages must find it while it waits for them.
                coordinator.finish()
                if coordinator is self._coordinator:
                    self._coordinator = None
                    self._conclude(coordinator)
        except Exception:
            logger.exception("kvswarm could not end the run; `kvswarm report DIR` can")
            self._environment.process_exit_code = 1

    def _conclude(self, coordinator: Coordinator) -> None:
        """Report on the run, and let the web UI know when all files are there."""
        if self._web is None:
            self._report(coordinator)
            return
        self._web.watches.stopped(coordinator.run_id)
        try:
            self._report(coordinator)
        finally:
            failure = coordinator.failure
            self._web.watches.ended(coordinator.run_id, str(failure) if failure else None)

    def _report(self, coordinator: Coordinator) -> None:
        """Have the figures made, where no `kvswarm run` above does it."""
        if coordinator.failure is not None:
            self._say(coordinator.failure)
            return
        if PROGRESS_FD_ENV in os.environ:
            return
        path = coordinator.run.path
        command = [sys.executable, "-m", "kvswarm", "report", str(path)]
        try:
            done = subprocess.run(command, check=False, timeout=REPORT_TIMEOUT_S)  # noqa: S603
        except subprocess.TimeoutExpired:
            logger.exception("`kvswarm report %s` did not end", path)
            self._environment.process_exit_code = 1
        else:
            # Also where it is 0: Locust would say 1 for a single failed request, gate or no gate.
            self._environment.process_exit_code = done.returncode

    # -- worker or only process --------------------------------------------------------------

    def _on_plan(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._environment = environment
        plan = Plan.from_message(msg.data)
        if self._plan is not None and self._plan.run_id == plan.run_id:
            return  # it was sent again, for fear that it had been lost
        if self._generator is not None:  # the end of the run before was never said
            gevent.spawn(self._generator.finish)
            self._generator = None
        self._ready.clear()
        self._plan = plan
        # Not here: while a listener waits, Locust hands over no other message.
        self._preparing = gevent.spawn(self._prepare, self._plan)

    def _prepare(self, plan: Plan) -> None:
        """Make this process ready for its part of the load, or say why it cannot be."""
        to_master = self._to_master(plan)
        try:
            self._generator = Generator(self._environment, plan, to_master)
            self._generator.prepare()
        except KvswarmError as error:
            logger.error("%s", error)  # noqa: TRY400 - a person's mistake has no traceback
            to_master("kv_failed", {"message": str(error), "exit_code": error.exit_code})
        except Exception as error:
            logger.exception("this process cannot make its part of the load")
            to_master("kv_failed", {"message": repr(error), "exit_code": 1})
        else:
            logger.info("shard %d of %d is ready", plan.shard + 1, plan.shards)
            to_master("kv_ready", {})

    def _to_master(self, plan: Plan) -> Callable[[str, dict[str, Any]], None]:
        """Give what sends messages of this plan's run to the master."""
        return lambda kind, data: self._send(kind, {**data, "run": plan.run_id})

    def _on_start(self, data: dict[str, Any]) -> None:
        if self._generator is not None:
            gevent.spawn(self._begin, self._generator, data)

    def _begin(self, generator: Generator, data: dict[str, Any]) -> None:
        generator.begin(int(data["start_ns"]), msgspec.convert(data["turns"], list[Turn]))
        if generator is self._generator:
            self._ready.set()

    def _on_finish(self, data: dict[str, Any]) -> None:
        gevent.spawn(self._finish, float(data["drain_s"]))

    def _finish(self, drain_s: float) -> None:
        """End this process's part of the load, begun or not."""
        if self._preparing is not None and not self._preparing.dead:
            self._preparing.kill()
        if self._generator is not None:
            self._generator.finish(drain_s)
        elif self._plan is not None:
            nothing = WorkerInfo(
                worker=self._plan.shard, host=socket.gethostname(), pid=os.getpid()
            )
            message = {"info": msgspec.to_builtins(nothing), "early": False}
            self._to_master(self._plan)("kv_all_sent", message)

    def generator(self) -> Generator:
        """The load of the current run; waits until the plan has come."""
        while self._generator is None or not self._ready.is_set():
            self._ready.wait()
        return self._generator

    @property
    def run(self) -> RunDir | None:
        """The directory of the current run, in the master."""
        return self._coordinator.run if self._coordinator is not None else None
