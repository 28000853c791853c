"""Draw where a run stands: a live table in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kvswarm.swarm.standing import keeps_up

PLAIN_LINE_EVERY_S: Final = 5.0


class View(Protocol):
    """Shows progress lines of `swarm.progress`."""

    def show(self, line: dict[str, Any]) -> None:
        """Show where the run stands."""


class PlainView:
    """One line of text now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def show(self, line: dict[str, Any]) -> None:
        """Print, unless the last line was a moment ago."""
        if line["last"] or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_LINE_EVERY_S
            text = ", ".join(f"{name} {value}" for name, value in _figures(line))
            self._console.print(f"{line['elapsed_s']:6.1f} s: {text}", soft_wrap=True)


class LiveView:
    """A table that is drawn anew."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, line: dict[str, Any]) -> None:
        """Draw the table."""
        table = Table(title=f"{line['elapsed_s']:.0f} s", show_header=False)
        for name, value in _figures(line):
            table.add_row(name, value)
        self._live.update(table, refresh=True)


@contextlib.contextmanager
def view_of(console: Console) -> Iterator[View]:
    """The view that suits the console."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield LiveView(live)


def _figures(line: dict[str, Any]) -> list[tuple[str, str]]:
    quota = f" of {line['requests']}" if line["requests"] else ""
    failed = sum(line["by_error"].values())
    errors = ", ".join(f"{kind} {count}" for kind, count in sorted(line["by_error"].items()))
    return [
        ("requests", f"{line['ok'] + failed}{quota} done, {line['in_flight']} in flight"),
        ("tokens/s", f"{line['output_tokens_per_s']:.0f}"),
        ("TTFT p50/p99", _pair(line, "ttft")),
        ("ITL p50/p99", _pair(line, "itl")),
        ("errors", f"{failed} ({errors})" if failed else "0"),
        ("generator", _generator(line)),
    ]


def _pair(line: dict[str, Any], name: str) -> str:
    values = (line[f"{name}_p50_ms"], line[f"{name}_p99_ms"])
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values) + " ms"


def _generator(line: dict[str, Any]) -> str:
    """The verdict so far, as far as it can be told before the rows are judged."""
    lag_ms = line["read_lag_p99_ms"] or 0.0
    how = "keeping up" if keeps_up(lag_ms, line["coalesced_share"]) else "falling behind"
    return f"{how} (read lag p99 {lag_ms:.1f} ms)"
