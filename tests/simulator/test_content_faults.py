"""Faults of what is said: a client finds each where the truth log says that it is, and no other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kvswarm.simulator.config import CONTENT_FAULTS

sys.path.insert(0, str(Path(__file__).parent))
from simulating import FAST, simulating

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}}
    for name in ("first", "second")
]
JSON = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {},
    "json": JSON,
    "choice": {"structured_outputs": {"choice": ["a", "b"]}},
    "regex": {"structured_outputs": {"regex": "[0-9]+"}},
    "grammar": {"structured_outputs": {"grammar": 'root ::= "a"'}},
    "anything": {"structured_outputs": {"json": {}}},
    "call": {"tools": TOOLS, "prompt": "first"},
    "required": {"tools": TOOLS, "tool_choice": "required"},
    "lone": {"tools": TOOLS[:1], "prompt": "first"},
    "no call": {"tools": TOOLS, "prompt": "hello"},
}
CALLS = {"call", "required", "lone"}
PLANTED = {
    "bad-json": {"json", "anything"},
    "bad-schema": {"json", "choice", "regex"},
    "no-tool-call": CALLS,
    "wrong-tool": CALLS,
    "bad-arguments": CALLS,
    "bad-argument-types": CALLS,
    "unwanted-tool-call": {"no call"},
    "cold-prefix": {*REQUESTS},
}


def test_every_fault_of_what_is_said_is_tested_here() -> None:
    """A new one needs a test."""
    assert sorted(CONTENT_FAULTS) == sorted(PLANTED)


def judged(asked: str, message: dict[str, Any]) -> set[str]:
    """The faults that a client finds in an answer, by looking at it."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    if asked in CALLS:
        if not calls:
            return {"no-tool-call"}
        offered = {"lone": {"first"}, "call": {"first"}}.get(asked, {"first", "second"})
        found = {"wrong-tool"} if calls[0]["name"] not in offered else set()
        return found | judged_json(calls[0]["arguments"], "bad-arguments", "bad-argument-types")
    if calls:
        return {"unwanted-tool-call"}
    text = message["content"]
    if asked in {"choice", "regex"}:
        right = text in {"a", "b"} if asked == "choice" else text.isdecimal()
        return set() if right else {"bad-schema"}
    if asked in {"json", "anything"}:
        return judged_json(text, "bad-json", "bad-schema" if asked == "json" else None)
    return set()


def judged_json(text: str, unread: str, violated: str | None) -> set[str]:
    """Whether a text is JSON, and of the schema."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {unread}
    if violated is None or (isinstance(value, dict) and type(value.get("n")) is int):
        return set()
    return {violated}


@pytest.mark.parametrize("fault", [None, *PLANTED])
def test_a_fault_of_what_is_said_is_found_where_the_log_says(
    fault: str | None, tmp_path: Path
) -> None:
    """Each request is answered as planned, or not at all as planned; the log tells which."""
    log = tmp_path / "truth"
    options = ("--fault", fault) if fault else ()
    found: dict[str, set[str]] = {}
    with simulating(*FAST, "--truth-log", str(log), *options) as running:
        for name, asked in REQUESTS.items():
            answer = running.ask(request_id=name, **{"max_tokens": 400, **asked})
            found[name] = judged(name, answer.json()["choices"][0]["message"])
            assert running.ask(request_id=name, stream=True, **asked).status == 200
    planted: dict[str, set[str | None]] = {name: set() for name in REQUESTS}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        planted[line["id"]].add(line["fault"])
    expected = PLANTED.get(fault or "", set())
    assert planted == {name: {fault if name in expected else None} for name in REQUESTS}
    seen = {name: {fault} if name in expected else set() for name in REQUESTS}
    if fault == "wrong-tool":
        seen["required"] = set()  # another that was offered: nobody was named
    if fault != "cold-prefix":
        assert found == seen
    kinds = {line["id"]: line["kind"] for line in lines}
    if fault is None:
        assert kinds == {
            "text": "text", "json": "json", "choice": "choice", "regex": "regex",
            "grammar": "grammar", "anything": "json", "call": "tool_calls",
            "required": "tool_calls", "lone": "tool_calls", "no call": "text",
        }  # fmt: skip


def test_a_wrong_tool_is_another_one_or_unknown() -> None:
    """Where there is another, that; the arguments are right for what is called."""
    with simulating(*FAST, "--fault", "wrong-tool") as running:
        for tools, name in ((TOOLS, "second"), (TOOLS[:1], "first_unknown")):
            message = running.ask(tools=tools, prompt="first", max_tokens=99).json()["choices"][0]
            [call] = message["message"]["tool_calls"]
            assert call["function"]["name"] == name
            assert type(json.loads(call["function"]["arguments"])["n"]) is int


def test_a_cold_prefix_is_computed_whole_and_kept_from_others() -> None:
    """With half of the requests cold, the hits are those of the warm ones."""
    prompt = " ".join(f"word{place}" for place in range(33))
    with simulating(*FAST, "--fault", "cold-prefix") as running:
        told = [running.ask(prompt=prompt).json()["usage"] for _ in range(3)]
        assert running.value("vllm:prefix_cache_hits_total") == 0
    assert [usage["prompt_tokens_details"]["cached_tokens"] for usage in told] == [0] * 3


@pytest.mark.parametrize("fault", ["bad-json", "cold-prefix"])
def test_what_was_planted_can_be_counted(fault: str, tmp_path: Path) -> None:
    """A share of requests, drawn by the seed; the log and the client agree on each."""
    log = tmp_path / "truth"
    share = ("--fault", fault, "--fault-share", "0.4")
    prompt = " ".join(f"word{place}" for place in range(33))
    with simulating(*FAST, *share, "--truth-log", str(log)) as running:
        seen = []
        for _ in range(40):
            body = running.ask(prompt=prompt, max_tokens=400, **JSON).json()
            text = body["choices"][0]["message"]["content"]
            cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
            bad = judged_json(text, "bad-json", None) != set()
            seen.append(cached == 0 if fault == "cold-prefix" else bad)
    planted = [json.loads(line)["fault"] == fault for line in log.read_text().splitlines()]
    assert 5 < sum(planted) < 30
    warm = planted.index(False)
    assert seen[:warm] == planted[:warm]
    assert seen[warm + 1 :] == planted[warm + 1 :]
