"""Play token events at their times: the engine's steps, or fixed times.

In:  responses and their sequences.  Out: writes on transports, on absolute times without drift.
One timer for all, and one heap or list: not a task per stream.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final

from kvswarm.simulator.engine import Engine, Sequence
from kvswarm.simulator.metrics import Metrics
from kvswarm.simulator.responses import Response

EARLY_S: Final = 0.0002
"""uvloop's timers count in ms: what is due this soon is played now, rather than 1 ms late."""


class ExactPlayer:
    """First token at a fixed time after the request was read, then one at each fixed gap."""

    def __init__(self, ttft_ms: float, itl_ms: float, metrics: Metrics) -> None:
        self._ttft_s = ttft_ms / 1000
        self._itl_s = itl_ms / 1000
        self._metrics = metrics
        self._due: list[tuple[float, int, Response, Sequence]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = float("inf")

    async def play(self, response: Response, sequence: Sequence) -> None:
        """Play one response to its end."""
        # The loop's clock is not CLOCK_REALTIME: only differences go from one to the other.
        since_read_s = (time.time_ns() - response.read_ns) / 1e9
        loop = asyncio.get_running_loop()
        self._push(time.monotonic() - since_read_s + self._ttft_s, response, sequence)
        self._arm(loop)
        self._metrics.exact_streams += 1
        try:
            await response.done.wait()
        finally:
            self._metrics.exact_streams -= 1

    def _push(self, due_s: float, response: Response, sequence: Sequence) -> None:
        self._count += 1
        heapq.heappush(self._due, (due_s, self._count, response, sequence))

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._due:
            return
        due_s = self._due[0][0]
        if self._timer is not None:
            if due_s >= self._timer_s:
                return
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._play_due, loop)

    def catch_up(self) -> None:
        """Play what is due: to be called between requests, of which many may come at once."""
        if self._timer is not None and self._timer_s <= time.monotonic():
            self._timer.cancel()
            self._play_due(asyncio.get_running_loop())

    def _play_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._timer_s = float("inf")
        due = self._due
        now_s = time.monotonic() + EARLY_S
        while due and due[0][0] <= now_s:
            due_s, _, response, sequence = heapq.heappop(due)
            sequence.grow(1)
            if not _put_tokens(response, sequence, 1, self._metrics):
                continue
            if sequence.finish_reason is None:
                self._push(due_s + self._itl_s, response, sequence)
            else:
                _put_end(response, sequence, self._metrics)
        self._arm(loop)


class EnginePlayer:
    """Plays the engine: each step takes its time, and its tokens are written at its end."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._responses: dict[Sequence, Response] = {}
        self._work = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def play(self, response: Response, sequence: Sequence) -> None:
        """Play one response to its end."""
        self._responses[sequence] = response
        self._engine.add(sequence)
        self._work.set()
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._run())
        await response.done.wait()

    def catch_up(self) -> None:
        """Nothing: steps of the engine are few, and their times are its own."""

    async def _run(self) -> None:
        ends_s = time.monotonic()
        while True:
            step = self._engine.step()
            if not step.duration_ms:
                self._work.clear()
                await self._work.wait()
                ends_s = time.monotonic()
                continue
            starts_ns = time.time_ns()
            for sequence in step.admitted:
                response = self._responses[sequence]
                response.admitted_ns = starts_ns
                self._metrics.queue.observe((starts_ns - response.read_ns) / 1e9)
            ends_s += step.duration_ms / 1000
            while (left_s := ends_s - time.monotonic()) > EARLY_S:
                await asyncio.sleep(left_s)  # uvloop may come back half a ms early
            await asyncio.sleep(0)
            for sequence, tokens in zip(step.emitted, step.tokens, strict=True):
                self._put(sequence, tokens)

    def _put(self, sequence: Sequence, tokens: int) -> None:
        response = self._responses[sequence]
        if not _put_tokens(response, sequence, tokens, self._metrics):
            if sequence.finish_reason is None:
                self._engine.drop(sequence)
            del self._responses[sequence]
        elif sequence.finish_reason is not None:
            _put_end(response, sequence, self._metrics)
            del self._responses[sequence]


def _put_tokens(response: Response, sequence: Sequence, count: int, metrics: Metrics) -> bool:
    """Write and count the next tokens; False where the stream is over."""
    before_ns = response.made_ns
    if not response.put_tokens(count, last=sequence.finish_reason is not None):
        return False
    assert response.made_ns is not None  # noqa: S101 - just made
    metrics.tokens(count, response.read_ns, before_ns, response.made_ns)
    return True


def _put_end(response: Response, sequence: Sequence, metrics: Metrics) -> None:
    """Write and count the end of a stream."""
    metrics.finished(response, sequence)
    response.put_end(sequence)
