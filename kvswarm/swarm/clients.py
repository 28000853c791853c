"""The clients of one process: one, or one for each target of an interleaved run.

In:  requests with their index.  Out: the same as of a `StreamClient`, over all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from kvswarm.records import Record
from kvswarm.stream.client import Deadlines, StreamClient
from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Exchange
from kvswarm.stream.outcome import Ask
from kvswarm.stream.target import Target


class Clients:
    """A `StreamClient` for each target; `arm_of` tells which one an index goes to."""

    def __init__(
        self,
        targets: tuple[Target, ...],
        deadlines: Deadlines,
        on_record: Callable[[Record, Exchange | None], None],
        arm_of: Callable[[int], int],
    ) -> None:
        self.all = tuple(StreamClient(target, deadlines, on_record) for target in targets)
        self._arm_of = arm_of

    def perform(self, ask: Ask, request: bytes) -> Exchange | None:
        """See `StreamClient.perform`."""
        return self.all[self._arm_of(ask.index)].perform(ask, request)

    def meaning_of(self, exchange: Exchange) -> Meaning | None:
        """See `StreamClient.meaning_of`."""
        return self.all[0].meaning_of(exchange)

    def breathe(self) -> None:
        """Read what has come, if it is time."""
        for client in self.all:
            client.breathe()

    def cancel_all(self) -> None:
        """End every request in flight as `cancelled`."""
        for client in self.all:
            client.cancel_all()

    def decode_rest(self) -> None:
        """Decode all that waits for it."""
        for client in self.all:
            client.decode_rest()

    def close(self) -> None:
        """Decode what is left, then close every connection."""
        for client in self.all:
            client.close()

    @property
    def in_flight(self) -> int:
        """Requests that are on their way."""
        return sum(client.in_flight for client in self.all)

    @property
    def token_events(self) -> int:
        """Token-bearing events of ended requests."""
        return sum(client.token_events for client in self.all)

    @property
    def streaming_events(self) -> int:
        """Events that streams in flight have brought, about."""
        return sum(client.streaming_events for client in self.all)

    @property
    def undecoded(self) -> int:
        """Exchanges that wait for a decoder."""
        return sum(client.undecoded for client in self.all)
