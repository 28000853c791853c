"""Exact prompt lengths with a real, small tokenizer that the test trains itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from kvswarm.errors import DatasetError
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Lengths, Profile
from kvswarm.workload.exact import ExactText, open_tokenizer
from kvswarm.workload.words import words
from kvswarm.workload.workload import open_workload

STANDARD = load_profile("standard")


def trained(kind: str, vocabulary: int) -> Tokenizer:
    """Train a BPE tokenizer on our words: byte-level as GPT-2 and Llama 3, or as Llama 2."""
    tokenizer = Tokenizer(models.BPE())
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        alphabet = [chr(code) for code in range(32, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words())] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.enable_truncation(50)  # as many tokenizer.json have it; a long prompt must not be cut
    return tokenizer


@pytest.fixture(scope="module", params=[("bytes", 300), ("bytes", 1200), ("spaces", 800)])
def tokenizer_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory with its tokenizer.json."""
    kind, vocabulary = request.param
    folder = tmp_path_factory.mktemp(f"{kind}-{vocabulary}")
    trained(kind, vocabulary).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def exact_texts(tokenizer_dir: Path) -> dict[bool, ExactText]:
    """Texts with and without special tokens counted."""
    tokenizer = open_tokenizer(tokenizer_dir)
    return {special: ExactText(tokenizer, special=special) for special in (False, True)}


def variant(folder: Path, endpoint: str = "completions", prefix: int = 0) -> Profile:
    """The standard profile with lengths of 80 to 120 tokens, exact."""
    prompt = replace(
        STANDARD.prompt,
        tokenizer=str(folder),
        input_tokens=Lengths(kind="uniform", min_tokens=80, max_tokens=120),
        shared_prefix_tokens=prefix,
    )
    chosen = "completions" if endpoint == "completions" else "chat"
    return replace(STANDARD, prompt=prompt, endpoint=chosen)


@given(tokens=st.integers(2, 400), special=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_text_has_exactly_the_tokens_asked_for_and_survives_a_round_trip(
    exact_texts: dict[bool, ExactText],
    tokenizer_dir: Path,
    tokens: int,
    *,
    special: bool,
    seed: int,
) -> None:
    """The server encodes the text anew: encoding, decoding, encoding must count the same."""
    text = exact_texts[special].text(tokens, np.random.default_rng(seed))
    tokenizer = open_tokenizer(tokenizer_dir)
    ids = tokenizer.encode(text, add_special_tokens=special).ids
    assert len(ids) == tokens
    again = tokenizer.decode(ids, skip_special_tokens=True)
    assert len(tokenizer.encode(again, add_special_tokens=special).ids) == tokens


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_requests_say_exact_and_are(tokenizer_dir: Path, endpoint: str) -> None:
    """Completions count the BOS token as the server does; chat leaves it to the template."""
    workload = open_workload(variant(tokenizer_dir, endpoint))
    tokenizer = open_tokenizer(tokenizer_dir)
    special = endpoint == "completions"
    lengths = set()
    for index in range(60):
        request = workload.request(index)
        text = request.body["prompt"] if special else request.body["messages"][0]["content"]
        assert len(tokenizer.encode(text, add_special_tokens=special).ids) == request.input_tokens
        assert request.input_tokens_exact
        lengths.add(request.input_tokens)
    assert len(lengths) > 20
    assert workload.request(7) == open_workload(variant(tokenizer_dir, endpoint)).request(7)


def test_a_shared_prefix_is_shared_to_the_token_and_the_rest_is_not(tokenizer_dir: Path) -> None:
    """The first 40 tokens are those of every request; what follows differs at once."""
    workload = open_workload(variant(tokenizer_dir, prefix=40))
    tokenizer = open_tokenizer(tokenizer_dir)
    ids = [tokenizer.encode(workload.request(i).body["prompt"]).ids for i in range(40)]
    assert len({tuple(one[:40]) for one in ids}) == 1
    assert len({tuple(one[40:56]) for one in ids}) == 40


def test_without_a_prefix_the_first_block_differs(tokenizer_dir: Path) -> None:
    """A block of the prefix cache is 16 tokens."""
    workload = open_workload(variant(tokenizer_dir))
    tokenizer = open_tokenizer(tokenizer_dir)
    starts = {
        tuple(tokenizer.encode(workload.request(i).body["prompt"]).ids[:16]) for i in range(300)
    }
    assert len(starts) == 300


def test_neighbours_differ_in_their_first_word(tokenizer_dir: Path) -> None:
    """The index is spelled at the start, so it is not left to chance."""
    workload = open_workload(variant(tokenizer_dir))
    firsts = {workload.request(i).body["prompt"].split()[0] for i in range(200)}
    assert len(firsts) == 200


def test_too_short_prompts_are_noted(tokenizer_dir: Path) -> None:
    """With a small vocabulary, eight tokens may not spell an index."""
    profile = variant(tokenizer_dir)
    short = Lengths(kind="fixed", mean_tokens=8, min_tokens=8, max_tokens=8)
    workload = open_workload(replace(profile, prompt=replace(profile.prompt, input_tokens=short)))
    assert any("too short" in note for note in workload.notes)


def test_a_file_of_prompts_is_counted_by_the_tokenizer(tokenizer_dir: Path, tmp_path: Path) -> None:
    """What a file says about its lengths was counted by another tokenizer."""
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "able about above", "input_tokens": 999}\n')
    profile = variant(tokenizer_dir)
    prompt = replace(profile.prompt, prompts_file=str(file), input_tokens=Lengths(kind="file"))
    request = open_workload(replace(profile, prompt=prompt)).request(0)
    assert request.input_tokens_exact
    assert request.input_tokens == len(open_tokenizer(tokenizer_dir).encode("able about above").ids)


def test_a_length_that_cannot_be_made_is_refused_before_the_run(tokenizer_dir: Path) -> None:
    """One token is BOS alone: there is no such prompt."""
    profile = variant(tokenizer_dir)
    nothing = Lengths(kind="fixed", mean_tokens=1, min_tokens=1, max_tokens=1)
    prompt = replace(profile.prompt, input_tokens=nothing, unique=False, shared_prefix_tokens=1)
    with pytest.raises(DatasetError, match="exactly"):
        open_workload(replace(profile, prompt=prompt))


@pytest.mark.parametrize("content", ["", "{}", "no json"])
def test_a_tokenizer_that_cannot_be_used_is_told(tmp_path: Path, content: str) -> None:
    """The path or the file is wrong, and the message says which file."""
    with pytest.raises(DatasetError, match="no such tokenizer"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DatasetError, match="is no tokenizer"):
        open_tokenizer(tmp_path)


def test_without_the_extra_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare ImportError would not say what to do."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DatasetError) as caught:
        open_tokenizer(tmp_path)
    assert "pip install 'kvswarm[tokenizers]'" in caught.value.fix
