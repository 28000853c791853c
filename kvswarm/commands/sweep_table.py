"""A sweep as a table for a terminal: a line for each value, then effects, reasons and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.effects import effect_text
from kvswarm.analysis.terminal import COLOURS
from kvswarm.commands.sweep_file import Sweep, ValueRun
from kvswarm.commands.swept import SWEEP_FILE

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
"""Columns of figures: heading, name in sweep.json, form."""
LEAST_WIDTH: Final = 132
"""Characters that a file has room for, where a terminal may have fewer."""


def render(sweep: Sweep, folder: Path) -> None:
    """Print a sweep to standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, LEAST_WIDTH))
    console.print(escape(f"{sweep.profile}: {sweep.key}"), style="bold", soft_wrap=True)
    console.print(_table(sweep))
    for line in _lines(sweep):
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"Sweep: {folder / SWEEP_FILE}", soft_wrap=True, highlight=False, markup=False)


def _table(sweep: Sweep) -> Table:
    table = Table("ms", "verdict", "ok", *(heading for heading, _, _ in COLUMNS))
    for column in table.columns[2:]:
        column.justify = "right"
        column.no_wrap = True
    for entry in sweep.values:
        cells = ["-"] * (1 + len(COLUMNS))
        if entry.figures is not None:
            figures = entry.figures
            measured = figures.requests_ok + figures.requests_failed
            values = [(getattr(figures, name), form) for _, name, form in COLUMNS]
            cells = [f"{figures.requests_ok}/{measured}"]
            cells += ["-" if value is None else form.format(value) for value, form in values]
        state = entry.verdict if entry.status == "done" and entry.verdict else entry.status
        colour = COLOURS.get(state, "red" if state == "failed" else "default")
        table.add_row(escape(entry.text), f"[{colour}]{state}[/]", *cells)
    return table


def _lines(sweep: Sweep) -> Iterator[str]:
    first = sweep.values[0]
    for entry in sweep.values:
        if entry.effects:
            texts = ", ".join(effect_text(effect) for effect in entry.effects)
            yield f"effect     {entry.text} against {first.text}: {texts}"
    for entry in sweep.values:
        yield from _troubles(entry)
    for note in sweep.notes:
        yield f"note       {note}"


def _troubles(entry: ValueRun) -> Iterator[str]:
    if entry.error is not None:
        yield f"failed     {entry.text} (exit code {entry.exit_code}): {entry.error}"
    for reason in entry.reasons:
        yield f"{entry.verdict or '':<10} {entry.text}: {reason}"
