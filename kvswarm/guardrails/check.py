"""All rules over one profile.

In:  a profile's name or path, what is laid over it, and what is known of its server.
Out: `Checked`: the profile where it can be resolved, and the findings, errors first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, get_args

from kvswarm.errors import KvswarmError, ProfileError
from kvswarm.guardrails.catalog import all_rules
from kvswarm.guardrails.facts import Facts, Found, Server, facts_of
from kvswarm.guardrails.lines import spot_at, spot_of
from kvswarm.guardrails.rule import Finding, Rule, Scope
from kvswarm.guardrails.rules.profile import UNREADABLE
from kvswarm.profiles.load import Written, load_written
from kvswarm.profiles.overrides import Overrides
from kvswarm.profiles.problems import BrokenProfileError, Place, key_text

EVERYTHING: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Checked:
    """A profile, if it can be resolved, and what rules say of it."""

    written: Written | None
    findings: tuple[Finding, ...]
    facts: Facts | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must not be run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What a person should know."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def check_profile(
    name_or_path: str,
    overrides: Overrides | None,
    server: Server,
    look: Callable[[Facts], Server] | None = None,
) -> Checked:
    """Load a profile and check it; one that cannot be loaded is a finding, too.

    `look` completes what is known of the server by what the profile names.
    """
    try:
        written = load_written(name_or_path, overrides)
    except BrokenProfileError as error:
        return Checked(None, tuple(_of_problems(error)))
    except KvswarmError as error:
        return Checked(None, (_unreadable(Place(name_or_path), "", error.message, error.fix),))
    facts = facts_of(written, server)
    if look is not None:
        facts = replace(facts, server=look(facts))
    return Checked(written, findings_of(facts), facts)


def findings_of(facts: Facts, scopes: Collection[Scope] = EVERYTHING) -> tuple[Finding, ...]:
    """Every finding of the rules that hold for the facts: errors first, then by rule and place."""
    found = (
        _finding(rule, each, facts)
        for rule in all_rules()
        if rule.scope in scopes and holds(rule, facts.server)
        for each in rule.check(facts)
    )
    return in_order(found)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by rule and place; each once, also where parts of a mix share it."""
    once = {(f.rule.id, f.place, f.message): f for f in findings}
    return tuple(
        sorted(
            once.values(),
            key=lambda f: (f.severity != "error", f.rule.id, f.file or "", f.line or 0),
        )
    )


def holds(rule: Rule, server: Server) -> bool:
    """Whether a rule is about what serves."""
    if not rule.runtimes:
        return True
    if server.runtime not in rule.runtimes:
        return False
    return server.runtime != "vllm" or server.version in rule.versions


def _finding(rule: Rule, found: Found, facts: Facts) -> Finding:
    spot = spot_of(found.of or facts.written, found.path)
    key = key_text(found.path)
    doubtful = bool(rule.runtimes) and not facts.server.certain
    return Finding(
        rule=rule,
        severity="warning" if doubtful else rule.severity,
        key=key,
        file=spot.file,
        line=spot.line,
        column=spot.column,
        flag=spot.flag,
        message=f"{key} {found.what}".strip(),
        fix=found.fix or rule.fix,
    )


def _of_problems(error: BrokenProfileError) -> Iterator[Finding]:
    for problem in error.problems:
        yield _unreadable(problem.place, key_text(problem.path), problem.what, problem.fix)


def _unreadable(place: Place, key: str, what: str, fix: str) -> Finding:
    spot = spot_at(place)
    return Finding(
        rule=UNREADABLE,
        severity="error",
        key=key,
        file=spot.file,
        line=spot.line,
        column=spot.column,
        flag=spot.flag,
        message=f"{key} {what}".strip(),
        fix=fix,
    )


def refuse(checked: Checked, command: str) -> None:
    """Raise ProfileError where there are errors; `command` is what does not go on."""
    errors = checked.errors
    if not errors:
        return
    lines = "".join(
        f"\n  {finding.place}: {finding.rule.id} {finding.message}\n    {finding.fix}"
        for finding in errors
    )
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise ProfileError(
        f"{command}: the profile has {count}{lines}",
        fix=f"kvswarm validate --explain {errors[0].rule.id} tells why; --no-validate goes on.",
    )
