"""What servers say when something is wrong, as data, and docs/troubleshooting.md made of it.

In:  `troubleshooting.yaml`, and the rules that some of its rows name.
Out: rows; the page. `python -m kvswarm.guardrails.troubleshooting > docs/troubleshooting.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import yaml

from kvswarm.guardrails.catalog import rule_of

HEAD: Final = """\
# Troubleshooting

What the server, KServe or Kubernetes says, what it means, and what to do. Where a rule is named,
[`kvswarm validate`](validate.md) finds it before a server is started; [rules.md](rules.md) has its
examples. "..." stands for what varies.

This page is made from the code: `python -m kvswarm.guardrails.troubleshooting >
docs/troubleshooting.md`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One symptom. `rule`: the id of the rule whose reason and remedy these are; None: none."""

    theme: str
    see: str
    cause: str
    fix: str
    rule: str | None
    source: str


def rows() -> Iterator[Row]:
    """Every row, with cause and fix of its rule where it has one. Raises UsageError: no such."""
    text = resources.files(__package__).joinpath("troubleshooting.yaml").read_text("utf-8")
    contents: dict[str, Any] = yaml.safe_load(text)
    for theme in contents["rows"]:
        for row in theme["rows"]:
            rule = rule_of(row["rule"]) if "rule" in row else None
            yield Row(
                theme=theme["theme"],
                see=row["see"],
                cause=row["cause"] if rule is None else rule.reason,
                fix=row["fix"] if rule is None else rule.fix,
                rule=None if rule is None else rule.id,
                source=row["source"],
            )


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    theme = ""
    for row in rows():
        if row.theme != theme:
            theme = row.theme
            parts.append(f"\n## {theme}\n\n| Seen | Cause | Fix |\n|---|---|---|\n")
        by_rule = "" if row.rule is None else f" ({row.rule})"
        parts.append(f"| {_cell(row.see)} | {_cell(row.cause)} | {_cell(row.fix)}{by_rule} |\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
