"""One request as the workload wants it, before any wire format but OpenAI's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kvswarm.profiles.features import Constraint, Tool

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectForm:
    """The answer must have this form."""

    constraint: Constraint


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectCalls:
    """The answer must call these of the offered functions; none of them: it must call none."""

    offered: tuple[Tool, ...]
    names: tuple[str, ...]


Expectation = ExpectForm | ExpectCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRequest:
    """Body and expectations of request `index` of a run."""

    index: int
    endpoint: str
    """`chat` or `completions`."""
    body: Mapping[str, Any]
    """The OpenAI request body but for `model`; always with `stream: true` and include_usage."""
    input_tokens: int
    """Tokens in the prompt: exact or estimated, as `input_tokens_exact` says."""
    input_tokens_exact: bool
    output_tokens: int
    """The max_tokens asked for."""
    scenario: str
    """Name of the profile that it is made by."""
    model: str | None = None
    """An adapter's name; None: the model of the run."""
    variant: str | None = None
    """What sets it apart from others of its scenario: figures are told by it."""
    case: str | None = None
    """Which schema or tool it is about."""
    group: int | None = None
    """Pair with a control, or conversation: requests of one group belong together."""
    turn: int | None = None
    """Turn of a dialogue, from 0."""
    think_time_s: float = 0.0
    """Time between the answer before and this request."""
    expectation: Expectation | None = None

    def encoded(self, model: str) -> bytes:
        """The body as JSON, for this model or the request's own."""
        return _encode({"model": self.model or model, **self.body})
