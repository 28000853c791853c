"""What becomes of each record in the process that made it: judged, shown, told, shipped.

In:  records as the stream's decoder makes them, once per request.
Out: batches for the master (`shipping.py`), rows in Locust's table, calls of listeners.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
import msgspec
from locust.env import Environment
from locust.exception import StopTest

from kvswarm.profiles.model import Profile
from kvswarm.records import Record
from kvswarm.stream.client import StreamClient
from kvswarm.stream.exchange import Exchange
from kvswarm.stream.outcome import Ask
from kvswarm.swarm import events
from kvswarm.swarm.judging import judged
from kvswarm.swarm.secrets import Mask
from kvswarm.swarm.shipping import Shipping
from kvswarm.swarm.standing import Standing
from kvswarm.swarm.statistics import Rows
from kvswarm.workload.requests import Expectation

logger = logging.getLogger(__name__)


class Recorder:
    """Takes the records of one process."""

    def __init__(
        self, environment: Environment, profile: Profile, mask: Mask, shipping: Shipping
    ) -> None:
        self._environment = environment
        self._mask = mask
        self._shipping = shipping
        self._standing = Standing(profile)
        self._rows = Rows(environment)
        self._fresh: list[Record] = []
        self._expectations: dict[int, Expectation] = {}
        self.counts = self._standing.counts
        self.made = 0
        self.failed_listeners = 0

    def listen(self, client: StreamClient) -> None:
        """Have what goes on within requests told to those who listen for it."""
        if events.has_listeners(events.request_sent):
            client.listen_sent(self._tell_sent)
        if events.has_listeners(events.first_token):
            client.listen_first_token(self._tell_first_token)

    def expect(self, index: int, expectation: Expectation | None) -> None:
        """Note what the answer to a request is to be judged by."""
        if expectation is not None:
            self._expectations[index] = expectation

    def take(self, record: Record, exchange: Exchange | None) -> None:
        """Keep a record. Called once per request, by the decoder."""
        if record.error_detail is not None:
            masked = self._mask(record.error_detail)
            record = msgspec.structs.replace(record, error_detail=masked)
        expectation = self._expectations.pop(record.index, None)
        if expectation is not None and record.ok and exchange is not None:
            record = judged(record, expectation, exchange.meaning)
        self.made += 1
        is_full = self._shipping.add(record)
        self._fresh.append(record)
        try:
            self._show(record, exchange)
        except StopTest:
            gevent.spawn(self._environment.runner.quit)  # type: ignore[union-attr]
        except Exception:  # what a listener raises must cost neither this record nor later ones
            self.failed_listeners += 1
            logger.exception("a listener of Locust's request event failed")
        if is_full:
            self._shipping.ship()
            self.count_fresh()

    def count_fresh(self) -> None:
        """Bring the live figures up to date."""
        fresh, self._fresh = self._fresh, []
        if fresh:
            self._standing.add(fresh)
            self._rows.flush()

    def packed(self) -> dict[str, Any]:
        """Where this process stands, as plain data for a message."""
        return self._standing.packed()

    def _show(self, record: Record, exchange: Exchange | None) -> None:
        """Put a record before Locust and whoever listens."""
        self._rows.add(record)
        if events.has_listeners(events.stream_end):
            meaning = exchange.meaning if exchange is not None else None
            self._tell(
                events.stream_end,
                record,
                text="".join(meaning.text) if meaning else "",
                reasoning="".join(meaning.reasoning_text) if meaning else "",
                tool_calls=meaning.tool_calls if meaning else [],
            )

    def _tell_sent(self, ask: Ask, sent_ns: int) -> None:
        self._tell(events.request_sent, _partial(ask, sent_ns=sent_ns))

    def _tell_first_token(self, ask: Ask, first_token_ns: int) -> None:
        self._tell(events.first_token, _partial(ask, first_token_ns=first_token_ns))

    def _tell(self, hook: Any, record: Record, **details: Any) -> None:
        self.failed_listeners += events.fire(hook, record=record, **details)


def _partial(ask: Ask, **moments: int) -> Record:
    """The record of a request that goes on, for listeners."""
    return Record(**{name: getattr(ask, name) for name in Ask.__slots__}, **moments)  # type: ignore[arg-type]
