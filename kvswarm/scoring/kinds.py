"""The ways in which an answer can be right or wrong, each with a sentence.

A kind is what a row of a run keeps; docs/scoring.md has the same sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FORM_KINDS: Final = {
    "valid": "The answer is what was asked for.",
    "truncated": "max_tokens came before the end: so far, it was the beginning of a right answer.",
    "invalid": "The answer does not have the form that was asked for.",
    "unchecked": "The form cannot be checked here, so the answer counts neither way.",
}
"""Kinds of answers that must have a form."""

CALL_KINDS: Final = {
    "valid": FORM_KINDS["valid"],
    "truncated": FORM_KINDS["truncated"],
    "unchecked": FORM_KINDS["unchecked"],
    "no_call": "A function was to be called, and none was.",
    "unwanted_call": "A function was called where none was to be called.",
    "unknown_function": "A function was called that was not offered.",
    "bad_json": "The arguments of a call are no JSON object.",
    "bad_arguments": "The arguments of a call break the schema of its function.",
    "wrong_function": "The calls are sound, but not those that were asked for.",
}
"""Kinds of answers about functions."""

KINDS: Final = {**FORM_KINDS, **CALL_KINDS}
"""Every kind and its meaning."""

VALIDITY: Final = {"valid": True, "unchecked": None}
"""What the kinds that are not False are."""

DETAIL_CHARS: Final = 300
SNIPPET_CHARS: Final = 20


@dataclass(frozen=True, slots=True)
class Score:
    """How one answer was judged. `kind` is a key of `KINDS`."""

    kind: str
    valid: bool | None
    """None: it could not be checked."""
    detail: str | None = None
    """Where it goes wrong and how, in at most DETAIL_CHARS characters."""


def scored(kind: str, detail: str | None = None) -> Score:
    """Make a score of a kind; the detail is made fit for a table: short, printable, one line."""
    if detail is not None:
        detail = printable(detail, DETAIL_CHARS)
    return Score(kind, VALIDITY.get(kind, False), detail)


def printable(text: str, limit_chars: int) -> str:
    """Show a text on one line, without what no file or terminal takes, cut to `limit_chars`."""
    cut = text[: limit_chars + 1]
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
    return shown if len(shown) <= limit_chars else shown[: limit_chars - 3] + "..."


def snippet(text: str) -> str:
    """Quote the first few characters of what a model wrote."""
    cut = text[:SNIPPET_CHARS]
    return repr(cut) + ("..." if len(text) > SNIPPET_CHARS else "")
