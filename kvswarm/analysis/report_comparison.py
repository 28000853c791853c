"""A comparison of finished runs as HTML: a table, a forest plot, sentences.

In:  `RunComparison`.
Out: `comparison_html`, a fragment; `comparison_page`, that fragment as one self-contained page.
Its style and its script are those of a run's page (`page.py`). All text from outside is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Final

import plotly.graph_objects as go

from kvswarm.analysis.comparison_file import (
    NO_DIFFERENCE,
    TOO_LITTLE,
    Change,
    Factors,
    Pair,
    RunComparison,
)
from kvswarm.analysis.comparison_table import (
    FACTOR_COLUMNS,
    factor_cells,
    factor_lines,
    run_text,
)
from kvswarm.analysis.comparison_words import (
    FIGURE_OF,
    change_text,
    interval_text,
    value_text,
)
from kvswarm.analysis.page import bullets, embedded, frame, meaning, table
from kvswarm.analysis.samples import FIGURES, Figure

BAR_PX: Final = 26
"""Height of a figure in the forest plot."""
EDGES_PX: Final = 110
MEANINGS: Final = {
    "ttft_ms": "first token minus sent",
    "itl_ms": "gap between consecutive token-bearing events",
    "tpot_ms": "(last token - first token) / (output tokens - tokens of the first event)",
    "e2e_ms": "end of the response minus sent",
    "output_tokens_per_s": "tokens of successful requests by the duration",
    "requests_per_s": "successful requests by the duration",
    "goodput_rps": "requests that met every SLO, with valid output where checked, by the duration",
    "good": "share of requests that met every SLO, with valid output where checked",
    "error": "share of requests that failed",
    "valid": "share of the checked answers that were valid",
}
"""What the figures mean, by their samples."""
BLUE: Final = "#4a7bd0"
GREY: Final = "#8a8a8a"


def comparison_page(comparison: RunComparison) -> str:
    """Draw the page of a comparison."""
    base = comparison.run(comparison.baseline)
    title = f"{len(comparison.runs)} runs of {base.profile}, compared with {base.name}"
    return frame(title, comparison_html(comparison))


def comparison_html(comparison: RunComparison) -> str:
    """The runs, a table of figures, a forest plot for each run, and what is to be said."""
    parts = [_runs(comparison), "<h2>Figures</h2>", _figures(comparison)]
    if plots := list(_plots(comparison)):
        parts += [
            "<h2>Changes, with intervals of 95 %</h2>",
            f'<div class="plots">{"".join(plots)}</div>',
        ]
    parts += ["<h2>In words</h2>", bullets([each.text for each in comparison.sentences])]
    if comparison.factors is not None:
        parts += ["<h2>By backend, quantization and load</h2>", _factors(comparison.factors)]
    if comparison.notes:
        parts += ["<h2>Notes</h2>", bullets(comparison.notes)]
    return "\n".join(parts)


def _runs(comparison: RunComparison) -> str:
    parts = []
    for run in comparison.runs:
        base = ", the baseline" if run.label == comparison.baseline else ""
        head = html.escape(f"{run.label}{base}: {run_text(run)}")
        parts.append(
            f'<div class="verdict {html.escape(run.verdict)}"><strong>{head}</strong>'
            f" &ndash; {html.escape(run.verdict)}{bullets(run.reasons)}</div>"
        )
    return "".join(parts)


def _figures(comparison: RunComparison) -> str:
    pairs = {pair.run: pair for pair in comparison.pairs}
    heading = ["<th></th>"]
    for run in comparison.runs:
        heading.append(f"<th>{html.escape(run.label)}</th>")
        if run.label in pairs:
            against = html.escape(pairs[run.label].against)
            heading.append(f"<th>change from {against}</th><th>verdict</th>")
    rows = [f"<tr>{''.join(heading)}</tr>"]
    for figure in FIGURES:
        if all(run.figures[figure.name] is None for run in comparison.runs):
            continue
        unit = f", {figure.unit}" if figure.unit == "ms" else ""  # others have it in their name
        cells = [f"<th>{meaning(figure.heading + unit, MEANINGS[figure.sample])}</th>"]
        for run in comparison.runs:
            cells.append(f"<td>{value_text(figure, run.figures[figure.name])}</td>")
            if run.label in pairs:
                cells.append(_change_cells(figure, pairs[run.label]))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return table(rows)


def _change_cells(figure: Figure, pair: Pair) -> str:
    found = next((change for change in pair.changes if change.figure == figure.name), None)
    if found is None:
        return "<td>-</td><td>not compared</td>"
    interval = interval_text(figure, found)
    text = change_text(figure, found) + (f" ({interval})" if interval else "")
    why = f' title="{html.escape(found.why)}"' if found.why else ""
    verdict = html.escape(found.verdict)
    return (
        f"<td>{html.escape(text)}</td><td>{f'<abbr{why}>{verdict}</abbr>' if why else verdict}</td>"
    )


def _plots(comparison: RunComparison) -> Iterator[str]:
    for number, pair in enumerate(comparison.pairs):
        figure = forest_plot(pair)
        if figure is not None:
            yield embedded(figure, str(number))


def forest_plot(pair: Pair) -> go.Figure | None:
    """Each change in percent with its interval, the first figure on top; None: there is none."""
    changes = [
        change
        for change in reversed(pair.changes)
        if change.low is not None and change.high is not None and change.reference
    ]
    if not changes:
        return None
    figure = go.Figure()
    told = [each for each in changes if each.verdict not in _SILENT]
    silent = [each for each in changes if each.verdict in _SILENT]
    for name, colour, these in (
        ("more than noise", BLUE, told),
        ("not told from noise", GREY, silent),
    ):
        if these:
            figure.add_scatter(**_bars(these), name=name, mode="markers", marker={"color": colour})
    names = [FIGURE_OF[change.figure].heading for change in changes]
    figure.add_vline(x=0, line={"width": 1, "color": "#888"})
    figure.update_yaxes(categoryorder="array", categoryarray=names, automargin=True)
    return figure.update_layout(
        title=html.escape(f"{pair.run} against {pair.against}"),
        xaxis_title="change, %",
        height=EDGES_PX + BAR_PX * len(changes) + BAR_PX,
        margin={"l": 60, "r": 20, "t": 40, "b": 45},
        legend={"orientation": "h", "y": -0.25},
    )


_SILENT: Final = frozenset({NO_DIFFERENCE, TOO_LITTLE})


def _bars(changes: Sequence[Change]) -> dict[str, object]:
    """Points and their intervals, in percent of the reference."""
    points, above, below = [], [], []
    for change in changes:
        scale = 100.0 / (change.reference or 1.0)
        low, high = sorted(((change.low or 0.0) * scale, (change.high or 0.0) * scale))
        point = (change.difference or 0.0) * scale
        points.append(point)
        above.append(high - point)
        below.append(point - low)
    return {
        "x": points,
        "y": [FIGURE_OF[change.figure].heading for change in changes],
        "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below},
    }


def _factors(factors: Factors) -> str:
    heading = "".join(f"<th>{html.escape(heading)}</th>" for heading, _ in FACTOR_COLUMNS)
    rows = [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in factor_cells(row))}</tr>"
        for row in factors.rows
    ]
    return table([f"<tr>{heading}</tr>", *rows]) + bullets(factor_lines(factors))
