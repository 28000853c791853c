"""The course of a run in report.html: its schedule, its steady part and its stalls.

In:  a summary, and server.parquet for the lines under the stalls.  Out: HTML, and a plotly figure.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kvswarm.analysis.course_lines import (
    CAUSE_NAMES,
    cause_cells,
    schedule_text,
    stall_lines,
    steady_cells,
)
from kvswarm.analysis.page import bullets, table
from kvswarm.analysis.series import read_replicas
from kvswarm.analysis.server_told import all_names, kind_of, level_of
from kvswarm.rundir import RunDir


def course_html(summary: dict[str, Any]) -> str:
    """The sections of the page."""
    return _schedule(summary) + _steady(summary) + _stalls(summary["stalls"])


def _schedule(summary: dict[str, Any]) -> str:
    text = schedule_text(summary)
    return "" if text is None else f"<h2>Schedule</h2><p>{html.escape(text)}.</p>"


def _steady(summary: dict[str, Any]) -> str:
    steady = summary["steady"]
    if steady is None:
        return ""
    if steady["begin_s"] is None:
        return f"<h2>Steady state</h2><p>No steady part: {html.escape(steady['reason'])}.</p>"
    rows = [("", "steady part", "all")]
    rows += [(label, *texts) for label, texts in steady_cells(summary)]
    text = (
        f"From {steady['begin_s']:.2f} s to {steady['end_s']:.2f} s after the first measured "
        f"request was sent; {steady['dropped_requests']} requests before."
    )
    return f"<h2>Steady state</h2><p>{text}</p>{_table(rows)}{bullets(steady['notes'])}"


def _stalls(stalls: dict[str, Any] | None) -> str:
    if stalls is None:
        return ""
    first = html.escape(next(stall_lines(stalls)))
    if not stalls["count"]:
        return f"<h2>Stalls</h2><p>{first}.</p>"
    causes = [("", "stalls", "of the lost time", "at any moment"), *cause_cells(stalls)]
    longest = [("longest: at, s", "request", "gap, ms", "causes")]
    for each in stalls["longest"]:
        names = ", ".join(CAUSE_NAMES[cause] for cause in each["causes"])
        longest.append(
            (f"{each['begin_s']:.2f}", str(each["index"]), f"{each['gap_ms']:.1f}", names)
        )
    return f"<h2>Stalls</h2><p>{first}.</p>{_table(causes)}{_table(longest)}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = [
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for label, *cells in rows
    ]
    return table(lines, facts=True)


def found_warmup(steady: dict[str, Any] | None, begin_s: float) -> list[tuple[str, float, float]]:
    """Name, begin and end of the warm-up that was found, on the page's time; nothing without one.

    `begin_s`: when the first measured request was sent.
    """
    if steady is None or not steady["dropped_requests"]:
        return []
    return [("found warm-up", begin_s, begin_s + steady["begin_s"])]


def stalls_plot(
    run: RunDir, stalls: dict[str, Any] | None, begin_s: float, origin_ns: float
) -> go.Figure | None:
    """Stalls over time, with what waited in the servers and how full their caches were.

    `begin_s`: when the first measured request was sent, on the page's time, whose 0 is `origin_ns`.
    Raises RunDirError where the servers' table is damaged.
    """
    if stalls is None or not stalls["count"]:
        return None
    begins = begin_s + np.arange(len(stalls["counts"])) * stalls["bin_s"]
    figure = go.Figure(
        go.Bar(x=begins.tolist(), y=stalls["counts"], name="stalls", offset=0,
               width=stalls["bin_s"])
    )  # fmt: skip
    for replica in read_replicas(run, sorted(all_names())):
        if kind_of(replica) is None:
            continue
        for name, axis in (("waiting", "y"), ("kv_usage_share", "y2")):
            level = level_of(replica, name, replica.whole)
            if level is not None:
                figure.add_scatter(
                    x=((level.times_ns - np.int64(origin_ns)) / 1e9).tolist(),
                    y=level.values.tolist(),
                    name=html.escape(f"{replica.name}: {name}"),
                    mode="lines",
                    yaxis=axis,
                )
    return figure.update_layout(
        title="Stalls over time",
        xaxis_title="time, s",
        yaxis_title="stalls; requests waiting",
        yaxis2={"title": "share", "overlaying": "y", "side": "right", "range": [0, 1]},
        legend={"orientation": "h"},
    )
