"""The Locust user that every profile's user class refines."""

from __future__ import annotations

from typing import Any

import gevent
from locust import User, constant, task

from kvswarm.swarm.generator import Generator


class LLMUser(User):
    """One user of a closed loop. In an open loop requests come without users: it only waits.

    Set `wait_time` for think time between a closed loop's requests.
    """

    abstract = True
    wait_time = constant(0)

    def on_start(self) -> None:
        """Join the run."""
        session: Any = self.environment.kvswarm
        self._generator: Generator = session.generator()
        self._number = self._generator.join()
        self._free_ns: int | None = None

    def wait(self) -> None:
        """Think; the time counts into when the next request was intended."""
        think_s = self.wait_time()
        if think_s > 0:
            gevent.sleep(think_s)
            if self._free_ns is not None:
                self._free_ns += int(think_s * 1e9)

    @task
    def request(self) -> None:
        """Make the next request."""
        self._free_ns = self._generator.next_request(self._number, self._free_ns)
