"""As many wrong answers as there are, no more and no fewer, and each for what is wrong with it."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kvswarm.profiles.load import load_profile
from kvswarm.scoring.kinds import CALL_KINDS, FORM_KINDS
from kvswarm.scoring.score import score
from kvswarm.workload.answers import Answer, ToolCall
from kvswarm.workload.requests import Expectation, ExpectCalls, ExpectForm

sys.path.insert(0, str(Path(__file__).parent))
from instances import call_of, good_calls, good_form

STRUCTURED = load_profile("structured-output").structured_output
TOOLS = load_profile("tool-calling").tool_calling
assert STRUCTURED is not None
assert TOOLS is not None

Case = tuple[Expectation, Answer]


def changed(text: str, change: Callable[[dict], object]) -> str:
    """Change the document in a text."""
    value = json.loads(text)
    change(value)
    return json.dumps(value)


def first_name(text: str) -> str:
    """Name of a document's first member; all packaged schemas require it."""
    return next(iter(json.loads(text)))


DOCUMENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "a member lacks": (lambda t: changed(t, lambda v: v.pop(first_name(t))), "invalid"),
    "a member more": (lambda t: changed(t, lambda v: v.update(more=1)), "invalid"),
    "another type": (lambda t: changed(t, lambda v: v.update({first_name(t): []})), "invalid"),
    "in a fence": (lambda t: f"```json\n{t}\n```", "invalid"),
    "words after it": (lambda t: t + " Is that right?", "invalid"),
    "cut, but not by max_tokens": (lambda t: t.rstrip()[:-1], "invalid"),
    "a name twice": (lambda t: t.rstrip()[:-1] + f', "{first_name(t)}": 1}}', "invalid"),
    "not a number": (lambda t: changed(t, lambda v: v.update({first_name(t): float("nan")})), "invalid"),
    "nothing": (lambda _: "", "invalid"),
    "a list": (lambda t: f"[{t}]", "invalid"),
    "cut by max_tokens": (lambda t: t.rstrip()[: len(t) // 2], "truncated"),
}  # fmt: skip
ARGUMENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "an argument lacks": (lambda t: changed(t, lambda v: v.pop(first_name(t))), "bad_arguments"),
    "an argument more": (lambda t: changed(t, lambda v: v.update(more=1)), "bad_arguments"),
    "cut, but not by max_tokens": (lambda t: t[:-1], "bad_json"),
    "no object": (lambda t: f"[{t}]", "bad_json"),
    "nothing": (lambda _: "", "bad_json"),
    "cut by max_tokens": (lambda t: t[: len(t) // 2], "truncated"),
}


def broken_form(case: Case, which: int) -> tuple[Case, str]:
    """Break an answer that should have a form."""
    expected, answer = case
    assert isinstance(expected, ExpectForm)
    if expected.constraint.kind != "json":
        ways = [(answer.text + ".", "stop", "invalid"), (answer.text[:-1], "length", "truncated")]
        text, finish, kind = ways[which % 2]
        return (expected, Answer(text=text, finish_reason=finish)), kind
    change, kind = list(DOCUMENTS.values())[which % len(DOCUMENTS)]
    finish = "length" if kind == "truncated" else "stop"
    return (expected, Answer(text=change(answer.text), finish_reason=finish)), kind


def broken_calls(case: Case, which: int, rng: random.Random) -> tuple[Case, str]:
    """Break an answer about functions."""
    expected, answer = case
    assert isinstance(expected, ExpectCalls)
    if not expected.names:
        unwanted = call_of(rng.choice(expected.offered), rng)
        return (expected, replace(answer, tool_calls=(unwanted,))), "unwanted_call"
    *others, last = answer.tool_calls
    spare = next(tool for tool in expected.offered if tool.name not in expected.names)
    made: list[tuple[tuple[ToolCall, ...], str]] = [
        ((), "no_call"),
        ((*others, replace(last, name="get_wether")), "unknown_function"),
        ((*others, call_of(spare, rng)), "wrong_function"),
        ((*others, last, last), "wrong_function"),
    ]
    ways = [(Answer(text="Well.", tool_calls=calls), kind) for calls, kind in made]
    for change, kind in ARGUMENTS.values():
        finish = "length" if kind == "truncated" else "tool_calls"
        call = replace(last, arguments=change(last.arguments))
        ways.append((Answer(tool_calls=(*others, call), finish_reason=finish), kind))
    ways.append((Answer(finish_reason="length"), "truncated"))
    bad, kind = ways[which % len(ways)]
    return (expected, bad), kind


def thousand_answers(rng: random.Random) -> list[Case]:
    """Valid answers to requests of every kind."""
    cases: list[Case] = []
    for number in range(1000):
        if number % 2:
            constraint = STRUCTURED.constraints[number // 2 % len(STRUCTURED.constraints)]
            cases.append(good_form(constraint, rng))
        else:
            cases.append(good_calls(TOOLS.tools, rng.choice([0, 1, 1, 2]), rng))
    return cases


@pytest.mark.parametrize("seed", range(3))
def test_of_a_thousand_answers_exactly_the_hundred_broken_ones_are_found(seed: int) -> None:
    """A share that is reported must be the share that was wrong."""
    rng = random.Random(seed)  # noqa: S311 - to be made again
    cases = thousand_answers(rng)
    planted = {}
    for which, place in enumerate(rng.sample(range(1000), 100)):
        if isinstance(cases[place][0], ExpectForm):
            cases[place], planted[place] = broken_form(cases[place], which)
        else:
            cases[place], planted[place] = broken_calls(cases[place], which, rng)
    scores = [score(*case) for case in cases]
    found = {place: one.kind for place, one in enumerate(scores) if one.valid is not True}
    assert found == planted
    assert all(scores[place].valid is False and scores[place].detail for place in planted)
    assert all(one.detail is None for one in scores if one.valid)


def test_the_ways_to_break_an_answer_are_all_kinds_of_wrong() -> None:
    """A kind that nothing is planted for would be untested."""
    rng = random.Random(1)  # noqa: S311 - to be made again
    forms = [
        broken_form(good_form(constraint, rng), which)[1]
        for constraint in STRUCTURED.constraints
        for which in range(11)
    ]
    calls = [
        broken_calls(good_calls(TOOLS.tools, due, rng), which, rng)[1]
        for due in (0, 1, 2)
        for which in range(11)
    ]
    assert set(forms) == set(FORM_KINDS) - {"valid", "unchecked"}
    assert set(calls) == set(CALL_KINDS) - {"valid", "unchecked"}
