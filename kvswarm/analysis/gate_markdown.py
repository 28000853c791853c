"""What a gate says as GitHub-flavoured Markdown, for a job's summary or a comment.

In:  a `Gating`.  Out: text, in which nothing that a run's files hold can be markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from kvswarm.analysis.gate_words import (
    change_text,
    invalid_text,
    limit_text,
    margin_text,
    reference_text,
    summary_text,
    value_text,
)
from kvswarm.analysis.gating import Check, Gated, Gating

MARKS: Final = {"passed": "✅ passed", "failed": "❌ failed", "unknown": "❔ cannot tell"}
RESULTS: Final = {"passed": "✅", "failed": "❌", "invalid": "🚫"}
MARKUP: Final = re.compile(r"[\\`*_\[\]|~@#!]")


def gate_markdown(gating: Gating) -> str:
    """The page."""
    words = summary_text(gating).partition(": ")
    parts = [
        f"## {RESULTS[gating.word]} kvswarm {words[0]}",
        f"{plain(words[2].capitalize())}. Run {plain(gating.run.path)} is "
        f"**{plain(gating.run.status)}**, SLOs of {plain(gating.slo)}.",
        *(f"**Invalid:** {plain(invalid_text(each))}" for each in gating.invalid),
        _limits([check for check in gating.checks if check.kind != "regression"]),
        _changes([check for check in gating.checks if check.kind == "regression"]),
        _details("The run", gating.run),
        "" if gating.baseline is None else _details("The baseline", gating.baseline),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text that Markdown, a table and HTML show as it is, in one line."""
    one_line = " ".join(text.split())
    return MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", html.escape(one_line))


def _limits(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    rows = [
        [
            MARKS[check.outcome],
            f"`{check.name}`",
            value_text(check) if check.kind == "slo" else "",
            limit_text(check),
            _why(check),
        ]
        for check in checks
    ]
    return _table(["", "SLO", "measured", "limit", ""], rows)


def _changes(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    rows = [
        [
            MARKS[check.outcome],
            f"`{check.name}`",
            reference_text(check),
            value_text(check),
            change_text(check),
            "" if check.change is None else margin_text(check.change),
            _why(check),
        ]
        for check in checks
    ]
    heads = ["", "regression", "baseline", "run", "change, 95 % interval", "margin", ""]
    return _table(heads, rows)


def _why(check: Check) -> str:
    return plain("; ".join(each for each in (check.reason, check.note) if each))


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _details(title: str, gated: Gated) -> str:
    run, requests = gated.summary["run"], gated.summary["requests"]
    facts = {
        "directory": gated.path,
        "id": run["id"],
        "profile": run["profile"],
        "model": run["model"],
        "target": run["target"],
        "started": run["started"] or "unknown",
        "requests": f"{requests['sent']} sent, {requests['ok']} ok, {requests['failed']} failed",
        "verdict": "; ".join((gated.status, *gated.summary["verdict"]["reasons"])),
        "notes": "; ".join(run["notes"]) or "none",
    }
    lines = "\n".join(f"- {name}: {plain(str(text))}" for name, text in facts.items())
    return f"<details><summary>{title}</summary>\n\n{lines}\n\n</details>"
