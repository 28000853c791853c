"""A sweep as a table for a terminal: a line for each value, then effects, reasons and errors."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.markup import escape

from kvswarm.analysis.report_sweep import knee_text
from kvswarm.commands.series_table import lines_of, table_of, wide_console
from kvswarm.commands.sweep_file import Sweep
from kvswarm.commands.swept import SWEEP_FILE


def render(sweep: Sweep, folder: Path) -> None:
    """Print a sweep to standard output."""
    console = wide_console()
    console.print(escape(f"{sweep.profile}: {sweep.key}"), style="bold", soft_wrap=True)
    console.print(table_of(sweep.values))
    for curve in sweep.curves:
        label = f"{curve.label}: " if curve.label else ""
        text = f"curve      {label}{knee_text(msgspec.to_builtins(curve))}"
        console.print(escape(text), soft_wrap=True, highlight=False)
    for line in lines_of(sweep.values, sweep.notes):
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"Sweep: {folder / SWEEP_FILE}", soft_wrap=True, highlight=False, markup=False)
