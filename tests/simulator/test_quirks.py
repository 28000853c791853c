"""What real streams have beside words in events of one token: reasoning, comments, bundles."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulating import CHAT, COMPLETIONS, FAST, Answer, simulating, total

EXACT = ("--exact", "1", "0.1")
MODES = pytest.mark.parametrize("options", [EXACT, FAST], ids=["exact", "engine"])
USAGE = {"stream_options": {"include_usage": True}}


def deltas(answer: Answer) -> list[dict[str, Any]]:
    """The deltas of a chat stream."""
    return [choice["delta"] for chunk in answer.chunks() for choice in chunk["choices"]]


@MODES
def test_the_first_tokens_are_reasoning(options: tuple[str, ...]) -> None:
    """In a field of their own, counted apart in the usage; the words are the same."""
    with simulating(*options) as plain:
        words = plain.ask(stream=True, max_tokens=10).tokens()
    with simulating(*options, "--reasoning-tokens", "4") as running:
        answer = running.ask(stream=True, max_tokens=10, **USAGE)
        cut = running.ask(stream=True, max_tokens=3, **USAGE)
        completion = running.ask(COMPLETIONS, stream=True, max_tokens=6, **USAGE)
    keys = [[*delta] for delta in deltas(answer)]
    assert keys == [["role", "content"], *[["reasoning"]] * 4, *[["content"]] * 6, []]
    assert [delta.get("reasoning") for delta in deltas(answer)[1:5]] == words[:4]
    assert answer.tokens() == words[4:]
    usage = answer.chunks()[-1]["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]) == (
        10, {"reasoning_tokens": 4},
    )  # fmt: skip
    assert cut.tokens() == []
    assert cut.chunks()[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert len(completion.tokens()) == 6
    assert "completion_tokens_details" not in completion.chunks()[-1]["usage"]


def test_reasoning_comes_before_a_document_and_before_a_call() -> None:
    """Neither is shortened by it, also where one body holds all."""
    tool = {"type": "function", "function": {"name": "ping"}}
    with simulating(*FAST, "--reasoning-tokens", "3") as running:
        asked = {"max_tokens": 300, "response_format": {"type": "json_object"}}
        answer = running.ask(stream=True, **asked)
        body = running.ask(**asked).json()
        call = running.ask(prompt="ping", tools=[tool], max_tokens=9).json()
    assert isinstance(json.loads("".join(answer.tokens())), dict)
    assert sum("reasoning" in delta for delta in deltas(answer)) == 3
    message = body["choices"][0]["message"]
    assert isinstance(json.loads(message["content"]), dict)
    assert message["reasoning"]
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    message = call["choices"][0]["message"]
    assert message["reasoning"]
    assert message["tool_calls"][0]["function"] == {"name": "ping", "arguments": "{}"}
    assert call["usage"]["completion_tokens"] == 5


def test_a_bundle_may_hold_the_end_of_reasoning_and_the_begin_of_content() -> None:
    """One event, both fields: the tokens of one step."""
    options = ("--speculative-tokens", "3", "--acceptance", "1", "--reasoning-tokens", "3")
    with simulating(*FAST, *options) as running:
        answer = running.ask(stream=True, max_tokens=9, return_token_ids=True)
    keys = [[*delta] for delta in deltas(answer)]
    assert keys == [
        ["role", "content"], ["reasoning"], ["reasoning", "content"], ["content"], []
    ]  # fmt: skip
    ids = [len(c["choices"][0].get("token_ids", ())) for c in answer.chunks()]
    assert ids == [0, 1, 4, 4, 0]


def test_a_bundle_may_hold_a_call_from_its_name_on() -> None:
    """Name and arguments in one entry, and two calls in one delta."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("ping", "pong")]
    options = ("--speculative-tokens", "9", "--acceptance", "1")
    with simulating(*FAST, *options) as running:
        answer = running.ask(stream=True, prompt="ping pong", tools=tools, max_tokens=50)
    [_, first, rest, _] = deltas(answer)
    assert [entry["function"] for entry in first["tool_calls"]] == [{"name": "ping"}]
    entries = [(entry["index"], entry["function"]) for entry in rest["tool_calls"]]
    assert entries == [(0, {"arguments": "{}"}), (1, {"name": "pong", "arguments": "{}"})]


@MODES
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_comments_stand_between_the_events(path: str, options: tuple[str, ...]) -> None:
    """Lines that a client must skip; what is left is the stream without them."""
    with simulating(*options, "--keep-alive") as running:
        body = running.ask(path, stream=True, max_tokens=4).body.decode()
        assert running.ask(path, max_tokens=4).json()["usage"]["completion_tokens"] == 4
    parts = body.split("\n\n")
    comments = [place for place, part in enumerate(parts) if part == ": keep-alive"]
    chat = path == CHAT
    assert comments == [2 * token + chat + 1 for token in range(4)]
    assert all(part.startswith("data: ") for part in parts[:-1] if part != ": keep-alive")
    assert parts[-2:] == ["data: [DONE]", ""]


@MODES
def test_events_of_several_tokens_after_one_of_one(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """As vLLM's --stream-interval: 1, 4, 4, and what is left; the log tells events and tokens."""
    log = tmp_path / "truth"
    asked = {"stream": True, "max_tokens": 10, "return_token_ids": True}
    with simulating(*options) as plain:
        words = plain.ask(**asked).tokens()
    with simulating(*options, "--stream-interval", "4", "--truth-log", str(log)) as running:
        answer = running.ask(**asked)
        assert running.ask(max_tokens=10).json()["usage"]["completion_tokens"] == 10
        one = running.ask(stream=True, max_tokens=1)
        metrics = running.metrics()
    ids = [len(c["choices"][0].get("token_ids", ())) for c in answer.chunks()]
    assert ids == [0, 1, 4, 4, 1, 0]
    assert answer.tokens() == [words[0], "".join(words[1:5]), "".join(words[5:9]), words[9]]
    assert len(one.tokens()) == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["events"], line["tokens"]) for line in lines] == [(4, 10), (4, 10), (1, 1)]
    assert [len(line["itl_us"]) for line in lines] == [3, 3, 0]
    assert total(metrics, "vllm:generation_tokens_total") == 21
    assert total(metrics, "vllm:inter_token_latency_seconds_count") == 18
