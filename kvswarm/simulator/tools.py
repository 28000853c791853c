"""The tools that a chat request offers, and which of them are to be called.

In:  a request body.  Out: `ToolUse`, or None.
Not: drawing arguments and faults (`answers.py`).

A simulator cannot judge a question. With `auto`, and with `required`, the functions whose names
stand in the last user message are called, in the order of their first appearance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.simulator.instances import Instances, instances_of
from kvswarm.simulator.refusal import CannotMake, RequestError

NO_ARGUMENTS: Final = {"type": "object", "properties": {}, "additionalProperties": False}
NO_PARSER: Final = (
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
)


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that may be called."""

    name: str
    schema: dict[str, Any]
    strict: bool

    def instances(self) -> Instances:
        """Its arguments. Raises CannotMake where the schema has what is not known."""
        return instances_of(self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """What is offered, and what is due."""

    offered: tuple[Tool, ...]
    choice: str
    """`none`, `auto`, `required` or `named`."""
    due: tuple[Tool, ...]
    """Those to call; with `required`, none stands for any one."""

    @property
    def finish_reason(self) -> str:
        """What vLLM ends a call with."""
        return "stop" if self.choice == "named" else "tool_calls"


def tool_use_of(plain: dict[str, Any], *, parser: bool) -> ToolUse | None:
    """What a chat request asks for; None without tools. Raises RequestError, with 400."""
    told = plain.get("tool_choice")
    offered = _offered(plain.get("tools"))
    if not offered:
        if told not in (None, "none"):
            raise RequestError(400, "When using `tool_choice`, `tools` must be set.")
        return None
    choice, named = _choice(told, offered)
    if choice == "auto" and not parser:
        raise RequestError(400, NO_PARSER)
    for tool in offered:
        if tool.strict or choice in {"required", "named"}:
            try:
                tool.instances()  # vLLM compiles a grammar from these, called or not
            except (CannotMake, RecursionError) as error:
                raise RequestError(400, f"tools, {tool.name}: {error}") from error
    due: tuple[Tool, ...] = ()
    if named is not None:
        due = (named,)
    elif choice == "required" or (choice == "auto" and _last_role(plain) != "tool"):
        due = _mentioned(offered, _last_question(plain))
        if plain.get("parallel_tool_calls") is False:
            due = due[:1]
    return ToolUse(offered=offered, choice=choice, due=due)


def _offered(tools: Any) -> tuple[Tool, ...]:
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise RequestError(400, "tools: a list is required")
    return tuple(map(_tool, tools))


def _tool(plain: Any) -> Tool:
    function = plain.get("function") if isinstance(plain, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise RequestError(400, "tools: each must have function.name")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = NO_ARGUMENTS
    if not isinstance(parameters, dict):
        raise RequestError(400, f"tools, {name}: parameters must be a JSON Schema")
    # Arguments are an object, also where the schema does not say so.
    schema = {"type": "object", **parameters}
    return Tool(name, schema, strict=function.get("strict") is True)


def _choice(told: Any, offered: tuple[Tool, ...]) -> tuple[str, Tool | None]:
    if told is None:
        return "auto", None
    if isinstance(told, str) and told in {"none", "auto", "required"}:
        return told, None
    function = told.get("function") if isinstance(told, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise RequestError(
            400, "tool_choice must be one of none, auto, required, or name a function"
        )
    for tool in offered:
        if tool.name == function["name"]:
            return "named", tool
    raise RequestError(
        400, "The tool specified in `tool_choice` does not match any of the specified `tools`"
    )


def _last_role(plain: dict[str, Any]) -> Any:
    return plain["messages"][-1].get("role")


def _last_question(plain: dict[str, Any]) -> str:
    for message in reversed(plain["messages"]):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, list):
                texts = (part.get("text", "") for part in content if isinstance(part, dict))
                return " ".join(map(str, texts))
            return str(content)
    return ""


def _mentioned(offered: tuple[Tool, ...], text: str) -> tuple[Tool, ...]:
    """The tools whose names are words of the text, in order of their first appearance."""
    found = []
    for tool in offered:
        match = re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", text)
        if match is not None:
            found.append((match.start(), tool))
    return tuple(tool for _, tool in sorted(found, key=lambda pair: pair[0]))
