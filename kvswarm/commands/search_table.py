"""A search as a table for a terminal: a line for each load, then the targets and the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.targets import Target
from kvswarm.commands.search_file import SEARCH_FILE, Level, Search
from kvswarm.commands.series_table import wide_console

COLOURS: Final = {"pass": "green", "fail": "red", "cannot tell": "yellow"}


def render(search: Search, folder: Path) -> None:
    """Print a search to standard output."""
    console = wide_console()
    console.print(escape(f"{search.profile}: highest {search.kind}"), style="bold", soft_wrap=True)
    table = Table(search.unit, "", "runs", "requests", *(escape(t.name) for t in search.slos))
    for level in search.levels:
        state = level.state or "open"
        table.add_row(
            f"{level.load:g}",
            f"[{COLOURS.get(state, 'default')}]{state}[/]",
            str(len(level.runs)),
            str(sum(run.requests for run in level.runs)),
            *(cell(level, place) for place in range(len(search.slos))),
        )
    console.print(table)
    for line in lines_of(search):
        console.print(escape(line), soft_wrap=True, highlight=False)
    console.print(f"Search: {folder / SEARCH_FILE}", soft_wrap=True, highlight=False, markup=False)


def cell(level: Level, place: int) -> str:
    """The share of a target and its interval."""
    if place >= len(level.intervals):
        return "-"
    found = level.intervals[place]
    return f"{found.share:.2%} ({found.low:.2%} to {found.high:.2%})"


def lines_of(search: Search) -> Iterator[str]:
    """The targets, why loads did not pass, the result, notes."""
    for target in search.slos:
        yield f"target     {target_text(target)}"
    for level in search.levels:
        if level.state not in {"pass", None}:
            yield f"{level.load:<10g} {level.state}: {level.reason}"
        for run in level.runs:
            if run.error is not None:
                yield f"failed     {run.text} (exit code {run.exit_code}): {run.error}"
    yield f"result     {result_text(search)}"
    for note in search.notes:
        yield f"note       {note}"


def target_text(target: Target) -> str:
    """A target in words."""
    limits = ", ".join(f"{name} {limit:g}" for name, limit in target.limits_ms.items())
    return f"{target.name}: at least {target.share:.4g} of the requests within {limits}"


def result_text(search: Search) -> str:
    """What was found, in a sentence."""
    result = search.result
    if result is None:
        return "none yet; a search that was cut off goes on with the same --out"
    spent = f"{result.requests} requests in {result.runs} runs"
    if result.load is None:
        return f"no load met the targets, down to {result.next_load:g} {search.unit}; {spent}"
    if result.next_load is None:
        return f"{result.load:g} {search.unit} met the targets, and is the most to try; {spent}"
    return (
        f"{result.load:g} {search.unit} met the targets, and {result.next_load:g} was not shown "
        f"to; {spent}"
    )
