"""Tool calls as a client sees them: which are made, and how vLLM puts them on the wire."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parent))
from simulating import FAST, Answer, Server, simulating

CAPTURED = Path(__file__).parents[1] / "fixtures/chat_stream_tool_required_strict.sse"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"type": "integer"}}, "required": ["zone"]}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME, "ping": {"type": "object"}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_weather", "parameters": WEATHER, "strict": True},
    },
    {"type": "function", "function": {"name": "get_time", "parameters": TIME}},
    {"type": "function", "function": {"name": "ping"}},
]
NAMED = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One quick simulator."""
    with simulating(*FAST) as running:
        yield running


def calls_of(answer: Answer) -> list[tuple[str, str]]:
    """Names and arguments of a stream, put together by index as OpenAI says."""
    calls: list[tuple[str, str]] = []
    for chunk in answer.chunks():
        for choice in chunk["choices"]:
            for entry in choice["delta"].get("tool_calls", ()):
                function = entry["function"]
                if "name" in function:
                    assert entry["index"] == len(calls)
                    assert entry["type"] == "function"
                    assert entry["id"].startswith("chatcmpl-tool-")
                    calls.append((function["name"], ""))
                name, arguments = calls[entry["index"]]
                calls[entry["index"]] = (name, arguments + function.get("arguments", ""))
    return calls


def end_of(answer: Answer) -> Any:
    """The finish_reason of a stream."""
    [reason] = {c["finish_reason"] for chunk in answer.chunks() for c in chunk["choices"]} - {None}
    return reason


def names(server: Server, prompt: str, **values: Any) -> list[str]:
    """The functions that are called; their arguments are valid."""
    answer = server.ask(stream=True, prompt=prompt, max_tokens=300, tools=TOOLS, **values)
    calls = calls_of(answer)
    for name, arguments in calls:
        Draft202012Validator(SCHEMAS[name]).validate(json.loads(arguments))
        assert isinstance(json.loads(arguments), dict)
    called = "stop" if values.get("tool_choice") == NAMED else "tool_calls"
    assert end_of(answer) == (called if calls else "length")
    assert bool(answer.tokens()) == (not calls)
    return [name for name, _ in calls]


@pytest.mark.parametrize(
    ("prompt", "values", "expected"),
    [
        ("please get_weather in Oslo", {}, ["get_weather"]),
        ("get_time, then get_weather, then get_time", {}, ["get_time", "get_weather"]),
        ("get_time and get_weather", {"parallel_tool_calls": False}, ["get_time"]),
        ("get_time and get_weather", {"tool_choice": "auto"}, ["get_time", "get_weather"]),
        ("budget_time my-get_time get_times", {}, []),
        ("how are you", {}, []),
        ("get_weather", {"tool_choice": "none"}, []),
        ("get_weather", {"tool_choice": "required"}, ["get_weather"]),
        ("get_weather", {"tool_choice": NAMED}, ["get_time"]),
        ("how are you", {"tool_choice": NAMED}, ["get_time"]),
    ],
)
def test_the_functions_that_the_last_question_names_are_called_in_order(
    prompt: str, values: dict[str, Any], expected: list[str], server: Server
) -> None:
    """So a test says in its prompt what it expects; a named choice overrules."""
    assert names(server, prompt, **values) == expected


def test_required_without_a_name_calls_any_one(server: Server) -> None:
    """Drawn with the seed; over some requests all of them come."""
    called = [names(server, "how are you", tool_choice="required") for _ in range(25)]
    assert {len(one) for one in called} == {1}
    assert {one[0] for one in called} == set(SCHEMAS)


def test_after_the_result_of_a_tool_auto_answers_in_text(server: Server) -> None:
    """The last user message still names the function, but its call has been answered."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "get_weather"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function",
         "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]  # fmt: skip
    assert names(server, "", messages=messages) == []
    assert names(server, "", messages=messages, tool_choice="required") == ["get_weather"]
    assert names(server, "", messages=[*messages, messages[0]]) == ["get_weather"]
    parts = {"role": "user", "content": [{"type": "text", "text": "get_time"}]}
    assert names(server, "", messages=[*messages, parts]) == ["get_time"]


def shape(delta: dict[str, Any]) -> Any:
    """A delta without what is drawn: its keys in order, and those of its calls."""
    calls = delta.get("tool_calls") or []
    return [
        *delta,
        *((call.get("index"), [*call], [*call["function"]]) for call in calls),
    ]


def test_a_call_looks_on_the_wire_as_a_captured_one(server: Server) -> None:
    """Key for key and in their order, against a stream of a real vLLM."""
    answer = server.ask(
        stream=True, prompt="get_weather get_time", tools=TOOLS, tool_choice="required",
        max_tokens=300,
    )  # fmt: skip
    ours = [shape(chunk["choices"][0]["delta"]) for chunk in answer.chunks()]
    real = [
        shape(json.loads(line[6:])["choices"][0]["delta"])
        for line in CAPTURED.read_text().splitlines()
        if line.startswith("data: {")
    ]
    at_first = [one for one in real if not one or not isinstance(one[-1], tuple) or one[-1][0] < 2]
    assert list(dict.fromkeys(map(str, ours))) == list(dict.fromkeys(map(str, at_first)))


def test_fragments_count_as_tokens_and_the_limit_cuts_a_call(server: Server) -> None:
    """`length`, as in the captured stream; the arguments are then no JSON."""
    asked = {"prompt": "get_weather", "tools": TOOLS, "stream_options": {"include_usage": True}}
    answer = server.ask(stream=True, max_tokens=4, return_token_ids=True, **asked)
    assert answer.chunks()[-1]["usage"]["completion_tokens"] == 4
    assert end_of(answer) == "length"
    ids = [c.get("token_ids") for chunk in answer.chunks() for c in chunk["choices"]]
    assert [len(one) for one in ids if one is not None] == [1] * 4
    [(name, arguments)] = calls_of(answer)
    assert (name, len(arguments)) == ("get_weather", 12)
    assert "{" in arguments
    assert "}" not in arguments


def test_without_stream_the_calls_are_in_the_message(server: Server) -> None:
    """With whole arguments, and no content."""
    [choice] = server.ask(prompt="ping get_time", tools=TOOLS, max_tokens=200).json()["choices"]
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == (None, "tool_calls")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["ping", "get_time"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {}
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    [choice] = server.ask(prompt="get_time", tools=TOOLS, tool_choice=NAMED).json()["choices"]
    assert choice["finish_reason"] == "length"
    asked = {"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 200}
    [choice] = server.ask(prompt="get_time", **asked).json()["choices"]
    assert choice["finish_reason"] == "stop"


def test_a_format_holds_where_no_call_is_due(server: Server) -> None:
    """Tools and a schema together: the call, or else the document."""
    asked = {"tools": TOOLS, "response_format": {"type": "json_object"}, "max_tokens": 300}
    [choice] = server.ask(prompt="hello", **asked).json()["choices"]
    assert isinstance(json.loads(choice["message"]["content"]), dict)
    [choice] = server.ask(prompt="get_time", **asked).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"


UNKNOWN = {"type": "object", "patternProperties": {}}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no tools": ({"tool_choice": "auto"}, "`tools` must be set"),
    "unknown function": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "does not match any of the specified `tools`",
    ),
    "unknown choice": ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice must be one of"),
    "no list": ({"tools": {}}, "tools: a list is required"),
    "no name": ({"tools": [{"type": "function", "function": {}}]}, "function.name"),
    "no function": ({"tools": ["get_time"]}, "function.name"),
    "no schema": (
        {"tools": [{"function": {"name": "f", "parameters": []}}]},
        "must be a JSON Schema",
    ),
    "strict": (
        {"tools": [{"function": {"name": "f", "strict": True, "parameters": UNKNOWN}}]},
        "tools, f: JSON Schema keyword 'patternProperties'",
    ),
    "required": (
        {"tools": [{"function": {"name": "f", "parameters": UNKNOWN}}], "tool_choice": "required"},
        "tools, f: JSON Schema keyword 'patternProperties'",
    ),
    "to be called": (
        {"tools": [{"function": {"name": "f", "parameters": UNKNOWN}}], "prompt": "call f"},
        "'patternProperties'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_tools_that_make_no_sense_are_a_400(name: str, server: Server) -> None:
    """With vLLM's words where it has some."""
    asked, said = BAD[name]
    answer = server.ask(stream=True, **asked)
    assert answer.status == 400
    assert said in answer.json()["error"]["message"]


def test_what_vllm_takes_is_taken(server: Server) -> None:
    """A schema that is not constrained, and not called, is nobody's affair."""
    loose = [{"function": {"name": "f", "parameters": UNKNOWN}}]
    for asked in ({"tools": loose}, {"tools": []}, {"tools": None}, {"tool_choice": "none"}):
        assert len(server.ask(stream=True, max_tokens=5, **asked).tokens()) == 5


def test_without_a_parser_auto_is_refused_in_the_words_of_vllm() -> None:
    """As a server without --enable-auto-tool-choice; the other choices need none."""
    with simulating(*FAST, "--no-tool-parser") as running:
        for asked in ({}, {"tool_choice": "auto"}):
            answer = running.ask(prompt="ping", tools=TOOLS, **asked)
            assert answer.status == 400
            assert answer.json()["error"]["message"] == (
                '"auto" tool choice requires --enable-auto-tool-choice and '
                "--tool-call-parser to be set"
            )
        assert running.ask(tools=TOOLS, tool_choice="none").status == 200
        assert names(running, "ping", tool_choice="required") == ["ping"]
