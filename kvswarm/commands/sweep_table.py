"""A sweep as a table for a terminal: a line for each value, then effects, reasons and errors."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from kvswarm.commands.series_table import lines_of, table_of, wide_console
from kvswarm.commands.sweep_file import Sweep
from kvswarm.commands.swept import SWEEP_FILE


def render(sweep: Sweep, folder: Path) -> None:
    """Print a sweep to standard output."""
    console = wide_console()
    console.print(escape(f"{sweep.profile}: {sweep.key}"), style="bold", soft_wrap=True)
    console.print(table_of(sweep.values))
    for line in lines_of(sweep.values, sweep.notes):
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"Sweep: {folder / SWEEP_FILE}", soft_wrap=True, highlight=False, markup=False)
