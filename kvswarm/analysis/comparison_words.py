"""A comparison in sentences, each with the figures that it is said of.

In:  `RunComparison`.  Out: `Sentence`s; figures in words. Whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from kvswarm.analysis.comparison_file import (
    NO_DIFFERENCE,
    TOO_LITTLE,
    Change,
    Pair,
    RunComparison,
    RunFigures,
    Sentence,
)
from kvswarm.analysis.samples import FIGURES, Figure

FIGURE_OF: Final = {figure.name: figure for figure in FIGURES}


def value_text(figure: Figure, value: float | None) -> str:
    """A figure with as many digits as one reads: `104.3`, `98.2 %`, `-`."""
    if value is None:
        return "-"
    if not figure.unit:
        return f"{value * 100:.2f} %"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.2f}"  # noqa: PLR2004


def change_text(figure: Figure, change: Change) -> str:
    """By how much, in percent of the other's; a share in percentage points: `+1.2 pp`."""
    if change.difference is None:
        return "-"
    if not figure.unit:
        return f"{change.difference * 100:+.1f} pp"
    if change.change_share is None:
        return f"{change.difference:+.2f}"
    return f"{change.change_share:+.1%}".replace("%", " %")


def interval_text(figure: Figure, change: Change) -> str | None:
    """The interval of the change, in the same unit; None: there is none."""
    if change.low is None or change.high is None:
        return None
    if not figure.unit:
        return f"{change.low * 100:+.1f} to {change.high * 100:+.1f} pp"
    if not change.reference:
        return f"{change.low:+.2f} to {change.high:+.2f} {figure.unit}"
    low, high = sorted((change.low / change.reference, change.high / change.reference))
    return f"{low * 100:+.1f} to {high * 100:+.1f} %"


def sentences(comparison: RunComparison) -> list[Sentence]:
    """All that is to be said of a comparison."""
    return [sentence for pair in comparison.pairs for sentence in _of_pair(comparison, pair)]


def _of_pair(comparison: RunComparison, pair: Pair) -> Iterator[Sentence]:
    if pair.obstacles:
        text = f"{pair.run} is not compared with {pair.against}: {'; '.join(pair.obstacles)}."
        yield Sentence(text=text, figures=[])
        return
    one, other = comparison.run(pair.run), comparison.run(pair.against)
    for change in pair.changes:
        if change.verdict not in {NO_DIFFERENCE, TOO_LITTLE}:
            yield _told(one, other, change)
    same = [change for change in pair.changes if change.verdict == NO_DIFFERENCE]
    if same:
        yield _same(pair, same)
    little = [change for change in pair.changes if change.verdict == TOO_LITTLE]
    for why, changes in groupby(little, key=lambda change: change.why):
        yield _little(pair, list(changes), why)


def _told(one: RunFigures, other: RunFigures, change: Change) -> Sentence:
    figure = FIGURE_OF[change.figure]
    values = [value_text(figure, run.figures[figure.name]) for run in (one, other)]
    unit = f" {figure.unit}" if figure.unit else ""
    parts = [change_text(figure, change)]
    if interval := interval_text(figure, change):
        parts.append(f"95 %: {interval}")
    if change.p_corrected is not None:
        parts.append(f"p {_p_text(change.p_corrected)}")
    text = (
        f"{one.label} is {change.verdict} than {other.label} in {figure.heading}: "
        f"{values[0]}{unit} against {values[1]}{unit} ({'; '.join(parts)})."
    )
    if change.faster_share is not None:
        what = "gap" if figure.sample == "itl_ms" else "request"
        text += f" A {what} of {one.label} is the faster one in {change.faster_share:.0%} of pairs."
    return Sentence(text=text, figures=[f"{run.label}.{figure.name}" for run in (one, other)])


def _same(pair: Pair, changes: list[Change]) -> Sentence:
    text = (
        f"{pair.run} and {pair.against}: no difference that these runs can show in "
        f"{_listed(changes)}."
    )
    needed = [change for change in changes if change.needed_requests is not None]
    wide = [change for change in needed if not _would_show(change)]
    if wide:
        texts = [
            f"{FIGURE_OF[change.figure].heading} {change.needed_requests:,}" for change in wide
        ]
        text += f" Requests of each run that would show a change of 5 %: {', '.join(texts)}."
    return Sentence(text=text, figures=_figures(pair, changes))


def _would_show(change: Change) -> bool:
    """Whether the interval is so narrow that 5 % would have been seen."""
    if change.low is None or change.high is None or not change.reference:
        return True
    return (change.high - change.low) / 2 <= abs(change.reference) * 0.025


def _little(pair: Pair, changes: list[Change], why: str | None) -> Sentence:
    text = f"{pair.run} and {pair.against}: too little to tell in {_listed(changes)}: {why}."
    return Sentence(text=text, figures=_figures(pair, changes))


def _listed(changes: list[Change]) -> str:
    return ", ".join(FIGURE_OF[change.figure].heading for change in changes)


def _figures(pair: Pair, changes: list[Change]) -> list[str]:
    return [f"{label}.{change.figure}" for change in changes for label in (pair.run, pair.against)]


def _p_text(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"  # noqa: PLR2004
