"""Rules about the profile as a text: can it be read, and may others read it?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import Example, Rule
from kvswarm.profiles.problems import KeyPath

SECRET_KEY: Final = re.compile(
    r"(?:^|[_-])(?:api[_-]?key|authorization|password|passwd|secret|"
    r"(?:hf|auth|access|bearer|api)[_-]?token)$",
    re.I,
)
SECRET_VALUE: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[opsu]_[A-Za-z0-9]{30,}|"
    r"AKIA[A-Z0-9]{16}|nvapi-[A-Za-z0-9_-]{20,})|\bBearer\s+[\w.~+/-]{16,}",
)
"""Tokens of Hugging Face, OpenAI, GitHub, AWS and NVIDIA, and what stands in a header."""


def _nothing(_facts: Facts) -> tuple[Found, ...]:
    """A profile that could be resolved is not unreadable: `check.check_profile` tells the rest."""
    return ()


UNREADABLE: Final = Rule(
    id="KVS001",
    title="The profile can be read and resolved",
    severity="error",
    scope="load",
    check=_nothing,
    reason="Nothing can be sent by a profile that is no YAML, has unknown keys or values, or whose "
    "keys contradict each other: every command refuses it.",
    source="docs/profiles.md; kvswarm/profiles/profile.schema.json",
    fix="docs/profiles.md has every key, with its unit and default.",
    bad=Example(profile="concurency: 4\n"),
    good=Example(profile="concurrency: 4\n"),
)


def _secrets(facts: Facts) -> Iterator[Found]:
    for written in (facts.written, *facts.written.parts):
        for path, text in _texts(written.document.values):
            key = next((part for part in reversed(path) if isinstance(part, str)), "")
            named = bool(SECRET_KEY.search(key)) and not text.startswith("$")
            if named or SECRET_VALUE.search(text):
                what = f"holds what looks like a secret, {len(text)} characters long"
                yield Found(path=path, what=what, of=written)


def _texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every text that is not empty, and the way to it."""
    if isinstance(value, str) and value:
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, (*path, key))
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _texts(child, (*path, place))


RULES: Final = (
    UNREADABLE,
    Rule(
        id="KVS002",
        title="No secret stands in the profile",
        severity="error",
        scope="load",
        check=_secrets,
        reason="The resolved profile is written to run.json and shown in reports, and profiles are "
        "kept in repositories: whoever sees one of them has the secret.",
        source="docs/command-line.md: --api-key-env, --header",
        fix="Take it out, and give it by an environment variable: --api-key-env VAR; a token that "
        "was ever committed must be replaced.",
        bad=Example(profile='request: {api_key: "0123456789abcdef"}\n'),
        good=Example(profile="request: {temperature: 0.5}\n"),
    ),
)
