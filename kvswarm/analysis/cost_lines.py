"""Cost and energy in words, for the terminal and the page alike.

In:  the sections `cost` and `energy` of summary.json.  Out: plain text, to be escaped.
"""

from __future__ import annotations

import math
from typing import Any, Final

IDLE_BY: Final = {
    "gpu_utilisation": "by the GPUs' own word",
    "in_flight": "no request was in flight",
}
REPLICAS_BY: Final = {
    "given": "as it was given",
    "cluster": "as the cluster had them",
    "before": "as before the load",
}
COST_ROWS: Final = (
    ("1 million output tokens", "per_million_output_tokens_usd", "the whole cost by output tokens"),
    ("1 million input tokens", "per_million_input_tokens_usd", "the whole cost by input tokens"),
    ("1 million tokens", "per_million_tokens_usd", "input and output tokens, which weigh the same"),
    ("request", "per_request_usd", "that ended in the window, failed ones too"),
    ("successful request", "per_successful_request_usd", "that succeeded"),
    ("good request", "per_good_request_usd", "that met every SLO, with valid output where checked"),
    ("valid answer", "per_valid_answer_usd", "whose output was checked and found valid"),
)
ENERGY_ROWS: Final = (
    ("1,000 output tokens", "wh_per_1k_output_tokens", "Wh"),
    ("successful request", "j_per_request", "J"),
    ("output token", "j_per_output_token", "J"),
)


def usd(value: float | None) -> str:
    """An amount, below a dollar with four digits that say something; `-` where there is none."""
    if value is None:
        return "-"
    decimals = 2 if value >= 1 or value <= 0 else 3 - math.floor(math.log10(value))
    return f"${value:,.{decimals}f}"


def cost_lines(cost: dict[str, Any] | None) -> list[str]:
    """A line of the figures, one of what was paid for, and the notes."""
    if cost is None:
        return []
    if cost["window_usd"] is None:
        return list(cost["notes"])
    shown = [
        f"{usd(cost[key])} per {words}"
        for words, key, _ in COST_ROWS
        if cost[key] is not None and key != "per_request_usd"
    ]
    lines = [", ".join([f"{usd(cost['per_hour_usd'])} per hour", *shown]), machine_text(cost)]
    if cost["idle_usd"] is not None:
        lines.append(
            f"{cost['idle_share']:.1%} of it idle ({IDLE_BY[cost['idle_by']]}), "
            f"{usd(cost['idle_usd'])} of {usd(cost['window_usd'])}"
        )
    return [*lines, *cost["notes"]]


def machine_text(cost: dict[str, Any]) -> str:
    """What was paid for, and at what price."""
    replicas = cost["replicas_mean"]
    count = "?" if replicas is None else f"{replicas:.4g}"
    parts = [f"{count} replica" + ("" if count == "1" else "s")]
    if cost["gpus_per_replica"]:
        parts.append(f"of {cost['gpus_per_replica']} {cost['gpu'] or 'GPU'}")
    if cost["replica_hour_usd"] is not None:
        parts.append(f"at {usd(cost['replica_hour_usd'])} an hour each")
    if cost["replicas_by"] is not None:
        parts.append(f"({REPLICAS_BY[cost['replicas_by']]})")
    told = [cost["price_source"], cost["price_region"], cost["price_as_of"]]
    # An address says little in a line; whoever wants it finds it in summary.json.
    source = ", ".join(text for text in told if text is not None and "://" not in text)
    return " ".join(parts) + (f"; prices: {source}" if source else "")


def energy_lines(energy: dict[str, Any] | None) -> list[str]:
    """The same of the energy."""
    if energy is None:
        return []
    if energy["energy_j"] is None:
        return list(energy["notes"])
    count = f"{energy['gpus']} GPU" + ("s" if energy["gpus"] != 1 else "")
    parts = [f"{energy['energy_j']:,.0f} J by {count}, {energy['mean_power_w']:,.0f} W"]
    parts += [
        f"{energy[key]:.4g} {unit} per {words}"
        for words, key, unit in ENERGY_ROWS
        if energy[key] is not None
    ]
    lines = [", ".join(parts)]
    if energy["above_idle_wh_per_1k_output_tokens"] is not None:
        lines.append(
            f"above the {energy['idle_w_per_gpu']:g} W of an idle GPU: "
            f"{energy['above_idle_j']:,.0f} J, "
            f"{energy['above_idle_wh_per_1k_output_tokens']:.4g} Wh per 1,000 output tokens"
        )
    return [*lines, *energy["notes"]]
