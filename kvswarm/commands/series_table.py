"""A series as a table for a terminal: a line for each run, then effects, reasons and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.effects import effect_text
from kvswarm.analysis.terminal import COLOURS
from kvswarm.commands.series_file import Outcome

COLUMNS: Final = (
    ("TTFT p50", "ttft_p50_ms", "{:.2f}"),
    ("TTFT p99", "ttft_p99_ms", "{:.2f}"),
    ("ITL p99", "itl_p99_ms", "{:.2f}"),
    ("TPOT p50", "tpot_p50_ms", "{:.2f}"),
    ("tokens/s", "output_tokens_per_s", "{:.1f}"),
    ("tokens/event", "tokens_per_event", "{:.2f}"),
    ("accepted", "acceptance_share", "{:.1%}"),
    ("length", "mean_acceptance_length", "{:.2f}"),
)
"""Columns of figures: heading, name in the file, form."""
LEAST_WIDTH: Final = 132
"""Characters that a file has room for, where a terminal may have fewer."""


def wide_console() -> Console:
    """Standard output, wide enough for the table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, LEAST_WIDTH))


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """A line for each run: verdict or status, requests, figures."""
    table = Table("ms", "verdict", "ok", *(heading for heading, _, _ in COLUMNS))
    for column in table.columns[2:]:
        column.justify = "right"
        column.no_wrap = True
    for outcome in outcomes:
        cells = ["-"] * (1 + len(COLUMNS))
        if outcome.figures is not None:
            figures = outcome.figures
            measured = figures.requests_ok + figures.requests_failed
            values = [(getattr(figures, name), form) for _, name, form in COLUMNS]
            cells = [f"{figures.requests_ok}/{measured}"]
            cells += ["-" if value is None else form.format(value) for value, form in values]
        state = outcome.verdict if outcome.status == "done" and outcome.verdict else outcome.status
        colour = COLOURS.get(state, "red" if state == "failed" else "default")
        table.add_row(escape(outcome.text), f"[{colour}]{state}[/]", *cells)
    return table


def lines_of(outcomes: Sequence[Outcome], notes: Sequence[str]) -> Iterator[str]:
    """What the table has no room for: effects, errors, reasons of verdicts, notes."""
    first = outcomes[0]
    for outcome in outcomes:
        if outcome.effects:
            texts = ", ".join(effect_text(effect) for effect in outcome.effects)
            yield f"effect     {outcome.text} against {first.text}: {texts}"
    for outcome in outcomes:
        yield from _troubles(outcome)
    for note in notes:
        yield f"note       {note}"


def _troubles(outcome: Outcome) -> Iterator[str]:
    if outcome.error is not None:
        yield f"failed     {outcome.text} (exit code {outcome.exit_code}): {outcome.error}"
    for reason in outcome.reasons:
        yield f"{outcome.verdict or '':<10} {outcome.text}: {reason}"
