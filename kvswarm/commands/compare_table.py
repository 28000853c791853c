"""A comparison as a table for a terminal: a line for each variant, then what it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from kvswarm.commands.compare_file import COMPARISON_FILE, Comparison
from kvswarm.commands.series_table import lines_of, table_of, wide_console


def render(comparison: Comparison, folder: Path) -> None:
    """Print a comparison to standard output."""
    console = wide_console()
    machine = comparison.machine
    gpus = f"{machine.gpus} {machine.gpu_resource}" if machine.gpus else "no GPU"
    head = f"{comparison.profile}: {comparison.model} on {gpus}, {machine.cpu} CPUs, "
    head += f"{machine.memory}, namespace {comparison.namespace}"
    console.print(escape(head), style="bold", soft_wrap=True, highlight=False)
    console.print(table_of(comparison.variants))
    for line in (*lines_of(comparison.variants, comparison.notes), *_about(comparison)):
        console.print(escape(line), soft_wrap=True, highlight=False)
    place = f"Comparison: {folder / COMPARISON_FILE}"
    console.print(place, soft_wrap=True, highlight=False, markup=False)


def _about(comparison: Comparison) -> Iterator[str]:
    """What makes variants unlike, and how long each took to be ready."""
    for variant in comparison.variants:
        if variant.unlike:
            yield f"unlike     {variant.text}: not comparable in: {', '.join(variant.unlike)}"
    for variant in comparison.variants:
        for note in variant.notes:
            yield f"note       {variant.text}: {note}"
    for variant in comparison.variants:
        known = {name: at_s for name, at_s in variant.phases_s.items() if at_s is not None}
        if known:
            phases = ", ".join(f"{name} {at_s:.1f} s" for name, at_s in known.items())
            yield f"deployed   {variant.text}: {phases}"
