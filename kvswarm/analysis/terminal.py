"""The figures of a run as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvswarm.analysis.cost_lines import cost_lines, energy_lines
from kvswarm.analysis.course_lines import course_lines
from kvswarm.analysis.estimates import estimate_lines
from kvswarm.analysis.interleaved import interleave_lines
from kvswarm.analysis.replica_lines import replica_lines
from kvswarm.analysis.server_lines import server_lines
from kvswarm.analysis.wording import (
    amount,
    claim_lines,
    effect_lines,
    gate_lines,
    outputs_text,
    run_title,
    variant_cells,
)

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
    run = summary["run"]
    console.print(
        escape(_heading(run)),
        style="bold",
        soft_wrap=True,
    )
    table = Table("ms", *COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, key in SHOWN:
        latency = summary[key]
        if latency["count"] != 0:
            table.add_row(label, *(amount(latency[name]) for name in COLUMNS))
    console.print(table)
    if summary["variants"]:
        console.print(_variants(summary["variants"]))
    for label, text in told_lines(summary):
        console.print(escape(f"{label:10} {text}"), soft_wrap=True, highlight=False)
    verdict = summary["verdict"]
    console.print(f"verdict    {verdict['status']}", style=COLOURS[verdict["status"]])
    for reason in verdict["reasons"]:
        console.print(escape(f"  - {reason}"), soft_wrap=True, highlight=False)


def _heading(run: dict[str, Any]) -> str:
    if run["imported"] is not None:
        return run_title(run)
    return f"{run['profile']} ({run['pattern']}) on {run['model']} at {run['target']}"


def told_lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything that is told in a line, with its label."""
    requests, throughput, goodput = (summary[k] for k in ("requests", "throughput", "goodput"))
    yield (
        "requests",
        f"{requests['sent']} sent, {requests['ok']} ok, {requests['failed']} failed, "
        f"{requests['cancelled']} cancelled in {amount(summary['duration_s'])} s",
    )
    yield (
        "throughput",
        f"{amount(throughput['output_tokens_per_s'], '.1f')} output tokens/s, "
        f"{amount(throughput['input_tokens_per_s'], '.1f')} input tokens/s, "
        f"{amount(throughput['requests_per_s'])} requests/s",
    )
    yield (
        "goodput",
        f"{amount(goodput['requests_per_s'])} requests/s, {amount(goodput['share'], '.1%')}",
    )
    if requests["by_error"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in requests["by_error"].items())
        yield "errors", kinds
    if summary["outputs"] is not None:
        yield "outputs", outputs_text(summary["outputs"])
    yield from (("interleave", line) for line in interleave_lines(summary["interleave"]))
    yield from course_lines(summary)
    yield from (("effect", line) for line in effect_lines(summary))
    if summary["server"] is not None:
        yield from server_lines(summary["server"])
    if summary["replicas"] is not None:
        yield from (("replicas", line) for line in replica_lines(summary["replicas"]))
    yield from (("cost", line) for line in cost_lines(summary.get("cost")))
    yield from (("energy", line) for line in energy_lines(summary.get("energy")))
    if summary["estimate"] is not None:
        yield from (("estimate", line) for line in estimate_lines(summary["estimate"]))
    yield from (("claims", line) for line in claim_lines(summary))
    yield from (("gate", line) for line in gate_lines(summary))


def _variants(entries: list[dict[str, Any]]) -> Table:
    heading, *rows = variant_cells(entries)
    table = Table(*heading)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table
