"""What requests do beside sending a prompt: conversations, adapters, images, prefixes, mixes."""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.profiles.load import list_profiles, load_profile
from kvswarm.profiles.model import Profile
from kvswarm.workload.answers import Answer
from kvswarm.workload.images import png
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.workload import open_workload

STANDARD = load_profile("standard")
SAID = Answer(text="I said this.", finish_reason="stop")


def written(folder: Path, text: str) -> Profile:
    """A profile of a few keys over `standard`."""
    path = folder / "case.yaml"
    path.write_text(f"extends: standard\n{text}\n")
    return load_profile(str(path))


def turns_of(profile: Profile, number: int) -> list[LLMRequest]:
    """A whole conversation in which the assistant always says the same."""
    workload = open_workload(profile)
    turns = [workload.request(0, number)]
    while (following := workload.follow_up(turns[-1], SAID)) is not None:
        turns.append(following)
    return turns


@pytest.mark.parametrize("entry", list_profiles(), ids=lambda entry: entry.name)
def test_every_packaged_profile_makes_the_same_requests_in_any_order(entry: Any) -> None:
    """Any worker must make the same; else a run cannot be repeated."""
    one, other = (open_workload(load_profile(entry.name)) for _ in range(2))
    forwards = [one.request(index) for index in range(6)]
    assert [other.request(index) for index in (5, 4, 3, 2, 1, 0)] == forwards[::-1]
    assert all(b'"model":' in request.encoded("m") for request in forwards)


def test_a_conversation_is_sent_with_all_that_was_said_before(tmp_path: Path) -> None:
    """The server has no memory but the history that it is sent."""
    profile = written(tmp_path, "conversation: {turns: 3, think_time_s: 0.5}\nsystem: Be brief.")
    first, second, third = turns_of(profile, 4)
    for before, after in ((first, second), (second, third)):
        history = before.body["messages"]
        assert after.body["messages"][: len(history)] == history
        reply, question = after.body["messages"][len(history) :]
        assert reply == {"role": "assistant", "content": SAID.text}
        assert question["role"] == "user"
        assert after.think_time_s == 0.5
        assert after.input_tokens > before.input_tokens
    assert [turn.variant for turn in (first, second, third)] == ["turn 1", "turn 2", "turn 3"]
    assert [turn.turn for turn in (first, second, third)] == [0, 1, 2]
    assert {turn.group for turn in (first, second, third)} == {4}
    questions = [turn.body["messages"][-1]["content"] for turn in (first, second, third)]
    assert len(set(questions)) == 3


def test_every_turn_of_a_constrained_conversation_is_judged(tmp_path: Path) -> None:
    """The constraint is sent with every turn, so the server owes it in every turn."""
    form = "structured_output: {control: false, constraints: [{choice: [yes it is, no it is not]}]}"
    first, second = turns_of(written(tmp_path, f"conversation: {{turns: 2}}\n{form}"), 0)
    assert first.expectation is not None
    assert second.expectation == first.expectation
    assert second.body["structured_outputs"] == first.body["structured_outputs"]


@given(numbers=st.lists(st.integers(0, 10**6), min_size=2, max_size=3, unique=True))
@settings(max_examples=10, deadline=None)
def test_conversations_depend_on_their_number_alone(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    """Which index a turn gets depends on who is quicker; what is said must not."""
    profile = written(tmp_path_factory.mktemp("talk"), "conversation: {turns: 2}")
    one = [turns_of(profile, number) for number in numbers]
    assert [turns_of(profile, number) for number in reversed(numbers)] == one[::-1]
    openings = {turns[0].body["messages"][-1]["content"] for turns in one}
    assert len(openings) == len(numbers)


def test_adapters_come_by_their_weights_and_base_is_the_model_itself(tmp_path: Path) -> None:
    """vLLM serves an adapter under its own name as the model."""
    workload = open_workload(written(tmp_path, "adapters: {base: 1, one: 2, none: 0}"))
    requests = [workload.request(index) for index in range(3000)]
    models = Counter(request.model for request in requests)
    assert set(models) == {None, "one"}
    assert models["one"] / 3000 == pytest.approx(2 / 3, abs=0.03)
    assert all(b'"model":"one"' in r.encoded("m") for r in requests if r.model == "one")
    assert all(b'"model":"m"' in r.encoded("m") for r in requests if r.variant == "base")


@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_an_image_is_a_png_of_the_size_that_was_asked_for(
    width: int, height: int, seed: int
) -> None:
    """Checked as the format's specification says, chunk by chunk."""
    file = png(width, height, np.random.default_rng(seed))
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(file):
        (length,) = struct.unpack_from(">I", file, place)
        name, data = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", file, place + 8 + length) == (zlib.crc32(name + data),)
        chunks[name] = data
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">II5B", chunks[b"IHDR"]) == (width, height, 8, 2, 0, 0, 0)
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)


def test_every_count_comes_with_every_size_and_no_image_twice(tmp_path: Path) -> None:
    """An image that came before is in the server's cache."""
    images = "images: {count: [0, 1, 2], size: [32x32, 64x48]}"
    workload = open_workload(written(tmp_path, images))
    requests = [workload.request(index) for index in range(12)]
    assert Counter(request.variant for request in requests) == {
        "no image": 4, "1 x 32x32": 2, "1 x 64x48": 2, "2 x 32x32": 2, "2 x 64x48": 2,
    }  # fmt: skip
    urls = []
    for request in requests:
        content = request.body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        *images_of, text = parts
        assert text["type"] == "text"
        assert text["text"]
        urls += [part["image_url"]["url"] for part in images_of]
    assert len(urls) == len(set(urls)) == 12
    prefix = "data:image/png;base64,"
    assert all(base64.b64decode(url.removeprefix(prefix))[1:4] == b"PNG" for url in urls)


def test_prompts_share_prefixes_as_often_as_they_are_told_to() -> None:
    """The others must be as long, and begin like no other."""
    prompt = replace(
        load_profile("prefix-caching").prompt,
        shared_prefix_tokens=20, shared_prefixes=3, shared_prefix_share=0.5,
    )  # fmt: skip
    workload = open_workload(replace(STANDARD, prompt=prompt))
    requests = [workload.request(index) for index in range(1000)]
    starts: dict[str | None, Counter[str]] = {}
    for request in requests:
        words = request.body["messages"][-1]["content"].split()
        assert len(words) == 1152
        starts.setdefault(request.variant, Counter())[" ".join(words[:20])] += 1
    assert set(starts) == {"own prefix", "shared prefix"}
    assert len(starts["shared prefix"]) == 3
    assert starts["shared prefix"].total() == pytest.approx(500, abs=60)
    assert set(starts["own prefix"].values()) == {1}


def test_listed_lengths_take_turns_and_name_their_variant() -> None:
    """TTFT against prompt length needs each length as often as the others."""
    workload = open_workload(load_profile("attention"))
    requests = [workload.request(index) for index in range(10)]
    lengths = [256, 1024, 2048, 4096, 7168] * 2
    assert [request.input_tokens for request in requests] == lengths
    assert [request.variant for request in requests] == [f"{n} tokens" for n in lengths]


def test_a_mix_draws_its_profiles_by_weight_and_keeps_pairs_together(tmp_path: Path) -> None:
    """A request without its control compares with nothing."""
    path = tmp_path / "mix.yaml"
    path.write_text(
        "requests: 9\nconcurrency: 1\nseed: 3\nmix: {standard: 3, structured-output: 1}\n"
    )
    workload = open_workload(load_profile(str(path)))
    requests = [workload.request(index) for index in range(4000)]
    names = Counter(request.scenario for request in requests)
    assert names["structured-output"] / 4000 == pytest.approx(0.25, abs=0.03)
    pairs = Counter(r.group for r in requests if r.scenario == "structured-output")
    assert set(pairs.values()) == {2}


def test_the_parts_of_a_mix_have_its_seed(tmp_path: Path) -> None:
    """Otherwise --seed would repeat the prompts of the run before."""
    path = tmp_path / "mix.yaml"
    texts = []
    for seed in (1, 2):
        path.write_text(f"requests: 9\nconcurrency: 1\nseed: {seed}\nmix: {{standard: 1}}\n")
        texts.append(open_workload(load_profile(str(path))).request(0).body["messages"])
    assert texts[0] != texts[1]
