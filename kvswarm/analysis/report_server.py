"""The servers in report.html: a table of what they told, and plots over time.

In:  the summary's `server`, server.parquet.  Out: HTML, and plotly figures.
"""

from __future__ import annotations

import html
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go

from kvswarm.analysis.gpu_figures import gpu_names, power_level
from kvswarm.analysis.page import bullets, meaning, table
from kvswarm.analysis.series import Level, read_replicas
from kvswarm.analysis.server_lines import COMPARED, compared_cells, figure_cells, gpu_text
from kvswarm.analysis.server_told import all_names, kind_of, level_of
from kvswarm.rundir import RunDir

PLOTS: Final = (
    ("Requests in the servers", "requests", ("running", "waiting")),
    ("KV cache in use", "share", ("kv_usage_share",)),
)

MEANINGS: Final = {
    "queue, ms": "mean time that a request waited in the server before it was worked on",
    "prefill, ms": "mean time in which prompts were read, by the server",
    "decode, ms": "mean time in which output tokens were made, by the server",
    "TTFT, ms": "mean, from the request's arrival to its first token, by the server",
    "ITL, ms": "mean gap between tokens, by the server",
    "TPOT, ms": "mean time per output token of a request, by the server",
    "E2E, ms": "mean, from the request's arrival to its end, by the server",
    "running": "requests that were worked on at a time, mean over the window",
    "waiting": "requests that waited at a time, mean over the window",
    "KV cache": "share of the memory for keys and values that was in use, and how large it is",
    "prefix cache": "share of prompt tokens whose keys and values were there already",
    "speculation": "drafted tokens that were accepted",
    "requests": "that ended, by how they ended",
    "prompt tokens": "that the server read",
    "output tokens": "that the server made",
    "GPU": "of DCGM's exporter, mean over the window",
}
"""What the server's figures mean, where their label does not say it."""


def server_html(server: dict[str, Any] | None) -> str:
    """The section of the page; empty where no server told anything."""
    if server is None:
        return ""
    columns = {"all": server, **server["replicas"]} if server["replicas"] else {"": server}
    cells = {name: dict(figure_cells(figures)) for name, figures in columns.items()}
    labels = dict.fromkeys(label for column in cells.values() for label in column)
    rows = [_row("", list(columns))] if server["replicas"] else []
    rows += [_row(label, [column.get(label, "-") for column in cells.values()]) for label in labels]
    if gpu := gpu_text(server["gpu"]):
        rows.append(_row("GPU", [gpu]))
    parts = [table(rows, facts=True)]
    if server["reconciliation"] is not None:
        head = _row("", ["client", "server", "difference", "explained"])
        lines = [
            _row(label, compared_cells(server["reconciliation"][name]))
            for name, label in COMPARED.items()
        ]
        parts.append(table([head, *lines], facts=True))
    return f"<h2>Server</h2>{''.join(parts)}{bullets(server['notes'])}"


def server_plots(run: RunDir, origin_ns: float) -> list[go.Figure]:
    """Running and waiting requests, KV cache and GPU power over time, of each replica.

    Raises RunDirError where the table is damaged.
    """
    replicas = read_replicas(run, sorted(all_names() | gpu_names()))
    figures = []
    for title, unit, names in PLOTS:
        lines = {
            (replica.name, name): found
            for replica in replicas
            if kind_of(replica) is not None
            for name in names
            if (found := level_of(replica, name, replica.whole)) is not None
        }
        figures.append(_figure(title, unit, lines, origin_ns))
    powers = {
        (replica.name, "power"): found
        for replica in replicas
        if (found := power_level(replica, replica.whole)) is not None
    }
    figures.append(_figure("GPU power", "W", powers, origin_ns))
    return [figure for figure in figures if figure is not None]


def _row(label: str, cells: list[str]) -> str:
    texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    name = meaning(label, MEANINGS[label]) if label in MEANINGS else html.escape(label)
    return f"<tr><th>{name}</th>{texts}</tr>"


def _figure(
    title: str, unit: str, lines: dict[tuple[str, str], Level], origin_ns: float
) -> go.Figure | None:
    if not lines:
        return None
    figure = go.Figure()
    several = len({replica for replica, _ in lines}) > 1
    for (replica, name), found in lines.items():
        seconds = (found.times_ns - np.int64(origin_ns)) / 1e9
        figure.add_scatter(
            x=seconds.tolist(),
            y=found.values.tolist(),
            name=html.escape(f"{replica}: {name}" if several else name),
            mode="lines",
        )
    return figure.update_layout(title=title, xaxis_title="time, s", yaxis_title=unit)
