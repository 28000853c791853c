"""Is the master still there? A worker must not send load that nobody reads.

In:  the master's beats, one a second.
Out: calls of `Listener`, and the end of this process where the master is gone for good.

Counted in turns of this process rather than in time: a process that was stopped for a while and
goes on has not read yet what came meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gevent
from gevent import socket
from locust.env import Environment
from locust.rpc import Message
from locust.runners import WorkerRunner

logger = logging.getLogger(__name__)

BEAT_S: Final = 1.0
ASK_BEATS: Final = 3
"""Missed beats after which the master is asked whether it knows this run: it may be a new one."""
SILENT_BEATS: Final = 8
"""Missed beats after which no new requests are made."""
PROBE_S: Final = 0.5
EXIT_CODE: Final = 1


@dataclass(frozen=True, slots=True)
class Listener:
    """What to do about it."""

    quiet: Callable[[], None]
    """Some beats are missing."""
    back: Callable[[], None]
    """There is one again."""
    silent: Callable[[], None]
    """It is too long: stop the load."""


class Lifeline:
    """Watches one run's master."""

    def __init__(self, environment: Environment, run_id: str, listener: Listener) -> None:
        self._environment = environment
        self._run_id = run_id
        self._listener = listener
        self._missed = 0
        self.gone = False
        """True when the master will not come back: nothing is worth waiting for."""
        self._watcher: Any = None

    def start(self) -> None:
        """Watch, where there is a master in another process."""
        if isinstance(self._environment.runner, WorkerRunner):
            self._watcher = gevent.spawn(self._watch, self._environment.runner)

    def stop(self) -> None:
        """Watch no more."""
        if self._watcher is not None and gevent.getcurrent() is not self._watcher:
            self._watcher.kill(block=False)

    @property
    def silent(self) -> bool:
        """Whether nothing was heard for long."""
        return self._missed >= SILENT_BEATS

    def beat(self) -> None:
        """Note that the master is there."""
        was_missing, self._missed = self._missed, 0
        if was_missing >= ASK_BEATS:
            self._listener.back()

    def _watch(self, runner: WorkerRunner) -> None:
        while not self.gone:
            gevent.sleep(BEAT_S)
            self._missed += 1
            if self._missed == ASK_BEATS:
                self._listener.quiet()
            if self._missed >= ASK_BEATS:
                runner.send_message("kv_hello", {"run": self._run_id})
            if self._missed == SILENT_BEATS:
                logger.error("no word from the master for %d s: stopping the load", SILENT_BEATS)
                self._listener.silent()
            if self._missed >= SILENT_BEATS and _refused(runner):
                self._leave(runner)

    def _leave(self, runner: WorkerRunner) -> None:
        logger.error("the master is gone; what it had acknowledged is in its run directory")
        self.gone = True
        self._environment.process_exit_code = EXIT_CODE
        gevent.spawn(runner.quit)

    def another_master(self) -> None:
        """Leave this run for a master that does not know it, and offer oneself to it."""
        runner: Any = self._environment.runner
        if self.gone or self._missed < ASK_BEATS or not isinstance(runner, WorkerRunner):
            return
        self.gone = True
        logger.warning("there is a new master; what the old one had not acknowledged is lost")
        # As if it had been told to stop: Locust then says that it is ready for another run.
        gevent.spawn(runner.handle_message, Message("stop", None, runner.client_id))


def _refused(runner: WorkerRunner) -> bool:
    """Whether nobody listens where the master was. A network that is cut gives no such answer."""
    try:
        socket.create_connection((runner.master_host, runner.master_port), PROBE_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
