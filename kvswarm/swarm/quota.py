"""Who takes which request of a closed loop: one quota over all workers, handed out in leases.

The master grants ranges of indices, so that no two requests share one and never more than the
quota are made; a worker asks for more before it runs out.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import gevent.event

ASK_AGAIN_S: Final = 5.0
"""A wish that was not answered for so long may have been lost with a connection."""
FAR_S: Final = 0.02
MAX_GROWTH: Final = 32
"""A worker whose users waited FAR_S or more for a grant asks for more, up to so many times."""


@dataclass
class Grants:
    """The master's side: indices not handed out yet. `limit` None: as many as are asked for."""

    limit: int | None
    gently: int = 0
    """The first so many (the warm-up) go out in small pieces, so that all workers get of them."""
    workers: int = 1
    round: int = sys.maxsize
    """A request for each user of a worker: what one asks for, unless it is far away."""
    granted: int = 0
    returned: deque[tuple[int, int]] = field(default_factory=deque)
    """Ranges that were granted to a worker which is gone and had not begun them."""

    @property
    def used_up(self) -> bool:
        """Nothing is left to hand out."""
        return self.limit is not None and self.granted >= self.limit and not self.returned

    def give_back(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take ranges back: they are granted again before any other."""
        self.returned.extend(ranges)

    def grant(self, wanted: int) -> tuple[int, int]:
        """Hand out up to `wanted` indices: the first, and how many (0: the quota is used up)."""
        if wanted and self.returned:
            first, count = self.returned.popleft()
            if count > wanted:
                self.returned.appendleft((first + wanted, count - wanted))
            return first, min(count, wanted)
        first = self.granted
        count = wanted if self.limit is None else min(wanted, self.limit - first)
        if first < self.gently:
            count = min(count, -(-(self.gently - first) // (2 * self.workers)))
        if self.limit is not None and count > self.round:
            # Smaller towards the end, or one worker would be left with work that all could share.
            # Whole rounds stay whole: each worker's users have the same number of them then.
            count = min(count, max(self.round, -(-(self.limit - first) // (2 * self.workers))))
        self.granted += count
        return first, count


class Leases:
    """The worker's side. `send(wanted)` makes the master call `add`, at once or later."""

    def __init__(self, send: Callable[[int], None], batch: int) -> None:
        self._send = send
        self._batch = max(1, batch)
        self._most = self._batch * MAX_GROWTH
        self._waiting = 0
        self._ranges: deque[tuple[int, int]] = deque()
        self._held = 0
        self.received = 0
        """Grants that have come, so that the master can tell which ones got lost on the way."""
        self._asked_s: float | None = None
        self._over = False
        self._came = gevent.event.Event()

    @property
    def over(self) -> bool:
        """The quota is used up, or the load was stopped."""
        return self._over and not self._held

    def upcoming(self) -> Iterator[int]:
        """The indices that are held, in the order in which they will be taken."""
        for first, count in list(self._ranges):
            yield from range(first, first + count)

    def add(self, first: int, count: int) -> None:
        """Take a grant; an empty one says that there is no more. After `stop` none is taken."""
        asked_s, self._asked_s = self._asked_s, None
        if self._waiting and self._batch < self._most and asked_s is not None:
            is_far = time.monotonic() - asked_s > FAR_S
            self._batch *= 2 if is_far and self.received else 1
        self.received += bool(count)
        if count and not self._over:
            self._ranges.append((first, count))
            self._held += count
        else:
            self._over = True
        self._wake()

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to take, or nothing will come; at most `timeout_s`."""
        if not self._held and not self._over:
            self._came.clear()
            self._came.wait(timeout_s)

    def stop(self) -> None:
        """Hand out nothing from now on."""
        self._over = True
        self._ranges.clear()
        self._held = 0
        self._wake()

    def take(self) -> int | None:
        """Give the next index, waiting for the master where needed; None when it is over."""
        while not self._held:
            if self._over:
                return None
            self._came.clear()
            self.ask()
            if not self._held and not self._over:
                self._waiting += 1
                try:
                    self._came.wait()
                finally:
                    self._waiting -= 1
        first, count = self._ranges.popleft()
        if count > 1:
            self._ranges.appendleft((first + 1, count - 1))
        self._held -= 1
        if self._held < self._batch // 2:
            self.ask()
        return first

    def ask(self) -> None:
        """Ask for more indices, before anybody must wait for one."""
        if self._asked_s is None and not self._over:
            self._asked_s = time.monotonic()
            self._send(self._batch)

    def remind(self) -> None:
        """Ask once more where no answer came for long."""
        if self._asked_s is not None and time.monotonic() - self._asked_s > ASK_AGAIN_S:
            self._asked_s = None
            self.ask()

    def _wake(self) -> None:
        # Set and clear at once would lose waiters that have not run yet: `take` clears.
        self._came.set()
