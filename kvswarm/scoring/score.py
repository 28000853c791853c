"""Judge an answer: does it have the form, or make the calls, that its request asked for?

In:  what a request expects, and the whole answer to it.
Out: a `Score`, for any answer whatever; what it costs is in docs/scoring.md.
Not: whether what the answer says is true.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from kvswarm.profiles.features import Constraint
from kvswarm.scoring.beginning import json_beginning
from kvswarm.scoring.documents import NoDocument, Uncheckable, fault, read_document
from kvswarm.scoring.kinds import Score, scored, snippet
from kvswarm.workload.answers import Answer, ToolCall
from kvswarm.workload.requests import Expectation, ExpectCalls, ExpectForm

CUT: Final = "length"
"""The finish_reason of an answer that max_tokens ended."""
CALL_STARTS: Final = "<[{"
"""How models write calls (`<tool_call>`, `[TOOL_CALLS]`, `{"name": ...`). A server's parser that
has not seen the end of one may give what there is as text."""


def score(expectation: Expectation, answer: Answer) -> Score:
    """Judge one answer. Raises nothing, whatever a model wrote."""
    try:
        if isinstance(expectation, ExpectForm):
            return _form(expectation.constraint, answer)
        return _calls(expectation, answer)
    except Uncheckable as error:
        return scored("unchecked", str(error))


def _form(constraint: Constraint, answer: Answer) -> Score:
    text, is_cut = answer.text, answer.finish_reason == CUT
    if constraint.kind == "grammar":
        return scored("unchecked", "answers are not checked against grammars")
    if constraint.kind == "json":
        return _document(constraint.json, text, is_cut=is_cut)
    if constraint.kind == "regex":
        if _pattern(constraint.regex).fullmatch(text):
            return scored("valid")
        what = "does not match the regular expression"
        could_go_on = True
    else:
        if text in constraint.choice:
            return scored("valid")
        what = f"is none of the {len(constraint.choice)} choices"
        could_go_on = any(choice.startswith(text) for choice in constraint.choice)
    if is_cut and could_go_on:
        return scored("truncated", f"cut after {len(text)} characters")
    return scored("invalid", f"{snippet(text)} {what}")


@lru_cache(maxsize=256)
def _pattern(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise Uncheckable(f"Python cannot read the regular expression: {error}") from error


def _document(schema: Mapping[str, Any], text: str, *, is_cut: bool) -> Score:
    try:
        value = read_document(text)
    except NoDocument as error:
        if is_cut and json_beginning(text):
            return scored("truncated", f"cut after {len(text)} characters")
        return scored("invalid", str(error))
    found = fault(value, schema)
    return scored("valid") if found is None else scored("invalid", found)


@dataclass(frozen=True, slots=True)
class _Made:
    """A call that was made. `schema`: of the function's arguments; None where it is not offered."""

    call: ToolCall
    schema: Mapping[str, Any] | None
    is_cut: bool
    """Whether max_tokens may have ended it: only the last call can be cut."""


def _calls(expected: ExpectCalls, answer: Answer) -> Score:
    """Judge the calls of an answer by the first of the kinds, in their order, that applies."""
    calls, is_cut = answer.tool_calls, answer.finish_reason == CUT
    if not expected.names:
        unwanted = f"called {_listed(calls)}; no function was right"
        return scored("unwanted_call", unwanted) if calls else scored("valid")
    if not calls:
        return _no_call(expected, answer, is_cut=is_cut)
    schemas = {tool.name: tool.parameters for tool in expected.offered}
    made = [
        _Made(call, schemas.get(call.name), is_cut=is_cut and place == len(calls))
        for place, call in enumerate(calls, start=1)
    ]
    found = (check(one) for check in (_unknown_function, _bad_json, _bad_arguments) for one in made)
    first = next((score for score in found if score is not None), None)
    return first or _the_right_ones(expected, calls, is_cut=is_cut)


def _no_call(expected: ExpectCalls, answer: Answer, *, is_cut: bool) -> Score:
    begun = answer.text.lstrip()
    if is_cut and (not begun or begun[0] in CALL_STARTS):
        return scored("truncated", "cut before a call was whole")
    due = ", ".join(expected.names)
    return scored("no_call", f"due: {due}; the answer is {snippet(answer.text)}")


def _unknown_function(made: _Made) -> Score | None:
    call = made.call
    if made.schema is not None:
        return None
    if made.is_cut and not call.name:
        return scored("truncated", "cut before the name of a function")
    return scored("unknown_function", f"{snippet(call.name)} was not offered")


def _bad_json(made: _Made) -> Score | None:
    name, text = made.call.name, made.call.arguments
    try:
        value = read_document(text)
    except NoDocument as error:
        what = str(error)
    else:
        if isinstance(value, dict):
            return None
        what = "no object"
    could_go_on = not text.strip() or text.lstrip().startswith("{")
    if made.is_cut and could_go_on and json_beginning(text):
        return scored("truncated", f"arguments of {name}: cut after {len(text)} characters")
    return scored("bad_json", f"arguments of {name}: {what}")


def _bad_arguments(made: _Made) -> Score | None:
    found = fault(read_document(made.call.arguments), made.schema or {})
    return None if found is None else scored("bad_arguments", f"{made.call.name}: {found}")


def _the_right_ones(expected: ExpectCalls, calls: tuple[ToolCall, ...], *, is_cut: bool) -> Score:
    called, wanted = Counter(call.name for call in calls), Counter(expected.names)
    if called == wanted:
        return scored("valid")
    what = f"called {_listed(calls)}; due: {', '.join(expected.names)}"
    return scored("truncated" if is_cut and called < wanted else "wrong_function", what)


def _listed(calls: tuple[ToolCall, ...]) -> str:
    return ", ".join(snippet(call.name) for call in calls)
