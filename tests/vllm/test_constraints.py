"""The packaged structured-output and tool-calling profiles against real vLLM, and how we score it.

The model has random weights, so nothing but the server's own constraints gives its answers a form.
"""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.json import decode

from kvswarm.profiles.features import StructuredOutput, ToolCalling
from kvswarm.profiles.load import load_profile
from kvswarm.scoring.score import score
from kvswarm.stream.deltas import Chunk
from kvswarm.workload.answers import Answer, tool_calls_of
from kvswarm.workload.drafts import Draft, Feature
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.structured import StructuredFeature
from kvswarm.workload.tools import ToolFeature

sys.path.insert(0, str(Path(__file__).parent))
from serving import MODEL, Server, serving

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.vllm

STRUCTURED = load_profile("structured-output").structured_output
TOOLS = load_profile("tool-calling").tool_calling
assert isinstance(STRUCTURED, StructuredOutput)
assert isinstance(TOOLS, ToolCalling)
NOT_IN_THE_CALENDAR = 'the schema wants format "date'
"""vLLM holds dates to a pattern, which lets a 31 February through."""


@pytest.fixture(scope="module")
def server(
    vllm_python: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of a model that can end: where a form is complete, nothing but the end may come."""
    directory = tmp_path_factory.mktemp("ending") / "tiny"
    shutil.copytree(model, directory)
    for name, key, value in (
        ("config.json", "eos_token_id", 1),
        ("tokenizer_config.json", "eos_token", "<|role|>"),
    ):
        settings = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps({**settings, key: value}))
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    with serving(vllm_python, directory, *flags) as running:
        yield running


def drafts_of(feature: Feature, count: int) -> Iterator[Draft]:
    """Requests as a feature shapes them."""
    for number in range(count):
        messages = [{"role": "user", "content": "any words"}]
        draft = Draft(number=number, rng=np.random.default_rng(number), messages=messages)
        feature.shape(draft)
        yield draft


def answered(server: Server, messages: Sequence[Any], members: dict[str, Any]) -> Answer:
    """Send one request, as a stream; its answer. Fails where the server refuses it."""
    body = {"model": MODEL, "messages": messages, "max_tokens": 600, "stream": True, **members}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)) as connection:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        told = response.read()
    assert response.status == http.HTTPStatus.OK, told
    events = [event.removeprefix(b"data: ") for event in told.split(b"\n\n") if event]
    assert events.pop() == b"[DONE]"
    choices = [choice for event in events for choice in decode(event, type=Chunk).choices]
    deltas = [choice.delta for choice in choices if choice.delta is not None]
    return Answer(
        text="".join(delta.content or "" for delta in deltas),
        tool_calls=tool_calls_of(call for delta in deltas for call in delta.tool_calls or ()),
        finish_reason=choices[-1].finish_reason,
    )


def answers_of(server: Server, feature: Feature, count: int) -> list[tuple[Draft, Answer]]:
    """Requests that a feature shapes, and their answers; eight at a time."""
    drafts = list(drafts_of(feature, count))
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = pool.map(
            lambda draft: answered(server, draft.messages, {**draft.members, "seed": draft.number}),
            drafts,
        )
        return list(zip(drafts, answers, strict=True))


@pytest.mark.parametrize("via", ["response_format", "structured_outputs"])
def test_what_vllm_constrains_is_valid_or_cut_and_nothing_else(server: Server, via: str) -> None:
    """Else either the constraint is not sent as vLLM takes it, or the score is wrong."""
    spec = replace(STRUCTURED, via=via, control=False)
    kinds: Counter[str] = Counter()
    for draft, answer in answers_of(server, StructuredFeature(spec), 6 * len(spec.constraints)):
        found = score(draft.expectation, answer)
        kinds[found.kind] += 1
        if found.kind == "invalid":
            assert NOT_IN_THE_CALENDAR in str(found.detail), (draft.case, found, answer)
    logger.info("%s: %s", via, dict(kinds))
    assert kinds["valid"] > kinds["truncated"]


@pytest.mark.parametrize("choice", ["required", "named"])
def test_calls_that_vllm_constrains_are_sound(server: Server, choice: str) -> None:
    """A model of random weights calls any function, but only as its schema allows."""
    feature = ToolFeature(replace(TOOLS, choices={choice: 1.0}))
    kinds: Counter[str] = Counter()
    for draft, answer in answers_of(server, feature, 24):
        found = score(draft.expectation, answer)
        kinds[found.kind] += 1
        allowed = {"valid", "truncated", *(["wrong_function"] if choice == "required" else [])}
        if found.kind not in allowed:
            assert NOT_IN_THE_CALENDAR in str(found.detail), (draft.case, found, answer)
    logger.info("%s: %s", choice, dict(kinds))
    assert kinds["valid"]


def test_with_auto_a_model_that_knows_nothing_calls_nothing(server: Server) -> None:
    """Requests are as vLLM takes them, and words are no call."""
    feature = ToolFeature(replace(TOOLS, choices={"auto": 1.0}, no_call_share=0.5))
    kinds = Counter(
        (bool(draft.expectation.names), score(draft.expectation, answer).kind)
        for draft, answer in answers_of(server, feature, 8)
    )
    assert set(kinds) == {(True, "no_call"), (False, "valid")}


def test_a_second_turn_is_taken_and_answered_in_words(server: Server) -> None:
    """The history with calls and results is one that vLLM reads."""
    feature = ToolFeature(replace(TOOLS, choices={"named": 1.0}, second_turn=True))
    turns = 0
    for draft, answer in answers_of(server, feature, 8):
        request = LLMRequest(
            index=0,
            endpoint="chat",
            body={},
            input_tokens=1,
            input_tokens_exact=False,
            output_tokens=1,
            scenario="tools",
            group=draft.group,
            turn=draft.turn,
        )
        follow = feature.follow_up(request, answer)
        if follow is None:
            continue
        turns += 1
        messages = [*draft.messages, *follow.messages]
        members = {**draft.members, **follow.members, "max_tokens": 16}
        assert not answered(server, messages, members).tool_calls
    assert turns
