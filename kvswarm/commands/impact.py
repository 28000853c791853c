"""`kvswarm impact BASELINE [FEATURE=]RUN ...`: what each feature did, beside what is claimed of it.

In:  run directories.  Out: a table and a line for each claim, or JSON; an exit code.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.comparable import Origin, read_member
from kvswarm.analysis.impact import COST, SHOWN, WEIGHTS, Impact, Measured, Row, impact_of
from kvswarm.analysis.impact_features import features
from kvswarm.errors import EXIT_INVALID_MEASUREMENT, EXIT_PASSED, UsageError

COLUMNS: Final = {
    "ttft_p50_ms": "TTFT p50",
    "tpot_p50_ms": "TPOT p50",
    "e2e_p50_ms": "E2E p50",
    "output_tokens_per_s": "tokens/s",
    WEIGHTS: "weights",
    COST: "cost",
}
LEAST_WIDTH: Final = 110


def impact(given: Sequence[str], *, as_json: bool) -> int:
    """Show the table; give the exit code: 3 where a run is invalid. Raises KvswarmError."""
    if not given:
        raise UsageError("impact: of which runs?", fix="Name a baseline, then runs to hold by it.")
    named = [_read(text) for text in given]
    members = [read_member(Origin(path=path, name=path.resolve().name)) for _, path in named]
    found = impact_of(members, [name for name, _ in named])
    if as_json:
        sys.stdout.write(json.dumps(found.plain(), indent=2) + "\n")
    else:
        _render(found)
    invalid = any(member.summary["verdict"]["status"] == "invalid" for member in members)
    return EXIT_INVALID_MEASUREMENT if invalid else EXIT_PASSED


def _read(text: str) -> tuple[str | None, Path]:
    """`[FEATURE=]DIR`. Raises UsageError for a feature that is not known."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    key = name.replace("-", "_")
    if key not in features():
        near = difflib.get_close_matches(key, features(), n=1)
        fix = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(features())}."
        raise UsageError(f"{text}: no feature is called {name!r}", fix=fix)
    return key, Path(path)


def _render(found: Impact) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, LEAST_WIDTH))
    shown = [name for name in COLUMNS if name in SHOWN or _has(found, name)]
    table = Table("feature", "run", "against")
    for name in shown:
        table.add_column(COLUMNS[name], justify="right", no_wrap=True)
    for row in found.rows:
        by_name = {each.figure: each for each in row.figures}
        cells = [_cell(by_name.get(name)) for name in shown]
        table.add_row(*map(escape, (row.name, row.run, row.against, *cells)))
    console.print(table)
    console.print(
        "Changes of the figure with the feature, by the one without. "
        "~ no difference that these runs can show; ? too little to tell.",
        soft_wrap=True,
        highlight=False,
    )
    for line in (*_claims(found), *(f"note: {note}" for note in found.notes)):
        console.print(escape(line), soft_wrap=True, highlight=False)


def _has(found: Impact, name: str) -> bool:
    return any(each.figure == name for row in found.rows for each in row.figures)


def _cell(measured: Measured | None) -> str:
    if measured is None or measured.change_share is None:
        return "-"
    text = f"{measured.change_share:+.1%}"
    if measured.told:
        return text
    return f"{text} {'~' if measured.low_share is not None else '?'}"


def _claims(found: Impact) -> list[str]:
    lines = []
    for row in found.rows:
        lines += [_obstacle(row)] if row.obstacles else []
        by_name = {each.figure: each for each in row.figures}
        for held in row.claims:
            measured = by_name.get(held.figure)
            lines.append(
                f"{row.name} ({row.run}): claimed is {held.claim}; {_seen(measured)}: "
                f"{held.status}. Source of the claim: {held.source}."
            )
    return lines


def _obstacle(row: Row) -> str:
    return f"{row.name} ({row.run}): not compared with {row.against}: {'; '.join(row.obstacles)}."


def _seen(measured: Measured | None) -> str:
    if measured is None or measured.change_share is None:
        return "nothing was measured of it"
    name = COLUMNS[measured.figure]
    text = f"measured is {measured.change_share:+.1%} of {name}"
    if measured.low_share is None or measured.high_share is None:
        return text
    return f"{text} (95 %: {measured.low_share:+.1%} to {measured.high_share:+.1%})"
