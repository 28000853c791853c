"""What each request sends: repeatable, unique, as long as asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import DatasetError
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Lengths, Profile
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.workload import open_workload

STANDARD = load_profile("standard")


def variant(**changes: Any) -> Profile:
    """The standard profile, with other prompts."""
    profile_keys = {
        key: changes.pop(key) for key in ("endpoint", "seed", "request") if key in changes
    }
    return replace(STANDARD, prompt=replace(STANDARD.prompt, **changes), **profile_keys)


def fixed(tokens: int) -> Lengths:
    """Always so many tokens."""
    return Lengths(kind="fixed", mean_tokens=tokens, min_tokens=tokens, max_tokens=tokens)


def text_of(request: LLMRequest) -> str:
    """The text of the user's message or the prompt."""
    body = request.body
    text: str = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    return text


@given(indexes=st.lists(st.integers(0, 10**9), min_size=1, max_size=6), seed=st.integers(0, 2**63))
def test_a_request_depends_on_seed_and_index_alone(indexes: list[int], seed: int) -> None:
    """Any worker, in any order, must make the same; else a run cannot be repeated."""
    one, other = open_workload(variant(seed=seed)), open_workload(variant(seed=seed))
    forwards = [one.request(index) for index in indexes]
    assert [other.request(index) for index in reversed(indexes)] == forwards[::-1]


def test_another_process_makes_the_same_requests() -> None:
    """Hash seeds and import order of a worker must not matter."""
    program = (
        "import json; from kvswarm.profiles.load import load_profile;"
        "from kvswarm.workload.workload import open_workload;"
        "w = open_workload(load_profile('burst'));"
        "print(json.dumps([w.request(i).body for i in range(20)]))"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    here = open_workload(load_profile("burst"))
    assert json.loads(made) == [here.request(i).body for i in range(20)]


def test_the_body_is_plain_openai_with_usage() -> None:
    """Members that only some servers know would make others refuse the request."""
    request = open_workload(variant(ignore_eos=False, request={"temperature": 0})).request(3)
    assert {key: value for key, value in request.body.items() if key != "messages"} == {
        "max_tokens": 128,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [message["role"] for message in request.body["messages"]] == ["user"]
    assert (request.index, request.endpoint, request.output_tokens) == (3, "chat", 128)
    assert open_workload(STANDARD).request(0).body["ignore_eos"] is True


def test_completions_send_a_prompt() -> None:
    """The other endpoint knows no messages."""
    body = open_workload(variant(endpoint="completions")).request(0).body
    assert isinstance(body["prompt"], str)
    assert "messages" not in body


def test_a_system_message_comes_first_and_on_top_of_the_length() -> None:
    """It is shared by all requests, so it is counted apart."""
    request = open_workload(variant(system="Be brief.")).request(0)
    assert [m["role"] for m in request.body["messages"]] == ["system", "user"]
    assert request.input_tokens == 256 + 3


@given(tokens=st.integers(8, 700), index=st.integers(0, 10**9))
def test_an_estimated_prompt_has_a_word_for_every_token(tokens: int, index: int) -> None:
    """Each word is one token in the usual vocabularies, so this is the honest estimate."""
    request = open_workload(variant(input_tokens=fixed(tokens))).request(index)
    assert len(text_of(request).split()) == tokens == request.input_tokens
    assert not request.input_tokens_exact


def test_no_two_prompts_start_alike() -> None:
    """A block of the prefix cache is 16 tokens: one that is shared flatters the server."""
    workload = open_workload(variant(input_tokens=fixed(8)))
    starts = [text_of(workload.request(i)).split()[:3] for i in range(5000)]
    assert len(set(map(tuple, starts))) == 5000
    assert len({start[0] for start in starts[:1024]}) == 1024


def test_a_shared_prefix_is_shared_to_the_word_and_no_further() -> None:
    """It is there to measure the prefix cache, so its length must be what was asked for."""
    workload = open_workload(variant(shared_prefix_tokens=32, input_tokens=fixed(64)))
    prompts = [text_of(workload.request(i)).split() for i in range(50)]
    assert len({tuple(words[:32]) for words in prompts}) == 1
    assert len({tuple(words[32:35]) for words in prompts}) == 50
    other = open_workload(variant(shared_prefix_tokens=32, input_tokens=fixed(64), seed=1))
    assert text_of(other.request(0)).split()[:32] != prompts[0][:32]


def test_one_fixed_prompt_on_demand_and_said_so() -> None:
    """It makes everything after the first request a cache hit; the run's notes tell."""
    workload = open_workload(variant(unique=False))
    assert len({text_of(workload.request(i)) for i in range(20)}) == 1
    assert any("same prompt" in note for note in workload.notes)


def test_drawn_lengths_stay_within_bounds_and_use_them() -> None:
    """Uniform includes both ends; normal is held within its limits."""
    uniform = Lengths(kind="uniform", min_tokens=8, max_tokens=11)
    normal = Lengths(kind="normal", mean_tokens=50, std_tokens=20, min_tokens=20, max_tokens=70)
    workload = open_workload(variant(input_tokens=uniform, output_tokens=normal))
    requests = [workload.request(i) for i in range(600)]
    assert {request.input_tokens for request in requests} == {8, 9, 10, 11}
    outputs = [request.output_tokens for request in requests]
    assert (min(outputs), max(outputs)) == (20, 70)
    assert sum(outputs) / 600 == pytest.approx(49.5, abs=2.5)
    assert all(request.body["max_tokens"] == request.output_tokens for request in requests)


def prompts_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    """Write a JSONL file of prompts."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_is_walked_once_over_in_a_seeded_order_then_again(tmp_path: Path) -> None:
    """Every prompt comes once before any comes twice, and notes say that they come again."""
    file = prompts_file(tmp_path, [{"prompt": f"prompt {i}"} for i in range(20)])
    workload = open_workload(variant(prompts_file=file, input_tokens=Lengths(kind="file")))
    first = [text_of(workload.request(i)) for i in range(20)]
    assert sorted(first) == sorted(f"prompt {i}" for i in range(20))
    assert first != sorted(first)
    assert [text_of(workload.request(i)) for i in range(20, 40)] == first
    assert any("20 prompts" in note for note in workload.notes)
    enough = replace(STANDARD.load, requests=20)
    once = replace(variant(prompts_file=file, input_tokens=Lengths(kind="file")), load=enough)
    assert not any("come again" in note for note in open_workload(once).notes)


def test_lengths_of_the_file_are_used_and_capped(tmp_path: Path) -> None:
    """The row says how much output to ask for; max_tokens is still the limit."""
    rows = [
        {"prompt": "a b c d", "input_tokens": 9, "output_tokens": 700},
        {"prompt": "abcdefgh", "output_tokens": 3},
    ]
    profile = variant(
        prompts_file=prompts_file(tmp_path, rows),
        input_tokens=Lengths(kind="file"),
        output_tokens=Lengths(kind="file", max_tokens=500),
    )
    workload = open_workload(profile)
    requests = {text_of(r): r for r in (workload.request(0), workload.request(1))}
    assert (requests["a b c d"].input_tokens, requests["a b c d"].output_tokens) == (9, 500)
    assert (requests["abcdefgh"].input_tokens, requests["abcdefgh"].output_tokens) == (2, 3)
    assert not requests["a b c d"].input_tokens_exact


def test_messages_of_a_file_keep_their_own_system_message(tmp_path: Path) -> None:
    """The profile's is for rows that have none."""
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]
    bare = [{"role": "user", "content": "hello"}]
    file = prompts_file(tmp_path, [{"messages": own}, {"messages": bare}])
    profile = variant(prompts_file=file, input_tokens=Lengths(kind="file"), system="profile's")
    workload = open_workload(profile)
    systems = sorted(workload.request(i).body["messages"][0]["content"] for i in range(2))
    assert systems == ["own", "profile's"]


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ({"prompt": "x"}, {"output_tokens": Lengths(kind="file")}, ":2: output_tokens is missing"),
        (
            {"messages": [{"role": "user", "content": "x"}], "output_tokens": 1},
            {"endpoint": "completions"},
            ":2: messages go with the chat endpoint",
        ),
    ],
)
def test_rows_that_the_profile_cannot_use_are_refused_before_the_run(
    tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    """In mid-run it would be too late."""
    file = prompts_file(tmp_path, [{"prompt": "fine", "output_tokens": 1}, row])
    with pytest.raises(DatasetError) as caught:
        open_workload(variant(prompts_file=file, input_tokens=Lengths(kind="file"), **changes))
    assert message in caught.value.message


def test_heavy_packages_are_imported_only_when_needed() -> None:
    """Workers start faster, and the extra stays an extra."""
    program = (
        "import sys; from kvswarm.profiles.load import load_profile;"
        "from kvswarm.workload.workload import open_workload;"
        "open_workload(load_profile('standard')).request(0);"
        "print([m for m in ('tokenizers', 'pandas', 'pyarrow', 'locust', 'gevent')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert found.strip() == b"[]"
