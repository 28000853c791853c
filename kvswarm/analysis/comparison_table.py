"""A comparison of finished runs for a terminal: what each run is, a line per figure, sentences."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.comparison_file import (
    FASTER,
    HIGHER,
    LOWER,
    NO_DIFFERENCE,
    SLOWER,
    TOO_LITTLE,
    Change,
    FactorRow,
    Factors,
    Pair,
    RunComparison,
    RunFigures,
)
from kvswarm.analysis.comparison_words import change_text, value_text
from kvswarm.analysis.samples import FIGURES, Figure
from kvswarm.analysis.terminal import COLOURS

MARKS: Final = {NO_DIFFERENCE: "~", TOO_LITTLE: "?"}
"""Verdicts that are too long for a cell."""
LEAST_WIDTH: Final = 100


def render(comparison: RunComparison, console: Console | None = None) -> None:
    """Print a comparison to standard output."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, LEAST_WIDTH), file=console.file)

    def line(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    for run in comparison.runs:
        colour = COLOURS[run.verdict]
        head = "baseline, " if run.label == comparison.baseline else ""
        text = f"{escape(f'{run.label}  {run_text(run)}')} ({head}[{colour}]{run.verdict}[/])"
        console.print(text, soft_wrap=True, highlight=False)
    console.print(_table(comparison))
    line(f"~ {NO_DIFFERENCE}; ? {TOO_LITTLE}; pp: percentage points.")
    for sentence in comparison.sentences:
        line(sentence.text)
    if comparison.factors is not None:
        _tell_factors(comparison.factors, console)
    for run in comparison.runs:
        for reason in run.reasons:
            line(f"{run.verdict:<10} {run.label}: {reason}")
    for note in comparison.notes:
        line(f"note       {note}")


def _tell_factors(factors: Factors, console: Console) -> None:
    table = Table()
    rows = [factor_cells(row) for row in factors.rows]
    for (heading, _), cells in zip(FACTOR_COLUMNS, zip(*rows, strict=True), strict=True):
        if any(cell != "-" for cell in cells):
            table.add_column(heading, justify="left" if heading in WORDS else "right")
    for row in zip(
        *(cells for cells in zip(*rows, strict=True) if set(cells) != {"-"}), strict=True
    ):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for text in factor_lines(factors):
        console.print(escape(text), soft_wrap=True, highlight=False)


FACTOR_COLUMNS: Final = (
    ("", "run"), ("backend", "backend"), ("quantization", "quantization"), ("load", "load"),
    ("tok/s", "output_tokens_per_s"), ("tok/s/GPU", "output_tokens_per_gpu_s"),
    ("TTFT p95", "ttft_p95_ms"), ("ITL p99", "itl_p99_ms"), ("goodput", "goodput_share"),
    ("USD/M out", "per_million_output_tokens_usd"),
)  # fmt: skip
"""Headings and members of a row of factors."""
WORDS: Final = frozenset({"", "backend", "quantization", "load"})


def factor_cells(row: FactorRow) -> list[str]:
    """The cells of a run by what was varied."""
    values = [getattr(row, name) for _, name in FACTOR_COLUMNS]
    cells = []
    for (_, name), value in zip(FACTOR_COLUMNS, values, strict=True):
        if value is None:
            cells.append("-")
        elif isinstance(value, float):
            cells.append(f"{value:.1%}" if name.endswith("_share") else f"{value:,.2f}")
        else:
            cells.append(str(value))
    return cells


def factor_lines(factors: Factors) -> list[str]:
    """Fronts and recommendations, a line each."""
    lines = [
        f"surpassed by none in {front.more} (more) and {front.less} (less): "
        f"{', '.join(front.runs)}."
        for front in factors.fronts
    ]
    return lines + [each.text for each in factors.recommendations]


def run_text(run: RunFigures) -> str:
    """What a run is of, in a line."""
    server = " ".join(part for part in (run.backend, run.server_version) if part)
    load = f"{run.concurrency} users" if run.concurrency else ""
    load = f"{run.rate_rps:g} requests/s" if run.rate_rps else load
    parts = [run.name, run.model, server, run.quantization or "", load, f"{run.requests} requests"]
    return ", ".join(part for part in parts if part)


def _table(comparison: RunComparison) -> Table:
    pairs = {pair.run: pair for pair in comparison.pairs}
    table = Table("")
    for run in comparison.runs:
        pair = pairs.get(run.label)
        against = f" against {pair.against}" if pair and pair.against != comparison.baseline else ""
        table.add_column(f"{run.label}{against}", justify="right", no_wrap=True)
        if pair:
            table.add_column("change", justify="right", no_wrap=True)
    for figure in FIGURES:
        if all(run.figures[figure.name] is None for run in comparison.runs):
            continue
        cells = [f"{figure.heading}{', ms' if figure.unit == 'ms' else ''}"]
        for run in comparison.runs:
            cells.append(value_text(figure, run.figures[figure.name]))
            if run.label in pairs:
                cells.append(_cell(figure, pairs[run.label]))
        table.add_row(*cells)
    for name in dict.fromkeys(name for run in comparison.runs for name in run.cost):
        cells = [escape(name)]
        for run in comparison.runs:
            cells.append(f"{run.cost[name]:.4g}" if name in run.cost else "-")
            if run.label in pairs:
                cells.append(_cost_cell(comparison, name, pairs[run.label]))
        table.add_row(*cells)
    return table


def _cell(figure: Figure, pair: Pair) -> str:
    found = next((change for change in pair.changes if change.figure == figure.name), None)
    if found is None:
        return "-"
    mark = MARKS.get(found.verdict, found.verdict)
    colour = _colour(figure, found)
    text = f"{change_text(figure, found)} {mark}"
    return f"[{colour}]{text}[/]" if colour else text


def _colour(figure: Figure, change: Change) -> str | None:
    better = {FASTER, HIGHER if figure.more_is_better else LOWER}
    if change.verdict in better:
        return "green"
    return "red" if change.verdict in {SLOWER, HIGHER, LOWER} else None


def _cost_cell(comparison: RunComparison, name: str, pair: Pair) -> str:
    one, other = comparison.run(pair.run).cost, comparison.run(pair.against).cost
    if name not in one or not other.get(name):
        return "-"
    return f"{one[name] / other[name] - 1:+.1%}".replace("%", " %")
