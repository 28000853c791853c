"""What will be answered: free words, or a document cut into tokens; and what is wrong with it.

In:  a parsed request, a source of chance, and the fault that was drawn for it.
Out: `Answer`. Its `fault` is None where the fault does not apply, so that faults can be counted.
Not: times (`engine.py`), events (`wire.py`), faults of the stream itself (`responses.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, NamedTuple

from kvswarm.simulator.asked import Request
from kvswarm.simulator.constraints import Constraint, JsonRule, json_text, malformed_json
from kvswarm.simulator.instances import Impossible
from kvswarm.simulator.refusal import CannotMake, RequestError
from kvswarm.simulator.tools import Tool, ToolUse

TOKEN_CHARS: Final = 4


class Piece(NamedTuple):
    """One token of a document: text of the content, or of a tool call."""

    text: str
    call: int | None = None
    """Place of the tool call that it belongs to."""
    name: str | None = None
    """Function of the call, in the token that opens it."""
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as planned, before any limit cuts it."""

    kind: str = "text"
    """`text`, `json`, `regex`, `choice`, `grammar` or `tool_calls`."""
    document: tuple[Piece, ...] | None = None
    """None: words without end."""
    finish_reason: str = "stop"
    """Of a document that was not cut."""
    fault: str | None = None
    """What is wrong with it on purpose."""


FREE: Final = Answer()


def answer_to(request: Request, rng: random.Random, fault: str | None) -> Answer:
    """Plan an answer. Raises RequestError where a constraint cannot be met."""
    tools = request.tools
    try:
        if tools is not None:
            calls_due = bool(tools.due) or tools.choice == "required"
            if calls_due and fault == "no-tool-call":
                return Answer(fault=fault)
            if calls_due or fault == "unwanted-tool-call":
                return _calls(tools, rng, fault)
        if request.constraint is not None:
            return _constrained(request.constraint, rng, fault)
    except (CannotMake, RecursionError) as error:
        raise RequestError(400, f"nothing can be answered: {error}") from error
    return FREE


def _constrained(rule: Constraint, rng: random.Random, fault: str | None) -> Answer:
    text = rule.draw(rng)
    planted = None
    if fault == "bad-json" and isinstance(rule, JsonRule):
        text, planted = malformed_json(text), fault
    elif fault == "bad-schema" and (broken := rule.broken(rng)) is not None:
        text, planted = broken, fault
    return Answer(kind=rule.kind, document=tuple(map(Piece, _cut(text))), fault=planted)


def _calls(tools: ToolUse, rng: random.Random, fault: str | None) -> Answer:
    """The calls that are due; a fault is in the first of them."""
    unwanted = not tools.due and tools.choice != "required"
    called = list(tools.due) or [rng.choice(tools.offered)]
    names = [tool.name for tool in called]
    planted = fault if unwanted else None
    if fault == "wrong-tool":
        others = [tool for tool in tools.offered if tool not in called]
        if others:
            called[0] = rng.choice(others)
        names[0] = called[0].name if others else f"{names[0]}_unknown"
        planted = fault
    arguments = [json_text(tool.instances().draw(rng)) for tool in called]
    if fault == "bad-arguments":
        arguments[0], planted = malformed_json(arguments[0]), fault
    elif fault == "bad-argument-types" and (broken := _broken(called[0], rng)) is not None:
        arguments[0], planted = broken, fault
    pieces = []
    for place, (name, text) in enumerate(zip(names, arguments, strict=True)):
        call_id = f"chatcmpl-tool-{rng.getrandbits(64):016x}"
        pieces.append(Piece("", place, name, call_id))
        pieces += [Piece(part, place) for part in _cut(text)]
    return Answer(
        kind="tool_calls", document=tuple(pieces), finish_reason=tools.finish_reason, fault=planted
    )


def _broken(tool: Tool, rng: random.Random) -> str | None:
    try:
        return json_text(tool.instances().broken(rng))
    except Impossible:
        return None


def _cut(text: str) -> list[str]:
    """A text as tokens; an empty one is a token without text."""
    places = range(0, len(text), TOKEN_CHARS)
    return [text[place : place + TOKEN_CHARS] for place in places] or [""]
