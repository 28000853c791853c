"""Cost and energy in report.html: a table of each, what was paid for, and notes.

In:  the sections `cost` and `energy` of summary.json.  Out: HTML.
"""

from __future__ import annotations

import html
from typing import Any

from kvswarm.analysis.cost_lines import (
    COST_ROWS,
    ENERGY_ROWS,
    IDLE_BY,
    machine_text,
    usd,
)
from kvswarm.analysis.page import bullets, meaning, table


def cost_html(summary: dict[str, Any]) -> str:
    """The section of the page; empty where neither is known."""
    cost, energy = summary["cost"], summary["energy"]
    parts = [] if cost is None else [_cost(cost)]
    if energy is not None:
        parts.append(_energy(energy))
    return "".join(parts)


def _cost(cost: dict[str, Any]) -> str:
    rows = []
    if cost["window_usd"] is not None:
        rows += [_row("per hour", usd(cost["per_hour_usd"]), "of all replicas, as they were held")]
        rows += [_row(f"per {words}", usd(cost[key]), means) for words, key, means in COST_ROWS]
        rows.append(_row("the window", usd(cost["window_usd"]), "that the figures are of"))
        if cost["idle_usd"] is not None:
            told = f"{usd(cost['idle_usd'])} ({cost['idle_share']:.1%})"
            rows.append(_row("of it idle", told, IDLE_BY[cost["idle_by"]]))
    machine = f"<p>{html.escape(machine_text(cost))}</p>" if rows else ""
    return f"<h2>Cost</h2>{_table(rows)}{machine}{bullets(cost['notes'])}"


def _energy(energy: dict[str, Any]) -> str:
    rows = []
    if energy["energy_j"] is not None:
        rows.append(_row("the window", f"{energy['energy_j']:,.0f} J", "all GPUs together"))
        rows.append(_row("power", f"{energy['mean_power_w']:,.0f} W", "mean over the window"))
        for words, key, unit in ENERGY_ROWS:
            rows.append(
                _row(f"per {words}", _amount(energy[key], unit), "the whole energy by these")
            )
            above = energy[f"above_idle_{key}"]
            if above is not None:
                rows.append(
                    _row(f"per {words}, above idle", _amount(above, unit), "less idle power")
                )
    return f"<h2>Energy</h2>{_table(rows)}{bullets(energy['notes'])}"


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def _row(label: str, value: str, means: str) -> str:
    return f"<tr><th>{meaning(label, means)}</th><td>{html.escape(value)}</td></tr>"


def _table(rows: list[str]) -> str:
    return table(rows, facts=True) if rows else ""
