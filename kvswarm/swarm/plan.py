"""What the master tells each worker before a run: everything to generate its share of the load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kvswarm.profiles.model import Profile
from kvswarm.rundir import InterleaveInfo
from kvswarm.workload.interleaving import Interleaving, interleaving_as


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """The second target of an interleaved run, which is reached with the headers of the first."""

    base_url: str
    model: str
    interleaving: Interleaving


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's part of one run."""

    run_id: str
    profile: Profile
    base_url: str
    model: str
    api_key_env: str | None
    ca_file: str | None
    insecure: bool
    gateway: str | None = None
    """URL of what connections go to; None: to the host of `base_url`."""
    trace_prefix: str | None = None
    """16 hex digits that begin every trace id of the run; None: requests carry none."""
    shard: int
    """Number of the worker, and which part of the arrivals is its own, from 0."""
    shards: int
    header_names: list[str] = []
    """Headers that the master has: a worker that lacks one would send other requests."""
    other: Other | None = None
    """The target that every other block of requests goes to; None: all go to the first."""
    late: bool = False
    """It came after the start: it has no part of its own, but what others leave to it."""

    def to_message(self) -> dict[str, Any]:
        """Plain data for Locust's messages. Holds no secret: those stay in the environment."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_message(cls, plain: Mapping[str, Any]) -> Plan:
        """Read what `to_message` gave."""
        return msgspec.convert(dict(plain), cls)

    def arm(self, index: int) -> int:
        """Which target request `index` goes to: 0, or 1 for the other."""
        return 0 if self.other is None else self.other.interleaving.arm(index)


def other_of(interleave: InterleaveInfo | None) -> Other | None:
    """What workers must know of the second target."""
    if interleave is None:
        return None
    return Other(
        base_url=str(interleave.target.base_url),
        model=str(interleave.target.model),
        interleaving=interleaving_as(interleave),
    )


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the arrivals, from a moment of the schedule to another (None: to its end)."""

    shard: int
    from_ns: int = 0
    until_ns: int | None = None


class Counts(msgspec.Struct, kw_only=True):
    """Where a worker stands: totals since the start of the run."""

    started: int = 0
    ok: int = 0
    cancelled: int = 0
    in_flight: int = 0
    dropped: int = 0
    """Arrivals that were not made."""
    streaming_events: int = 0
    """Events of streams in flight: what is not in `output_tokens` yet."""
    output_tokens: int = 0
    by_error: dict[str, int] = msgspec.field(default_factory=dict)
    ttft: bytes = b""
    itl: bytes = b""
    tpot: bytes = b""
    e2e: bytes = b""
    read_lag: bytes = b""
    """Packed `sketch.Sketch`es."""
    coalesced: int = 0
    token_events: int = 0
    good: int = 0
    """Requests that met every SLO, and gave valid output where that is checked."""
    checked: int = 0
    """Outputs that were checked."""
    valid: int = 0
    """Those of them that were valid."""
    parts: dict[str, Counts] = msgspec.field(default_factory=dict)
    """Of a mix: the same of each part's ended requests, by scenario."""
