"""The figures of features in words and cells, for the terminal and the page alike.

In:  sections of summary.json.  Out: plain text; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvswarm.analysis.effects import effect_text

VARIANT_COLUMNS: Final = (
    ("TTFT", "ttft_ms", "p50"),
    ("TTFT p99", "ttft_ms", "p99"),
    ("ITL p99", "itl_ms", "p99"),
    ("TPOT", "tpot_ms", "p50"),
    ("E2E", "e2e_ms", "p50"),
)
"""Columns of the table of variants in ms: heading, latency and statistic."""


def amount(value: float | None, form: str = ".2f") -> str:
    """A figure that an imported run may lack."""
    return "-" if value is None else format(value, form)


def run_title(run: dict[str, Any]) -> str:
    """What a run was of: its profile, or the tool that it was imported from, and its model."""
    model = run["model"] or "a model that is not told"
    told = run["imported"]
    if told is None:
        return f"{run['profile']} on {model}"
    return f"{told['file']}, imported from {told['tool']}, on {model}"


def outputs_text(outputs: dict[str, Any]) -> str:
    """How answers were judged, in a line."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in outputs["by_score"].items())
    if outputs["valid_share"] is None:
        return kinds
    return f"{outputs['valid_share']:.1%} valid of {outputs['checked']} checked: {kinds}"


def variant_cells(entries: list[dict[str, Any]]) -> list[list[str]]:
    """The variants as a table: its headings, then a row for each."""
    several = len({entry["scenario"] for entry in entries}) > 1
    rows = [["ms (p50)", "ok", *(heading for heading, _, _ in VARIANT_COLUMNS), "valid"]]
    for entry in entries:
        values = [entry[key][statistic] for _, key, statistic in VARIANT_COLUMNS]
        checked = sum(entry["outputs"].values())
        rows.append(
            [
                _name(entry, several=several),
                f"{entry['ok']}/{entry['sent']}",
                *("-" if value is None else f"{value:.2f}" for value in values),
                f"{entry['outputs'].get('valid', 0) / checked:.1%}" if checked else "-",
            ]
        )
    return rows


def _name(entry: dict[str, Any], *, several: bool) -> str:
    variant, scenario = entry["variant"], entry["scenario"]
    if not several or not variant:
        return str(variant or scenario)
    return f"{scenario}: {variant}"


def effect_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line per pair of variants that is compared, and one for the baseline."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for effect in summary["effects"]:
        pairs.setdefault((effect["of"], effect["against"]), []).append(effect_text(effect))
    lines = [
        f"{of} against {against}: {', '.join(texts)}" for (of, against), texts in pairs.items()
    ]
    baseline = summary["baseline"]
    if baseline is not None:
        texts = ", ".join(effect_text(effect) for effect in baseline["effects"])
        lines.append(f"this run against {baseline['path']} ({baseline['verdict']}): {texts}")
    return lines


def claim_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the server runs of what the profile claims: contradictions in full, the rest by name."""
    claims = summary["claims"]
    if not claims:
        return []
    if summary["run"]["simulator"]:
        keys = ", ".join(claim["key"] for claim in claims)
        return [f"the simulator has no GPU and none of {keys}: its figures say nothing of them"]
    lines = [claim["sentence"] for claim in claims if claim["status"] == "contradicted"]
    for status, words in (("confirmed", "confirmed"), ("unknown", "cannot be told")):
        keys = ", ".join(claim["key"] for claim in claims if claim["status"] == status)
        if keys:
            lines.append(f"{words}: {keys}")
    return lines


def gate_lines(summary: Mapping[str, Any]) -> list[str]:
    """Gates with what they found."""
    lines = []
    for gate in summary["gates"]:
        value = "none" if gate["value"] is None else f"{gate['value']:.4g}"
        state = "passed" if gate["passed"] else "MISSED"
        why = f" ({gate['reason']})" if gate.get("reason") else ""
        lines.append(f"{gate['name']} {value}, limit {gate['limit']:g}: {state}{why}")
    return lines
