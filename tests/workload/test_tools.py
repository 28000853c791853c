"""Functions offered, the right one asked for by name, and its result sent back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.profiles.features import Tool, ToolCalling
from kvswarm.profiles.load import load_profile
from kvswarm.workload.answers import Answer, ToolCall
from kvswarm.workload.drafts import Draft, FollowUp
from kvswarm.workload.requests import ExpectCalls, LLMRequest
from kvswarm.workload.tools import NO_CALL_ASK, ToolFeature

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ALPHA = Tool(name="alpha", ask="Use alpha.", description="First.", parameters=SCHEMA, result="1")
BETA = Tool(name="beta", ask="Use beta.", parameters={}, result='{"b": 2}')
GAMMA = Tool(name="gamma", ask="Use gamma.", parameters=SCHEMA)
TOOLS = (ALPHA, BETA, GAMMA)


def spec_of(choices: Mapping[str, float], **changes: Any) -> ToolCalling:
    """Tool calling with three functions."""
    return replace(ToolCalling(tools=TOOLS, choices=choices), **changes)


def shaped(spec: ToolCalling, number: int) -> Draft:
    """A draft as the feature leaves it."""
    draft = Draft(number=number, rng=np.random.default_rng(number), messages=[])
    ToolFeature(spec).shape(draft)
    return draft


def names_due(draft: Draft) -> tuple[str, ...]:
    """Names of the functions that the answer must call."""
    assert isinstance(draft.expectation, ExpectCalls)
    assert draft.expectation.offered == TOOLS
    return draft.expectation.names


@pytest.mark.parametrize("strict", [True, False])
def test_functions_are_offered_as_openai_has_them(*, strict: bool) -> None:
    """`strict` is what has vLLM hold arguments to their schema: it belongs within `function`."""
    sent = msgspec.json.decode(
        msgspec.json.encode(shaped(spec_of({"auto": 1}, strict=strict), 0).members)
    )
    more = {"strict": True} if strict else {}
    assert sent == {
        "tools": [
            {
                "type": "function",
                "function": {"name": "alpha", "description": "First.", "parameters": SCHEMA, **more},
            },
            {"type": "function", "function": {"name": "beta", "parameters": {}, **more}},
            {"type": "function", "function": {"name": "gamma", "parameters": SCHEMA, **more}},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }  # fmt: skip


@given(number=st.integers(0, 10**9), choice=st.sampled_from(["auto", "required", "named"]))
def test_the_prompt_names_the_function_that_is_due(number: int, choice: str) -> None:
    """Without that no answer could be called right or wrong."""
    draft = shaped(spec_of({choice: 3.0}), number)
    (name,) = names_due(draft)
    assert (draft.case, draft.asks, draft.variants) == (name, [f"Use {name}."], [choice])
    expected = {"type": "function", "function": {"name": name}} if choice == "named" else choice
    assert draft.members["tool_choice"] == expected
    assert (draft.group, draft.turn) == (None, None)


@given(number=st.integers(0, 10**9), choice=st.sampled_from(["auto", "required", "named"]))
def test_two_different_functions_are_due_in_parallel_but_for_a_named_one(
    number: int, choice: str
) -> None:
    """A named tool_choice can name one."""
    draft = shaped(spec_of({choice: 1}, parallel=True), number)
    names = names_due(draft)
    assert len(set(names)) == len(names) == (1 if choice == "named" else 2)
    assert draft.members["parallel_tool_calls"] is (choice != "named")
    assert draft.asks == [f"Use {name}." for name in names]
    assert draft.case == ", ".join(names)


def test_choices_and_functions_come_as_often_as_their_weights_say() -> None:
    """A mix that is off by a tenth is another load. 4,000 draws: five deviations are 0.04."""
    spec = spec_of({"auto": 2, "required": 1, "named": 1, "none": 0}, no_call_share=0.2)
    drafts = [shaped(spec, number) for number in range(4000)]
    variants = Counter(draft.variants[0] for draft in drafts)
    wanted = {"auto": 0.4, "no call": 0.1, "required": 0.25, "named": 0.25}
    shares = {name: count / 4000 for name, count in variants.items()}
    assert shares == pytest.approx(wanted, abs=0.04)
    cases = Counter(draft.case for draft in drafts)
    assert cases.pop("no call") == variants["no call"]
    assert {name: count / 3600 for name, count in cases.items()} == pytest.approx(
        dict.fromkeys(("alpha", "beta", "gamma"), 1 / 3), abs=0.05
    )


def test_where_no_function_is_right_plain_words_are_asked_for() -> None:
    """A model that calls whenever it can is found only so."""
    draft = shaped(spec_of({"auto": 1}, no_call_share=1.0), 3)
    assert (draft.asks, draft.case, draft.variants) == ([NO_CALL_ASK], "no call", ["no call"])
    assert names_due(draft) == ()
    assert draft.members["tool_choice"] == "auto"
    assert len(draft.members["tools"]) == 3
    assert shaped(spec_of({"required": 1}, no_call_share=1.0), 3).variants == ["required"]


def request_of(draft: Draft) -> LLMRequest:
    """The request that a draft becomes."""
    return LLMRequest(
        index=draft.number,
        endpoint="chat",
        body={"messages": [{"role": "user", "content": "hi"}], **draft.members},
        input_tokens=1,
        input_tokens_exact=False,
        output_tokens=1,
        scenario="s",
        group=draft.group,
        turn=draft.turn,
    )


def followed(calls: list[ToolCall], *, second_turn: bool = True, turn: int = 0) -> FollowUp | None:
    """What comes after an answer of calls to a first request."""
    spec = spec_of({"auto": 1}, second_turn=second_turn)
    draft = shaped(spec, 5)
    request = replace(request_of(draft), turn=turn)
    answer = Answer(tool_calls=tuple(calls), finish_reason="tool_calls")
    return ToolFeature(spec).follow_up(request, answer)


def test_results_go_back_each_to_its_call() -> None:
    """The model is told what its calls gave, in the form that every server takes."""
    follow = followed(
        [
            ToolCall(id="1", name="alpha", arguments='{"a": 1}'),
            ToolCall(id="2", name="gone", arguments="{}"),
            ToolCall(id="3", name="beta", arguments="{}"),
        ]
    )
    assert follow is not None
    call, *results = follow.messages
    assert (call["role"], call["content"]) == ("assistant", None)
    assert [one["id"] for one in call["tool_calls"]] == ["1", "2", "3"]
    assert call["tool_calls"][0]["function"] == {"name": "alpha", "arguments": '{"a": 1}'}
    assert [(one["role"], one["tool_call_id"]) for one in results] == [
        ("tool", "1"),
        ("tool", "2"),
        ("tool", "3"),
    ]
    assert results[0]["content"] == "1"
    assert json.loads(results[1]["content"]) == {"error": "there is no function gone"}
    assert results[2]["content"] == '{"b": 2}'
    assert follow.members == {"tool_choice": "none"}
    assert follow.variant == "after result"
    characters = len('alpha{"a": 1}gone{}beta{}1') + len(results[1]["content"]) + len('{"b": 2}')
    assert follow.new_tokens == -(-characters // 4)


def test_a_second_turn_is_told_by_its_group() -> None:
    """Both turns of a dialogue belong together in the figures."""
    draft = shaped(spec_of({"auto": 1}, second_turn=True), 41)
    assert (draft.group, draft.turn) == (41, 0)


@pytest.mark.parametrize(
    ("calls", "second_turn", "turn"),
    [
        ([ToolCall(id="1", name="alpha", arguments="{}")], False, 0),
        ([ToolCall(id="1", name="alpha", arguments="{}")], True, 1),
        ([], True, 0),
        ([ToolCall(id="1", name="alpha", arguments='{"a": ')], True, 0),
        ([ToolCall(id="1", name="alpha", arguments="[1]")], True, 0),
        ([ToolCall(id="1", name="alpha", arguments="[" * 100_000)], True, 0),
    ],
    ids=["not wanted", "done", "no call", "cut", "no object", "too deep"],
)
def test_there_is_no_second_turn_where_nothing_can_be_sent_back(
    calls: list[ToolCall], *, second_turn: bool, turn: int
) -> None:
    """A server refuses a history with broken arguments, and the failure would not be its own."""
    assert followed(calls, second_turn=second_turn, turn=turn) is None


def test_the_packaged_tools_are_asked_for_by_name_and_have_results() -> None:
    """The word in the prompt is what tells the model, and the simulator, what to call."""
    spec = load_profile("tool-calling").tool_calling
    assert spec is not None
    assert 3 <= len(spec.tools) <= 5
    for tool in spec.tools:
        others = [other.name for other in spec.tools if other is not tool]
        assert tool.name in tool.ask.split()
        assert not any(name in tool.ask for name in others)
        assert isinstance(json.loads(tool.result), dict)
        assert tool.parameters["additionalProperties"] is False
    assert not any(tool.name in NO_CALL_ASK for tool in spec.tools)
    assert (set(spec.choices), spec.no_call_share) == ({"auto", "required", "named"}, 0.2)


def test_the_combination_leaves_nothing_to_choose_but_the_function() -> None:
    """It measures calls that are held to their schema, and nothing else."""
    spec = load_profile("combinations/structured").tool_calling
    assert spec is not None
    assert (spec.choices, spec.strict, spec.no_call_share) == ({"required": 1.0}, True, 0.0)
    assert spec.tools == load_profile("tool-calling").tool_calling.tools
