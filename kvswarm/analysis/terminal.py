"""The figures of a run as a table for a terminal."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.server_lines import server_lines
from kvswarm.analysis.wording import effect_lines, outputs_text, variant_cells

SHOWN: Final = (
    ("TTFT", "ttft_ms"),
    ("TTFT from intended", "ttft_from_intended_ms"),
    ("ITL", "itl_ms"),
    ("TPOT", "tpot_ms"),
    ("E2E", "e2e_ms"),
    ("connect", "connect_ms"),
)
COLUMNS: Final = ("mean", "p50", "p90", "p99", "max")
COLOURS: Final = {"valid": "green", "degraded": "yellow", "invalid": "red"}


def render(summary: dict[str, Any], console: Console) -> None:
    """Print figures, gates and verdict of a summary."""
    run, requests = summary["run"], summary["requests"]
    console.print(
        escape(f"{run['profile']} ({run['pattern']}) on {run['model']} at {run['target']}"),
        style="bold",
        soft_wrap=True,
    )
    table = Table("ms", *COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, key in SHOWN:
        latency = summary[key]
        if latency["count"]:
            table.add_row(label, *(f"{latency[name]:.2f}" for name in COLUMNS))
    console.print(table)
    if summary["variants"]:
        console.print(_variants(summary["variants"]))
    throughput, goodput = summary["throughput"], summary["goodput"]
    lines = [
        f"requests   {requests['sent']} sent, {requests['ok']} ok, {requests['failed']} failed, "
        f"{requests['cancelled']} cancelled in {summary['duration_s']:.2f} s",
        f"throughput {throughput['output_tokens_per_s']:.1f} output tokens/s, "
        f"{throughput['input_tokens_per_s']:.1f} input tokens/s, "
        f"{throughput['requests_per_s']:.2f} requests/s",
        f"goodput    {goodput['requests_per_s']:.2f} requests/s, {goodput['share']:.1%}",
    ]
    if requests["by_error"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in requests["by_error"].items())
        lines.append(f"errors     {kinds}")
    if summary["outputs"] is not None:
        lines.append(f"outputs    {outputs_text(summary['outputs'])}")
    lines += [f"effect     {line}" for line in effect_lines(summary)]
    if summary["server"] is not None:
        lines += [f"{label:10} {text}" for label, text in server_lines(summary["server"])]
    for gate in summary["gates"]:
        value = "none" if gate["value"] is None else f"{gate['value']:.4g}"
        state = "passed" if gate["passed"] else "MISSED"
        lines.append(f"gate       {gate['name']} {value}, limit {gate['limit']:g}: {state}")
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
    verdict = summary["verdict"]
    console.print(f"verdict    {verdict['status']}", style=COLOURS[verdict["status"]])
    for reason in verdict["reasons"]:
        console.print(escape(f"  - {reason}"), soft_wrap=True, highlight=False)


def _variants(entries: list[dict[str, Any]]) -> Table:
    heading, *rows = variant_cells(entries)
    table = Table(*heading)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
