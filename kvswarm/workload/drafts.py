"""A request in the making, and what can shape it.

In:  a prompt.  Out: what features make of it: members of the body, a model, a label.
Each feature of a profile is a `Feature`; `workload.py` asks them in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from kvswarm.workload.answers import Answer
from kvswarm.workload.requests import Expectation, LLMRequest


@dataclass(slots=True, kw_only=True)
class Draft:
    """What a feature may change."""

    number: int
    """Number of the request's content: its index, or in dialogues the number of the dialogue."""
    rng: np.random.Generator
    """Random numbers of this request's features."""
    messages: list[Mapping[str, Any]]
    """Chat messages; for completions, one whose content is the prompt."""
    asks: list[str] = field(default_factory=list)
    """Sentences that the last user message ends with, on top of its input_tokens."""
    members: dict[str, Any] = field(default_factory=dict)
    """Members of the body."""
    variants: list[str] = field(default_factory=list)
    model: str | None = None
    case: str | None = None
    group: int | None = None
    turn: int | None = None
    expectation: Expectation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """The next request of a dialogue: messages that come after those sent, and what changes."""

    messages: tuple[Mapping[str, Any], ...]
    members: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None
    new_tokens: int
    """Tokens of these messages, as an estimate."""
    think_time_s: float = 0.0
    expectation: Expectation | None = None


class Feature(Protocol):
    """Something that a profile's requests do beside sending a prompt."""

    def shape(self, draft: Draft) -> None:
        """Make a first request what the feature wants."""

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:
        """Give what comes after an answer; None where the dialogue is over."""


def assistant_message(answer: Answer) -> dict[str, Any]:
    """An answer as a message of the history."""
    if not answer.tool_calls:
        return {"role": "assistant", "content": answer.text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.tool_calls
    ]
    return {"role": "assistant", "content": answer.text or None, "tool_calls": calls}
