"""Every rule by its own two examples, and every packaged profile by every rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples import check_example

from kvswarm.guardrails.catalog import THEMES, all_rules
from kvswarm.guardrails.check import check_profile
from kvswarm.guardrails.facts import Server
from kvswarm.guardrails.rule import Rule
from kvswarm.profiles.load import packaged_names
from kvswarm.serving.versions import vllm_version

RULES = [pytest.param(rule, id=rule.id) for rule in all_rules()]


@pytest.mark.parametrize("rule", RULES)
def test_the_bad_example_breaks_the_rule_and_no_other(rule: Rule, tmp_path: Path) -> None:
    """A rule that does not find its own example finds nothing."""
    checked = check_example(rule.bad, tmp_path)
    assert {finding.rule.id for finding in checked.findings} == {rule.id}
    assert all(finding.severity == rule.severity for finding in checked.findings)


@pytest.mark.parametrize("rule", RULES)
def test_the_good_example_breaks_no_rule(rule: Rule, tmp_path: Path) -> None:
    """It is what a person is told to write instead."""
    assert check_example(rule.good, tmp_path).findings == ()


@pytest.mark.parametrize("rule", RULES)
def test_a_finding_names_its_key_and_place(rule: Rule, tmp_path: Path) -> None:
    """File and line, so that an editor can go there."""
    for finding in check_example(rule.bad, tmp_path).findings:
        if rule.scope != "deployment":
            assert finding.file == str(tmp_path / "example.yaml"), finding
            assert finding.line is not None, finding
        assert finding.fix


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_says_why_and_where_from(rule: Rule) -> None:
    """A rule without a reason and a source is an opinion."""
    assert re.fullmatch(r"KVS\d{3}", rule.id)
    for text in (rule.title, rule.reason, rule.source, rule.fix):
        assert text == text.strip() != ""
    assert not rule.title.endswith(".")
    for text in (rule.reason, rule.fix):
        assert text.endswith(".")


def test_ids_are_unique() -> None:
    """An id in somebody's CI must mean one thing for ever."""
    ids = [rule.id for _, rules in THEMES for rule in rules]
    assert len(ids) == len(set(ids)) == len(all_rules())


@pytest.mark.parametrize("version", ["0.24.0", "0.32.0"])
@pytest.mark.parametrize("name", packaged_names())
def test_packaged_profiles_have_no_errors(name: str, version: str) -> None:
    """What comes with kvswarm must pass its own checks."""
    checked = check_profile(name, None, Server(version=vllm_version(version)))
    assert [(f.rule.id, f.message) for f in checked.errors] == []
