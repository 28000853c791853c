"""report.html of a sweep or a search: what was found, a table, and curves against load.

In:  the plain data of sweep.json or search.json.  Out: HTML.
All text from outside is escaped; plots are drawn by plotly, whose script is in the page.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from kvswarm.analysis.page import bullets, embedded, frame, table

LOADS: Final = {"rate_rps": "offered, requests/s", "concurrency": "users"}
MARK: Final = {"color": "#888", "dash": "dot"}
"""Lines that mark a place, seen on light and on dark."""
PLOTS: Final = (
    ("Throughput", "output tokens/s", (("output_tokens_per_s", "output tokens/s"),)),
    ("Requests", "requests/s", (("requests_per_s", "achieved"),)),
    ("TTFT", "TTFT, ms", (("ttft_p50_ms", "p50"), ("ttft_p99_ms", "p99"))),
    ("ITL", "ITL, ms", (("itl_p50_ms", "p50"), ("itl_p99_ms", "p99"))),
    ("Power", "requests/s by s", (("power", "power"),)),
)
"""Title, axis, lines: member of a point and what it is called."""
COLUMNS: Final = (
    ("requests/s", "requests_per_s"), ("tokens/s", "output_tokens_per_s"),
    ("TTFT p50, ms", "ttft_p50_ms"), ("TTFT p99, ms", "ttft_p99_ms"),
    ("ITL p50, ms", "itl_p50_ms"), ("ITL p99, ms", "itl_p99_ms"), ("power", "power"),
)  # fmt: skip


def sweep_page(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep, from the plain data of sweep.json."""
    return frame(f"{sweep['profile']}: sweep over {sweep['key']}", sweep_html(sweep))


def search_page(search: Mapping[str, Any], result: str, unit: str) -> str:
    """The page of a search, from the plain data of search.json; `result` says what was found."""
    title = f"{search['profile']}: highest {search['kind']}"
    return frame(title, search_html(search, result, unit))


def sweep_html(sweep: Mapping[str, Any]) -> str:
    """The sections of a sweep: a table and plots of every curve, runs that failed, notes."""
    parts = [f"<p>Target: {html.escape(sweep['target'])}</p>"]
    for place, curve in enumerate(sweep["curves"]):
        if curve["label"]:
            parts.append(f"<h2>{html.escape(curve['label'])}</h2>")
        parts.append(f"<p>{html.escape(knee_text(curve))}</p>")
        parts.append(_curve_table(curve))
        figures = [_figure(curve, *plot) for plot in PLOTS]
        packed = (embedded(f, f"{place}-{n}") for n, f in enumerate(figures))
        parts.append(f'<div class="plots">{"".join(packed)}</div>')
    if not sweep["curves"]:
        parts.append(_values_table(sweep["values"]))
    parts.append(bullets(_told(sweep)))
    return "".join(parts)


def search_html(search: Mapping[str, Any], result: str, unit: str) -> str:
    """The sections of a search: what was found, every load that was tried, and why."""
    names = [slo["name"] for slo in search["slos"]]
    head = _row([unit, *names, "", "runs", "requests"], "th")
    rows = []
    for level in search["levels"]:
        shares = [
            f"{e['share']:.2%} ({e['low']:.2%} to {e['high']:.2%})" for e in level["intervals"]
        ]
        shares += ["-"] * (len(names) - len(shares))
        spent = sum(run["requests"] for run in level["runs"])
        state = level["state"] or "open"
        rows.append(
            _row([f"{level['load']:g}", *shares, state, str(len(level["runs"])), str(spent)])
        )
    reasons = [
        f"{level['load']:g}: {level['state'] or 'open'}: {level['reason']}"
        for level in search["levels"]
    ]
    return "".join(
        (
            f"<p><strong>{html.escape(result)}</strong></p>",
            f"<p>Target: {html.escape(search['target'])}</p>",
            table([head, *rows]),
            f'<div class="plots">{embedded(_shares(search, unit), "shares")}</div>',
            bullets([*reasons, *search["notes"]]),
        )
    )


def knee_text(curve: Mapping[str, Any]) -> str:
    """Knee and saturation of a curve in a sentence."""
    unit = "requests/s" if curve["kind"] == "rate_rps" else "users"
    knee, full = curve["knee"], curve["saturated_from"]
    texts = [
        f"knee at {knee:g} {unit}, where power is greatest"
        if knee is not None
        else "no knee within these loads",
        f"saturated from {full:g} {unit} on" if full is not None else "not saturated",
    ]
    return "; ".join(texts)


def _figure(
    curve: Mapping[str, Any], title: str, axis: str, lines: Sequence[tuple[str, str]]
) -> go.Figure:
    figure = go.Figure()
    loads = [point["load"] for point in curve["points"]]
    for member, name in lines:
        values = [point[member] for point in curve["points"]]
        figure.add_scatter(x=loads, y=values, name=name, mode="lines+markers")
    if title == "Requests" and curve["kind"] == "rate_rps":
        figure.add_scatter(x=loads, y=loads, name="offered", mode="lines", line={"dash": "dot"})
    if curve["knee"] is not None:
        figure.add_vline(x=curve["knee"], annotation_text="knee", line={**MARK, "dash": "dash"})
    if curve["saturated_from"] is not None:
        figure.add_vline(x=curve["saturated_from"], annotation_text="saturated", line=MARK)
    return figure.update_layout(title=title, xaxis_title=LOADS[curve["kind"]], yaxis_title=axis)


def _shares(search: Mapping[str, Any], unit: str) -> go.Figure:
    """The share of requests that met each target, with its interval, against load."""
    figure = go.Figure()
    levels = sorted(search["levels"], key=lambda level: level["load"])
    for place, slo in enumerate(search["slos"]):
        known = [level for level in levels if len(level["intervals"]) > place]
        found = [level["intervals"][place] for level in known]
        figure.add_scatter(
            x=[level["load"] for level in known],
            y=[each["share"] for each in found],
            error_y={
                "array": [each["high"] - each["share"] for each in found],
                "arrayminus": [each["share"] - each["low"] for each in found],
            },
            name=html.escape(slo["name"]),
            mode="lines+markers",
        )
        figure.add_hline(y=slo["share"], line=MARK)
    return figure.update_layout(
        title="Requests within the limits", xaxis_title=unit, yaxis_title="share"
    )


def _curve_table(curve: Mapping[str, Any]) -> str:
    head = _row([LOADS[curve["kind"]], *(heading for heading, _ in COLUMNS)], "th")
    rows = [
        _row([f"{point['load']:g}", *(_number(point[member]) for _, member in COLUMNS)])
        for point in curve["points"]
    ]
    return table([head, *rows])


def _values_table(values: Sequence[Mapping[str, Any]]) -> str:
    members = ("output_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms", "itl_p99_ms", "tpot_p50_ms")
    rows = [
        _row(
            [
                value["text"],
                value["verdict"] or value["status"],
                *(_number((value["figures"] or {}).get(member)) for member in members),
            ]
        )
        for value in values
    ]
    heads = ["value", "", "tokens/s", "TTFT p50, ms", "TTFT p99, ms", "ITL p99, ms", "TPOT p50, ms"]
    return table([_row(heads, "th"), *rows])


def _told(sweep: Mapping[str, Any]) -> Iterator[str]:
    for value in sweep["values"]:
        if value["error"] is not None:
            yield f"{value['text']}: {value['error']}"
        for reason in value["reasons"]:
            yield f"{value['text']}: {value['verdict']}: {reason}"
    yield from sweep["notes"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _row(cells: Sequence[str], tag: str = "td") -> str:
    first, *others = (html.escape(cell) for cell in cells)
    texts = "".join(f"<{tag}>{cell}</{tag}>" for cell in others)
    return f"<tr><th>{first}</th>{texts}</tr>"
