"""docs/troubleshooting.md is what the data and the rules say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kvswarm.guardrails.catalog import all_rules
from kvswarm.guardrails.troubleshooting import rows

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def test_the_page_is_what_the_code_writes() -> None:
    """The command on the page was forgotten where this fails."""
    command = [sys.executable, "-m", "kvswarm.guardrails.troubleshooting"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == PAGE.read_text("utf-8")


def test_every_row_has_a_cause_a_remedy_and_a_source() -> None:
    """A symptom alone helps nobody; and no message stands there twice."""
    each = list(rows())
    assert len(each) >= 25
    for row in each:
        assert all(text.strip() for text in (row.see, row.cause, row.fix, row.source)), row
    assert len({row.see for row in each}) == len(each)


def test_a_row_with_a_rule_says_what_the_rule_says() -> None:
    """One truth: the rule's reason and remedy are not written a second time."""
    rules = {rule.id: rule for rule in all_rules()}
    named = [row for row in rows() if row.rule is not None]
    assert len(named) >= 15
    for row in named:
        rule = rules[row.rule or ""]
        assert (row.cause, row.fix) == (rule.reason, rule.fix)
