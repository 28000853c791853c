"""report.html: one page for people, self-contained, readable offline.

In:  run.json, requests.parquet and the summary.  Out: the page as text.
Plots are drawn by plotly, whose script is in the page. All text from outside is escaped.
Distributions are of the measured phase, as all figures are; plots over time show the whole run,
with warm-up and cool-down shaded.
"""

from __future__ import annotations

import html
import shlex
from string import Template
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from kvswarm.analysis.estimates import estimate_lines
from kvswarm.analysis.interleaved import interleave_lines
from kvswarm.analysis.page import PAGE, bullets, embedded, meaning, table
from kvswarm.analysis.report_cost import cost_html
from kvswarm.analysis.report_course import course_html, found_warmup, stalls_plot
from kvswarm.analysis.report_replicas import replicas_html, replicas_plot
from kvswarm.analysis.report_server import server_html, server_plots
from kvswarm.analysis.rows import (
    MOMENTS,
    Flags,
    Floats,
    ahead_ns,
    clock_offsets_ns,
    open_table,
    told_or_events,
)
from kvswarm.analysis.samples import spread_over
from kvswarm.analysis.wording import (
    amount,
    claim_lines,
    effect_lines,
    gate_lines,
    outputs_text,
    run_title,
    variant_cells,
)
from kvswarm.rundir import RunDir, RunInfo

MAX_POINTS: Final = 3000
MAX_ITL_ROWS: Final = 4000
TIME_BINS: Final = 120
LENGTHS_APART: Final = 2
"""From this factor between the shortest and the longest prompt on, TTFT is drawn against length."""
DEFINITIONS: Final = {
    "ttft_ms": ("TTFT", "first token minus sent"),
    "ttft_from_intended_ms": ("TTFT from intended", "first token minus the intended start"),
    "itl_ms": ("ITL", "gap between consecutive token-bearing events"),
    "tpot_ms": ("TPOT", "(last token - first token) / (output tokens - tokens of first event)"),
    "e2e_ms": ("E2E", "end of the response minus sent"),
    "connect_ms": ("connect", "DNS, TCP and TLS; not part of TTFT"),
}
STATISTICS: Final = {
    "mean": "arithmetic mean",
    "p50": "half of the values are at or below: the median",
    "p75": "three of four values are at or below",
    "p90": "90 of 100 values are at or below",
    "p95": "95 of 100 values are at or below",
    "p99": "99 of 100 values are at or below",
    "p999": "999 of 1,000 values are at or below",
    "max": "the largest value",
    "count": "how many values there are: requests, or for ITL gaps",
}
FACTS: Final = {
    "pattern": "how requests arrive over time",
    "requests": "of the measured phase; cancelled: in flight when the run ended",
    "errors": "failed requests by kind; metrics.md defines each kind",
    "duration": "from the first sent to the last end; of a run that ends by time, that time",
    "output tokens/s": "tokens of successful requests, as the server counted them, by the duration",
    "requests/s": "successful requests by the duration",
    "goodput": "requests/s that met every SLO, with valid output where checked; and their share",
    "seed": "of prompts and arrivals: the same seed sends the same requests",
}
COLUMNS: Final = (
    "intended_ns", "sent_ns", "first_token_ns", "end_ns", "ttft_ms", "e2e_ms", "error_kind",
    "events", "completion_tokens", "prompt_tokens", "phase", "worker",
)  # fmt: skip
SHADE: Final = {
    "fillcolor": "#888", "opacity": 0.2, "line_width": 0, "layer": "below",
    "annotation_position": "top left",
}  # fmt: skip
"""How the parts of a run look that are in no figure."""


def report_page(run: RunDir, info: RunInfo, summary: dict[str, Any]) -> str:
    """Draw the page of a run."""
    verdict = summary["verdict"]
    columns = _Columns(run)
    return Template(PAGE).substitute(
        title=html.escape(run_title(summary["run"])),
        status=html.escape(verdict["status"]),
        reasons=bullets(verdict["reasons"]),
        facts=_facts(summary),
        latencies=_latencies(summary),
        gates=_gates(summary),
        features=course_html(summary) + _features(summary),
        server=server_html(summary["server"]),
        replicas=_replicas(summary, columns),
        cost=cost_html(summary),
        plots="".join(_plots(run, columns, summary)),
        plotly=get_plotlyjs(),
        repeat=html.escape(shlex.join(info.argv or info.locust_argv)),
        versions=html.escape(", ".join(f"{name} {text}" for name, text in info.versions.items())),
    )


def _row(cells: list[tuple[str, str]]) -> str:
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for tag, text in cells) + "</tr>"


def _facts(summary: dict[str, Any]) -> str:
    run, requests = summary["run"], summary["requests"]
    throughput, goodput = summary["throughput"], summary["goodput"]
    errors = ", ".join(f"{kind} {count}" for kind, count in requests["by_error"].items())
    facts = {
        "target": f"{run['target'] or 'not told'} ({run['endpoint'] or 'not told'})",
        "pattern": run["pattern"] or "not told",
        "started": run["started"] or "",
        "ended": run["ended"] or "cut off",
        "requests": f"{requests['sent']} sent, {requests['ok']} ok, {requests['failed']} failed, "
        f"{requests['cancelled']} cancelled",
        "errors": errors or "none",
        "duration": f"{amount(summary['duration_s'])} s",
        "output tokens/s": amount(throughput["output_tokens_per_s"], ".1f"),
        "requests/s": amount(throughput["requests_per_s"]),
        "goodput": f"{amount(goodput['requests_per_s'])} requests/s "
        f"({amount(goodput['share'], '.1%')})",
        "seed": "not told" if run["seed"] is None else str(run["seed"]),
        "notes": "; ".join(run["notes"]) or "none",
    }
    names = {
        name: meaning(name, FACTS[name]) if name in FACTS else html.escape(name) for name in facts
    }
    return "".join(
        _row([("th", names[name]), ("td", html.escape(text))]) for name, text in facts.items()
    )


def _latencies(summary: dict[str, Any]) -> str:
    heads = [("th", meaning(name, text)) for name, text in STATISTICS.items()]
    lines = [_row([("th", "ms"), *heads])]
    for key, (label, text) in DEFINITIONS.items():
        figures = summary[key]
        cells = [("th", meaning(label, text))]
        for statistic in STATISTICS:
            value = figures[statistic]
            shown = "-" if value is None else f"{value:.2f}" if statistic != "count" else str(value)
            cells.append(("td", shown))
        lines.append(_row(cells))
    return "".join(lines)


def _gates(summary: dict[str, Any]) -> str:
    return bullets(gate_lines(summary) or ["none"])


def _features(summary: dict[str, Any]) -> str:
    """Variants, effects and outputs, where the run has them."""
    parts = [_listed("Two targets in turn", interleave_lines(summary["interleave"]))]
    if summary["variants"]:
        heading, *rows = variant_cells(summary["variants"])
        lines = [_row([("th", html.escape(cell)) for cell in heading])]
        for name, *cells in rows:
            texts = [("td", html.escape(cell)) for cell in cells]
            lines.append(_row([("th", html.escape(name)), *texts]))
        parts.append(f"<h2>Variants</h2>{table(lines)}")
    parts.append(_listed("Effects", effect_lines(summary)))
    outputs = summary["outputs"]
    if outputs is not None:
        details = [f"{entry['detail']} ({entry['count']})" for entry in outputs["details"]]
        text = html.escape(outputs_text(outputs))
        parts.append(f"<h2>Outputs</h2><p>{text}</p>{bullets(details)}")
    if summary["estimate"] is not None:
        parts.append(_listed("Against the estimate", estimate_lines(summary["estimate"])))
    parts.append(_listed("Claims of the profile", claim_lines(summary)))
    return "".join(parts)


def _listed(heading: str, lines: list[str]) -> str:
    """A section of lines; empty where there are none."""
    return f"<h2>{heading}</h2>{bullets(lines)}" if lines else ""


class _Columns:
    """The columns that the plots need, whole; of the gaps only a sample of the rows."""

    def __init__(self, run: RunDir) -> None:
        with open_table(run) as file:
            table = file.read(columns=list(COLUMNS))
            plain = {name: table.column(name).to_numpy() for name in COLUMNS}
            self.rows = table.num_rows
            ahead = ahead_ns(plain["worker"].astype(float), clock_offsets_ns(run.read_info()))
            for name in set(MOMENTS) & set(COLUMNS):
                plain[name] = plain[name].astype(float) - ahead
            # Not the first sent_ns: a run that found no server has none; an imported run may lack
            # the other.
            intended, sent = (plain[name].astype(float) for name in ("intended_ns", "sent_ns"))
            plain["intended_ns"] = np.where(np.isnan(intended), sent, intended)
            origin = np.fmin.reduce(plain["intended_ns"]) if self.rows else 0.0
            self.origin_ns = float(origin)
            self.intended_s = (plain["intended_ns"] - origin) / 1e9
            self.sent_s = (plain["sent_ns"] - origin) / 1e9
            self.end_s = (plain["end_ns"] - origin) / 1e9
            self.first_s = (plain["first_token_ns"] - origin) / 1e9
            self.ttft_ms = plain["ttft_ms"].astype(float)
            self.e2e_ms = plain["e2e_ms"].astype(float)
            self.prompt_tokens = plain["prompt_tokens"].astype(float)
            self.tokens = told_or_events(
                plain["completion_tokens"].astype(float), plain["events"].astype(float)
            )
            self.errors = plain["error_kind"]
            self.ok = np.array([kind is None for kind in self.errors], dtype=bool)
            self.phases = plain["phase"]
            self.measured: Flags = self.phases == "measure"
            self.gap_s, self.gap_ms, self.gap_measured = self._gaps(file)

    def _gaps(self, file: Any) -> tuple[Floats, Floats, Flags]:
        step = max(1, -(-self.rows // MAX_ITL_ROWS))
        starts, gaps, measured = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=bool)]
        row = 0
        for batch in file.iter_batches(batch_size=4096, columns=["itl_us"]):
            for values in batch.column(0):
                if row % step == 0 and self.ok[row] and values.values is not None:
                    one = values.values.to_numpy().astype(float) / 1000
                    gaps.append(one)
                    starts.append(self.first_s[row] + np.cumsum(one) / 1000)
                    measured.append(np.full(len(one), self.measured[row]))
                row += 1
        return np.concatenate(starts), np.concatenate(gaps), np.concatenate(measured)

    def first_good_s(self) -> float:
        """When the first measured request that succeeded was sent."""
        return float(self.sent_s[self.ok & self.measured].min(initial=np.inf))

    def unmeasured(self) -> list[tuple[str, float, float]]:
        """Name, begin and end of warm-up and cool-down, where there are any, in s."""
        spans = []
        last_s = 0.0 if np.isnan(self.end_s).all() else float(np.nanmax(self.end_s))
        warm, cool = self.phases == "warmup", self.phases == "cooldown"
        if warm.any():
            spans.append(("warm-up", 0.0, float(self.intended_s[~warm].min(initial=last_s))))
        if cool.any():
            spans.append(("cool-down", float(self.intended_s[cool].min()), last_s))
        return spans


def _replicas(summary: dict[str, Any], columns: _Columns) -> str:
    """Cold start and scaling, with the TTFT of all requests that succeeded."""
    wanted = columns.ok & ~np.isnan(columns.ttft_ms)
    points = _thinned(columns.sent_s[wanted], columns.ttft_ms[wanted])
    figure = replicas_plot(summary["replicas"], *points)
    plot = "" if figure is None else embedded(figure, "replicas")
    return replicas_html(summary["replicas"], plot)


def run_figures(run: RunDir, summary: dict[str, Any]) -> list[go.Figure]:
    """The plots of a run's page. Raises RunDirError where its tables are damaged."""
    return _figures(run, _Columns(run), summary)


def _plots(run: RunDir, columns: _Columns, summary: dict[str, Any]) -> list[str]:
    figures = _figures(run, columns, summary)
    return [embedded(figure, str(place)) for place, figure in enumerate(figures)]


def _figures(run: RunDir, columns: _Columns, summary: dict[str, Any]) -> list[go.Figure]:
    over_time = [
        _over_time(columns, "TTFT", columns.ttft_ms),
        _over_time(columns, "E2E", columns.e2e_ms),
        _itl_over_time(columns),
        _tokens_per_s(columns),
        _errors(columns),
        *server_plots(run, columns.origin_ns),
        stalls_plot(run, summary["stalls"], columns.first_good_s(), columns.origin_ns),
    ]
    found = found_warmup(summary["steady"], columns.first_good_s())
    for name, begin_s, end_s in (*columns.unmeasured(), *found):
        for figure in over_time:
            if figure is not None:
                figure.add_vrect(x0=begin_s, x1=end_s, annotation_text=name, **SHADE)
    distributions = [
        _distribution("TTFT", columns.ttft_ms[columns.ok & columns.measured]),
        _distribution("ITL", columns.gap_ms[columns.gap_measured]),
        _ttft_by_prompt(columns),
    ]
    figures = [*over_time[:2], *distributions, *over_time[2:]]
    return [figure for figure in figures if figure is not None]


def _thinned(times: NDArray[Any], values: NDArray[Any]) -> tuple[list[float], list[float]]:
    """At most MAX_POINTS points; the largest of each stretch stays, so that no spike is hidden."""
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    if len(values) > MAX_POINTS:
        stretches = np.array_split(np.arange(len(values)), MAX_POINTS)
        keep = np.array([stretch[np.argmax(values[stretch])] for stretch in stretches])
        times, values = times[keep], values[keep]
    return times.tolist(), values.tolist()


def _over_time(columns: _Columns, name: str, values_ms: NDArray[Any]) -> go.Figure | None:
    wanted = columns.ok & ~np.isnan(values_ms) & ~np.isnan(columns.sent_s)
    if not wanted.any():
        return None
    times, values = _thinned(columns.sent_s[wanted], values_ms[wanted])
    figure = go.Figure(go.Scatter(x=times, y=values, mode="markers", marker={"size": 4}))
    return figure.update_layout(
        title=f"{name} over time", xaxis_title="sent, s", yaxis_title=f"{name}, ms"
    )


def _distribution(name: str, values_ms: NDArray[Any]) -> go.Figure | None:
    values = np.sort(values_ms[~np.isnan(values_ms)])
    if not len(values):
        return None
    shares = np.linspace(0, 1, min(len(values), 1000))
    figure = go.Figure(
        go.Scatter(x=np.quantile(values, shares).tolist(), y=shares.tolist(), mode="lines")
    )
    return figure.update_layout(
        title=f"{name}: share of {len(values)} at or below",
        xaxis_title=f"{name}, ms",
        yaxis_title="share",
    )


def _ttft_by_prompt(columns: _Columns) -> go.Figure | None:
    """TTFT against the length of the prompt, where lengths differ by a factor of two or more."""
    wanted = columns.ok & columns.measured & ~np.isnan(columns.prompt_tokens)
    tokens = columns.prompt_tokens[wanted]
    if not len(tokens) or tokens.max() < LENGTHS_APART * tokens.min():
        return None
    lengths, values = _thinned(tokens, columns.ttft_ms[wanted])
    figure = go.Figure(go.Scatter(x=lengths, y=values, mode="markers", marker={"size": 4}))
    return figure.update_layout(
        title="TTFT against prompt length", xaxis_title="prompt tokens", yaxis_title="TTFT, ms"
    )


def _bins(end_s: float) -> NDArray[Any]:
    return np.linspace(0, max(end_s, 1e-3), TIME_BINS + 1)


def _itl_over_time(columns: _Columns) -> go.Figure | None:
    if not len(columns.gap_ms) or np.isnan(columns.gap_s).all():
        return None
    edges = _bins(float(columns.gap_s.max()))
    place = np.clip(np.searchsorted(edges, columns.gap_s, side="right") - 1, 0, TIME_BINS - 1)
    order = np.argsort(place, kind="stable")
    groups = np.split(columns.gap_ms[order], np.searchsorted(place[order], np.arange(1, TIME_BINS)))
    figure = go.Figure()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        values = [float(np.quantile(group, share)) if len(group) else None for group in groups]
        figure.add_scatter(x=edges[:-1].tolist(), y=values, name=name, mode="lines")
    return figure.update_layout(
        title="ITL over time", xaxis_title="arrival, s", yaxis_title="ITL, ms"
    )


def _tokens_per_s(columns: _Columns) -> go.Figure | None:
    wanted = columns.ok & ~np.isnan(columns.first_s)
    if not wanted.any():
        return None
    edges = _bins(float(columns.end_s[wanted].max()))
    # Each request's tokens evenly between its first token and its end.
    starts, ends = columns.first_s[wanted], columns.end_s[wanted]
    tokens = spread_over(edges, starts, ends, columns.tokens[wanted])
    rate = np.maximum(tokens, 0.0) / (edges[1] - edges[0])  # sums of large numbers, less others
    figure = go.Figure(go.Scatter(x=edges[:-1].tolist(), y=rate.tolist(), mode="lines"))
    return figure.update_layout(
        title="Output tokens/s", xaxis_title="time, s", yaxis_title="tokens/s"
    )


def _errors(columns: _Columns) -> go.Figure | None:
    if columns.ok.all() or np.isnan(columns.end_s).all():
        return None
    edges = _bins(float(np.nanmax(columns.end_s)))
    figure = go.Figure()
    for kind in sorted(set(columns.errors[~columns.ok].tolist())):
        counts, _ = np.histogram(columns.end_s[columns.errors == kind], bins=edges)
        figure.add_bar(x=edges[:-1].tolist(), y=counts.tolist(), name=str(kind))
    return figure.update_layout(
        title="Errors over time", barmode="stack", xaxis_title="end, s", yaxis_title="requests"
    )
