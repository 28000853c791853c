"""docs/rules.md, made of the rules."""

from __future__ import annotations

from typing import Final

from kvswarm.guardrails.catalog import THEMES
from kvswarm.guardrails.explain import page_section
from kvswarm.guardrails.rule import Rule

HEAD: Final = """\
# Rules of `kvswarm validate`

Each finding of [`kvswarm validate`](validate.md) is of one of these rules; `kvswarm validate
--explain KVS012` shows one in a terminal. An id is never given to another rule. An **error**
crashes the server, fails every request, or makes figures that lie; a **warning** is what a person
should know. Versions are vLLM's; "before 0.10.0" is up to but without it.

This page is made from the code: `python -m kvswarm.guardrails > docs/rules.md`. The tests check the
two examples of every rule, each laid over the profile `standard`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_table()]
    for title, rules in THEMES:
        parts += ["", f"## {title}", ""]
        parts += ["\n".join(page_section(rule) for rule in _sorted(rules)).rstrip()]
    return "\n".join(parts) + "\n"


def _sorted(rules: tuple[Rule, ...]) -> list[Rule]:
    return sorted(rules, key=lambda rule: rule.id)


def _table() -> list[str]:
    rows = ["| Rule | Says | Severity | Holds for |", "|---|---|---|---|"]
    for _, rules in THEMES:
        rows += [
            f"| [{rule.id}](#{rule.id.lower()}) | {rule.title} | {rule.severity} | "
            f"{rule.holds_for} |"
            for rule in _sorted(rules)
        ]
    return rows
