"""Streaming events that a user's own code can listen to, as Locust EventHooks.

    from kvswarm.swarm import events

    @events.first_token.add_listener
    def on_first_token(record, **kwargs): ...

Each hands over `record` (kvswarm.records.Record) by keyword: in `request_sent` with `sent_ns` as
the newest moment, in `first_token` with `first_token_ns`, in `stream_end` whole. `stream_end` also
has `text` (the answer), `reasoning` and `tool_calls` (fragments, in order).
A listener that raises is counted in run.json; it costs neither the record nor the run.
"""

from __future__ import annotations

from typing import Any

from locust.event import EventHook

request_sent = EventHook()
first_token = EventHook()
stream_end = EventHook()


def has_listeners(hook: EventHook) -> bool:
    """Tell whether anybody listens: records are made for them only then."""
    return bool(hook._handlers)  # noqa: SLF001 - Locust has no public way to ask


def fire(hook: EventHook, **details: Any) -> int:
    """Call every listener; give the number that raised. EventHook.fire would only log them."""
    failed = 0
    for listener in list(hook._handlers):  # noqa: SLF001 - see above
        try:
            listener(**details)
        except Exception:  # noqa: BLE001 - foreign code; counted in run.json
            failed += 1
    return failed
