"""What a rule is, and what a finding is.

A rule is data and one small function. Its two examples are part of it: the tests and the page of
rules are made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kvswarm.guardrails.facts import Deployment, Facts, Found
from kvswarm.serving.versions import Span

VLLM: Final = ("vllm",)
"""Runtimes of rules that are about vLLM alone."""
Severity = Literal["error", "warning"]
Scope = Literal["load", "requests", "server", "deployment"]
"""When it matters: whenever the load is made, whenever the requests are sent, where the server is
started as the profile says, where it is deployed as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A profile, laid over `standard`, and the server it is for."""

    profile: str
    """YAML."""
    backend: str = "vllm"
    version: str = "0.32.0"
    model: str | None = None
    config: Mapping[str, Any] | None = None
    draft_config: Mapping[str, Any] | None = None
    adapter_ranks: Mapping[str, int] = field(default_factory=dict)
    gpu: str | None = None
    mig: str | None = None
    deployment: Deployment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is known to go wrong."""

    id: str
    """KVS and three digits; never given to another rule."""
    title: str
    severity: Severity
    scope: Scope
    check: Callable[[Facts], Iterable[Found]]
    reason: str
    """What happens otherwise."""
    source: str
    """Where that was read or seen."""
    fix: str
    bad: Example
    good: Example
    runtimes: tuple[str, ...] = ()
    """Empty: whatever serves."""
    versions: Span = field(default_factory=Span)
    """Of vLLM, where `runtimes` has it."""

    @property
    def holds_for(self) -> str:
        """Runtimes and versions, for people."""
        if not self.runtimes:
            return "any server"
        names = ", ".join(self.runtimes)
        return names if self.versions == Span() else f"{names} {self.versions}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule, broken at one place."""

    rule: Rule
    severity: Severity
    """The rule's own, or a warning where the server is not known for certain."""
    key: str
    file: str | None
    """None: a flag of the command line gave the value."""
    line: int | None
    column: int | None
    flag: str | None
    message: str
    """A whole sentence, which begins with the key."""
    fix: str

    @property
    def place(self) -> str:
        """Where it is, as editors understand it."""
        if self.file is None:
            return self.flag or ""
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n is not None)]
        return ":".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for --json."""
        return {
            "rule": self.rule.id,
            "severity": self.severity,
            "key": self.key,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "flag": self.flag,
            "message": self.message,
            "fix": self.fix,
            "reason": self.rule.reason,
            "source": self.rule.source,
        }
