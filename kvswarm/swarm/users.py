"""The Locust user that every profile's user class refines."""

from __future__ import annotations

from typing import Any

import gevent
from locust import User, constant, task
from locust.exception import StopUser
from locust.runners import STATE_RUNNING, STATE_SPAWNING

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
        self._number: int | None = None
        self._leaves = False
        self._generator: Generator = session.generator()
        self._free_ns: int | None = None

    def on_stop(self) -> None:
        """Leave the run; the number is for another user."""
        if self._number is not None:
            self._generator.leave(self._number)
            self._number = None

    def stop(self, force: bool = False) -> bool:  # noqa: FBT001, FBT002 - as Locust calls it
        """End this user; one that is sent away in mid-run may end its request first.

        Locust moves users as workers come and go, and would cut off what is on its way.
        """
        runner: Any = self.environment.runner
        number: int | None = getattr(self, "_number", None)
        goes_on = runner.state in {STATE_RUNNING, STATE_SPAWNING}
        if goes_on and number is not None and self._generator.is_busy(number):
            self._leaves = True
            return False
        stopped: bool = super().stop(force)
        return stopped

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
        if self._number is None:
            self._number = self._generator.join()
        self._free_ns = self._generator.next_request(self._number, self._free_ns)
        if self._leaves:
            raise StopUser
