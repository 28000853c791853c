"""Requests made before they are wanted, so that making them is not in the users' way.

In:  the workload, and which indices come next.
Out: `take(index)`: the request and its bytes, from the stock or made now.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Final

from kvswarm.stream.target import Target, check_untraced, request_bytes
from kvswarm.swarm.plan import Plan
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.workload import Requests

MAX_REQUESTS: Final = 1024
MAX_BYTES: Final = 16 * 1024 * 1024
SLICE_NS: Final = 1_000_000
PATHS: Final = {"chat": "/chat/completions", "completions": "/completions"}


class Stock:
    """Ready requests by index. Raises UsageError where the target's headers are of no use."""

    def __init__(
        self,
        plan: Plan,
        workload: Requests,
        targets: tuple[Target, ...],
        upcoming: Callable[[], Iterable[int]],
    ) -> None:
        if plan.trace_prefix is not None:
            check_untraced(targets[0].headers)
        self._plan = plan
        self._workload = workload
        self._heads = [
            {endpoint: target.head_bytes(path) for endpoint, path in PATHS.items()}
            for target in targets
        ]
        self._models = [plan.model] if plan.other is None else [plan.model, plan.other.model]
        self._upcoming = upcoming
        self._ready: dict[int, tuple[LLMRequest, bytes]] = {}
        self._bytes = 0

    def take(self, index: int) -> tuple[LLMRequest, bytes]:
        """Give request `index` and its bytes."""
        return self.forget(index) or self._make(index)

    def forget(self, index: int) -> tuple[LLMRequest, bytes] | None:
        """Keep request `index` no longer, whether it is wanted or not; give it if it was there."""
        ready = self._ready.pop(index, None)
        if ready is not None:
            self._bytes -= len(ready[1])
        return ready

    def fill(self) -> bool:
        """Make requests for a moment; True where more are wanted."""
        end_ns = time.monotonic_ns() + SLICE_NS
        for index in itertools.islice(self._upcoming(), MAX_REQUESTS):
            if index in self._ready:
                continue
            if self._bytes > MAX_BYTES:
                return False
            if time.monotonic_ns() > end_ns:
                return True
            self._ready[index] = self._make(index)
            self._bytes += len(self._ready[index][1])
        return False

    def _make(self, index: int) -> tuple[LLMRequest, bytes]:
        request = self._workload.request(index)
        return request, self.encoded(request)

    def encoded(self, request: LLMRequest) -> bytes:
        """Give a request as the bytes that are sent."""
        arm = self._plan.arm(request.index)
        body = request.encoded(self._models[arm])
        head = self._heads[arm][request.endpoint]
        request_id = f"{self._plan.run_id}-{request.index}"
        return request_bytes(head, body, request_id, self.trace_id(request.index))

    def trace_id(self, index: int) -> str | None:
        """Give the trace of request `index`: the run's own random half, then the index."""
        prefix = self._plan.trace_prefix
        return None if prefix is None else f"{prefix}{index:016x}"
