"""What a profile's requests do beside sending a prompt: the features that a server can offer.

In:  nothing; these are what `resolve_features.py` makes and `kvswarm.workload` acts on.
Everything that a file held (schemas, models, tools) is in here, so that run.json says it whole and
no worker needs the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

BASE: Final = "base"
"""In `adapters`: the model itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One form that an answer must have. The field that `kind` names is the one that is set."""

    name: str
    kind: Literal["json", "regex", "choice", "grammar"]
    ask: str
    """What the prompt asks for."""
    json: Mapping[str, Any] = field(default_factory=dict)
    regex: str = ""
    choice: tuple[str, ...] = ()
    grammar: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutput:
    """Answers under constraints, in turn, and the same prompts without, as a control."""

    constraints: tuple[Constraint, ...]
    via: Literal["response_format", "structured_outputs"] = "response_format"
    """How a JSON Schema is sent. The other kinds go as vLLM's `structured_outputs` always."""
    control: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    ask: str
    """What the prompt asks for when this function is the right one."""
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    result: str = "{}"
    """What a call gives back in a second turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalling:
    """Requests that offer functions, and what is right to do with them."""

    tools: tuple[Tool, ...]
    choices: Mapping[str, float]
    """`auto`, `required`, `named` and their weights."""
    strict: bool = True
    parallel: bool = False
    """Ask for two functions at once, and allow it."""
    no_call_share: float = 0.0
    """Share of the `auto` requests for which no function is right."""
    second_turn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Several turns, each with the history of those before. Needs a closed loop."""

    turns: int
    think_time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images in every request: each count with each size, in turn."""

    counts: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    """Width and height in pixels."""
