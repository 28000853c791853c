"""Requests that offer functions, and the answer to what a function gave back.

In:  a `ToolCalling`.
Out: requests whose prompt says which function is right, or that none is; where wanted, a second
     turn with the function's result, to be answered in words.
"""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any, Final

import numpy as np

from kvswarm.profiles.features import Tool, ToolCalling
from kvswarm.workload.answers import Answer, ToolCall
from kvswarm.workload.drafts import Draft, FollowUp, assistant_message
from kvswarm.workload.prompts import estimated_tokens
from kvswarm.workload.requests import ExpectCalls, LLMRequest

NO_CALL_ASK: Final = "Answer in one short sentence, in plain words, and call no function."
NO_CALL: Final = "no call"
AFTER_RESULT: Final = "after result"


class ToolFeature:
    """Offers every function in every request; draws which is right, and how much is left open."""

    def __init__(self, spec: ToolCalling) -> None:
        self._spec = spec
        self._offered = [offered(tool, strict=spec.strict) for tool in spec.tools]
        self._choices = sorted(spec.choices)
        self._ends = list(accumulate(spec.choices[name] for name in self._choices))
        self._results = {tool.name: tool.result for tool in spec.tools}

    def shape(self, draft: Draft) -> None:
        """Ask for functions, or for none; offer all of them."""
        choice = self._choice(draft.rng)
        parallel = self._spec.parallel and choice != "named"
        tools: list[Tool] = []
        if choice == "auto" and draft.rng.random() < self._spec.no_call_share:
            draft.asks.append(NO_CALL_ASK)
            draft.variants.append(NO_CALL)
        else:
            tools = self._right_ones(draft.rng, 2 if parallel else 1)
            draft.asks += [tool.ask for tool in tools]
            draft.variants.append(choice)
        draft.members["tools"] = self._offered
        draft.members["tool_choice"] = choice
        if choice == "named":
            named = {"name": tools[0].name}
            draft.members["tool_choice"] = {"type": "function", "function": named}
        draft.members["parallel_tool_calls"] = parallel
        draft.case = ", ".join(tool.name for tool in tools) or NO_CALL
        draft.expectation = ExpectCalls(
            offered=self._spec.tools, names=tuple(tool.name for tool in tools)
        )
        if self._spec.second_turn:
            draft.group, draft.turn = draft.number, 0

    def _choice(self, rng: np.random.Generator) -> str:
        drawn = int(np.searchsorted(self._ends, rng.random() * self._ends[-1], side="right"))
        return self._choices[min(drawn, len(self._choices) - 1)]

    def _right_ones(self, rng: np.random.Generator, count: int) -> list[Tool]:
        tools = self._spec.tools
        return [tools[which] for which in rng.permutation(len(tools))[:count].tolist()]

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:
        """Send back what the functions gave, and have it answered in words.

        There is none after calls whose arguments are no JSON object: servers refuse them in a
        history, and that failure would not be theirs.
        """
        calls = answer.tool_calls
        if not self._spec.second_turn or request.turn != 0 or not calls:
            return None
        if not all(_is_object(call.arguments) for call in calls):
            return None
        results = [self._result(call) for call in calls]
        sent = [call.name + call.arguments for call in calls]
        return FollowUp(
            messages=(assistant_message(answer), *results),
            members={"tool_choice": "none"},
            variant=AFTER_RESULT,
            new_tokens=estimated_tokens([*sent, *(result["content"] for result in results)]),
        )

    def _result(self, call: ToolCall) -> dict[str, Any]:
        content = self._results.get(call.name)
        if content is None:
            content = json.dumps({"error": f"there is no function {call.name}"})
        return {"role": "tool", "tool_call_id": call.id, "content": content}


def offered(tool: Tool, *, strict: bool) -> dict[str, Any]:
    """A function as a member of OpenAI's `tools`."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
