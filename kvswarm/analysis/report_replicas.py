"""Cold start and scaling in report.html: tables, and one plot over time.

In:  the summary's `replicas`, the TTFT of requests and when they were sent.
Out: HTML, and a plotly figure: replicas above the pods' steps above TTFT, on one time axis.

Colours are those of Okabe and Ito, which people who see no red or no green tell apart; line styles,
hatches and marker shapes say the same again.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kvswarm.analysis.page import bullets, table
from kvswarm.analysis.pods import POD_STEPS
from kvswarm.analysis.replica_lines import (
    MEANINGS,
    POD_COLUMNS,
    SET_COLUMNS,
    pod_cells,
    replica_lines,
    set_cells,
)

STAGES: Final = {
    "created": ("waits for a node", "#999999", ""),
    "scheduled": ("initialises", "#E69F00", "/"),
    "initialized": ("gets its image", "#CC79A7", "x"),
    "started": ("loads its model", "#56B4E9", "\\"),
    "ready": ("ready", "#009E73", ""),
}
"""What a pod does from each step on to the next: words, colour, hatch."""
LINES: Final = {
    "wanted": ("#D55E00", "dash"),
    "there": ("#999999", "dot"),
    "ready": ("#009E73", "solid"),
}
TTFT_COLOUR: Final = "#0072B2"
ROW_PX: Final = 22
DEFINITIONS: Final = (
    "Seconds since the first request was intended. Moments were seen by this machine; those with ~ "
    "are the pod's own stamps, exact to a second. A pod initialises (KServe: loads the model's "
    "files) from scheduled to initialized, gets the server's image until started, and loads the "
    "model until ready."
)


def replicas_html(replicas: dict[str, Any] | None, plot: str) -> str:
    """The section of the page; empty where the run followed no pods. `plot` is HTML."""
    if replicas is None:
        return ""
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items())
    parts = [f"<h2>Cold start and scaling</h2>{bullets(replica_lines(replicas))}{plot}"]
    if sets := set_cells(replicas):
        parts += [_table(["requests", *SET_COLUMNS], sets), f"<p>{html.escape(meanings)}.</p>"]
    if pods := pod_cells(replicas):
        parts.append(_table(["pod", "node", *POD_COLUMNS, "restarts", "state"], pods))
        parts.append(f"<p>{html.escape(DEFINITIONS)}</p>")
    return "".join(parts)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in heading) + "</tr>"]
    for name, *cells in rows:
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><th>{html.escape(name)}</th>{texts}</tr>")
    return table(lines)


def replicas_plot(
    replicas: dict[str, Any] | None, sent_s: Sequence[float], ttft_ms: Sequence[float]
) -> go.Figure | None:
    """Replicas, pods and TTFT over time; None where the run followed no pods."""
    if replicas is None or replicas["requests"] is None:
        return None
    pods = replicas["pods"]
    heights = [130, max(60, ROW_PX * len(pods)), 200]
    figure = make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.04,
        row_heights=[height / sum(heights) for height in heights],
    )
    end_s = max([*sent_s, *(each["at_s"] for each in replicas["series"]), 0.0])
    _add_counts(figure, replicas["series"], end_s)
    _add_pods(figure, pods, end_s)
    figure.add_scatter(
        x=list(sent_s), y=list(ttft_ms), mode="markers", name="TTFT",
        marker={"size": 4, "color": TTFT_COLOUR}, row=3, col=1,
    )  # fmt: skip
    begin_s = min([0.0, *(each["at_s"] for each in replicas["series"] if each["at_s"] > -end_s)])
    figure.update_xaxes(range=[begin_s, end_s * 1.02 or 1.0])
    figure.update_xaxes(title_text="time since the first request, s", row=3, col=1)
    figure.update_yaxes(title_text="replicas", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(autorange="reversed", row=2, col=1)
    figure.update_yaxes(title_text="TTFT, ms", rangemode="tozero", row=3, col=1)
    return figure.update_layout(
        title="Replicas, pods and TTFT over time", height=sum(heights) + 120, barmode="overlay"
    )


def _add_counts(figure: go.Figure, series: Sequence[dict[str, Any]], end_s: float) -> None:
    for name, (colour, dash) in LINES.items():
        points = [(each["at_s"], each[name]) for each in series if each[name] is not None]
        if points:
            points.append((end_s, points[-1][1]))
            figure.add_scatter(
                x=[x for x, _ in points], y=[y for _, y in points], name=name, mode="lines",
                line={"shape": "hv", "color": colour, "dash": dash}, row=1, col=1,
            )  # fmt: skip


def _add_pods(figure: go.Figure, pods: Sequence[dict[str, Any]], end_s: float) -> None:
    for step, (words, colour, hatch) in STAGES.items():
        bars = [(each["pod"], *span) for each in pods if (span := _stage(each, step, end_s))]
        if bars:
            figure.add_bar(
                orientation="h", name=words, y=[html.escape(pod) for pod, _, _ in bars],
                base=[begin for _, begin, _ in bars], x=[end - begin for _, begin, end in bars],
                marker={"color": colour, "pattern": {"shape": hatch}}, row=2, col=1,
            )  # fmt: skip


def _stage(pod: dict[str, Any], step: str, end_s: float) -> tuple[float, float] | None:
    """From a step to the next that the pod reached, or to its end; None: it never reached it."""
    begin_s = pod[f"{step}_s"]
    if begin_s is None:
        return None
    later = [pod[f"{name}_s"] for name in (*POD_STEPS[POD_STEPS.index(step) + 1 :], "deleted")]
    until_s = next((moment for moment in later if moment is not None), end_s)
    return begin_s, max(begin_s, until_s)
