"""Answers under a constraint, and the same requests without it.

In:  a `StructuredOutput`.
Out: requests that ask for a form in words and, but for the controls, have the server hold the
     answer to it.
The two requests of a pair ask for the same in the same words, so that what sets their figures apart
is the constraint alone.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kvswarm.profiles.features import Constraint, StructuredOutput
from kvswarm.workload.answers import Answer
from kvswarm.workload.drafts import Draft, FollowUp
from kvswarm.workload.requests import ExpectForm, LLMRequest

_WORD_MASK: Final = (1 << 64) - 1
_SCHEMA_NAME_CHARS: Final = 64
"""OpenAI takes `^[a-zA-Z0-9_-]{1,64}$` for the name of a schema."""


class StructuredFeature:
    """Constraints in turn; with a control, two requests of each: one with it and one without."""

    def __init__(self, spec: StructuredOutput) -> None:
        self._spec = spec
        self._members = [constrained_members(one, spec.via) for one in spec.constraints]

    def shape(self, draft: Draft) -> None:
        """Ask for a form, and have the server keep to it unless this is the control."""
        constraints = self._spec.constraints
        turn = draft.number // 2 if self._spec.control else draft.number
        constraint = constraints[turn % len(constraints)]
        draft.asks.append(constraint.ask)
        draft.case = constraint.name
        if self._spec.control:
            # A conversation has a group of its own, by which it finds its way on.
            draft.group = turn if draft.group is None else draft.group
            if draft.number % 2 == control_of_pair(turn, len(constraints)):
                draft.variants.append("control")
                return
        draft.variants.append("constrained")
        draft.members.update(self._members[turn % len(constraints)])
        draft.expectation = ExpectForm(constraint=constraint)

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:  # noqa: ARG002 - a feature's signature
        """Nothing comes after an answer."""
        return None


def control_of_pair(pair: int, constraints: int) -> int:
    """Tell which of a pair is the control: 0, the first, or 1.

    Whoever comes first meets a server that has not seen the second, so neither may always be it.
    Of every two pairs that a constraint has one after the other, the control is first in one and
    second in the other; which way round, a hash says, so that no rhythm of the load can fall in
    with it. The seed does not matter.
    """
    constraint_round = pair // constraints
    first_of_two = pair - (constraint_round % 2) * constraints
    return (_mixed(first_of_two) & 1) ^ (constraint_round % 2)


def _mixed(number: int) -> int:
    """Mix the bits of a number (the finalizer of SplitMix64)."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & _WORD_MASK
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _WORD_MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _WORD_MASK
    return mixed ^ (mixed >> 31)


def constrained_members(constraint: Constraint, via: str) -> dict[str, Any]:
    """Members of a body that have the server hold the answer to a form.

    A JSON Schema goes as OpenAI's `response_format` or as vLLM's `structured_outputs`, as `via`
    says; OpenAI has no other forms, so they go as `structured_outputs` always.
    """
    if constraint.kind == "json" and via == "response_format":
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", constraint.name)[:_SCHEMA_NAME_CHARS]
        schema = {"name": name, "schema": constraint.json, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {constraint.kind: getattr(constraint, constraint.kind)}}
