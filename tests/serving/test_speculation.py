"""What a profile asks for in speculation, its rules, and the draft that goes with a model."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.serving.drafts import choose_draft, families
from kvswarm.serving.flags import vllm_flags
from kvswarm.serving.speculation import Speculation, speculation_of

NGRAM = {"method": "ngram", "num_speculative_tokens": 4}


@pytest.mark.parametrize(
    ("features", "config"),
    [
        (
            {"speculative": {"method": "draft_model", "model": "m", "num_speculative_tokens": 5}},
            {"method": "draft_model", "model": "m", "num_speculative_tokens": 5},
        ),
        (
            {"speculative": NGRAM | {"prompt_lookup_max": 4, "prompt_lookup_min": 2}},
            NGRAM | {"prompt_lookup_max": 4, "prompt_lookup_min": 2},
        ),
        ({"speculative_config": {"model": "[ngram]", "num_speculative_tokens": 4}}, NGRAM),
        (
            {"speculative_model": "[ngram]", "num_speculative_tokens": 4, "ngram_prompt_lookup_max": 3},
            NGRAM | {"prompt_lookup_max": 3},
        ),
        (
            {"speculative": {"model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B", "num_speculative_tokens": 2}},
            {
                "method": "eagle3",
                "model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
                "num_speculative_tokens": 2,
            },
        ),
        (
            {"speculative_model": "yuhuili/EAGLE-LLaMA3-Instruct-8B", "num_speculative_tokens": 2},
            {
                "method": "eagle",
                "model": "yuhuili/EAGLE-LLaMA3-Instruct-8B",
                "num_speculative_tokens": 2,
            },
        ),
        (
            {"speculative": {"method": "deepseek_mtp", "num_speculative_tokens": 1}},
            {"method": "mtp", "num_speculative_tokens": 1},
        ),
        (
            {
                "speculative": {
                    "method": "eagle",
                    "model": "m",
                    "num_speculative_tokens": 3,
                    "draft_tensor_parallel_size": 1,
                    "max_model_len": None,
                }
            },
            {
                "method": "eagle",
                "model": "m",
                "num_speculative_tokens": 3,
                "draft_tensor_parallel_size": 1,
            },
        ),
    ],
)  # fmt: skip
def test_every_spelling_becomes_todays_config(
    features: dict[str, Any], config: dict[str, Any]
) -> None:
    """The method is always written, as vLLM would find it out."""
    speculation = speculation_of(features)
    assert speculation is not None
    assert json.loads(speculation.to_json()) == config


def test_nothing_asked_is_nothing() -> None:
    """Null is not given."""
    assert speculation_of({}) is None
    assert speculation_of({"speculative": None, "speculative_model": None}) is None


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"speculative": {"method": "ngram"}}, "speculative.num_speculative_tokens is missing"),
        ({"speculative_model": "m"}, "num_speculative_tokens is missing"),
        ({"num_speculative_tokens": 4}, "names neither a method nor a model"),
        ({"speculative": NGRAM | {"num_speculative_tokens": 0}}, "is 0; must be 1 or more"),
        ({"speculative": NGRAM | {"num_speculative_tokens": True}}, "must be a whole number"),
        ({"speculative": NGRAM | {"prompt_lookup_min": 5, "prompt_lookup_max": 3}}, "is 5, above"),
        (
            {
                "speculative_model": "[ngram]", "num_speculative_tokens": 2,
                "ngram_prompt_lookup_min": 5, "ngram_prompt_lookup_max": 3,
            },
            "vllm_features.ngram_prompt_lookup_min is 5, above ngram_prompt_lookup_max, which is 3",
        ),
        ({"speculative": NGRAM | {"model": "org/m"}}, "ngram drafts from the prompt"),
        ({"speculative": NGRAM | {"metod": "x"}}, "Did you mean 'method'?"),
        ({"speculative": {"method": "medussa", "num_speculative_tokens": 1}}, "is no method known"),
        (
            {"speculative": {"method": "eagle3", "num_speculative_tokens": 1}},
            "eagle3 drafts with a model of its own",
        ),
        (
            {"speculative": {"method": "draft_model", "num_speculative_tokens": 1}},
            "speculative.model is missing",
        ),
        (
            {"speculative": {"method": "mtp", "num_speculative_tokens": 1, "prompt_lookup_max": 2}},
            "has no effect with mtp",
        ),
        ({"speculative": "ngram"}, "must be a map"),
        ({"speculative": "auto"}, "no model is known yet"),
        ({"speculative": NGRAM, "speculative_model": "m"}, "says the same as speculative"),
        ({"speculative": NGRAM, "speculative_config": NGRAM}, "says the same as speculative"),
    ],
)  # fmt: skip
def test_what_vllm_would_refuse_is_refused(features: dict[str, Any], words: str) -> None:
    """Its own rules, before it is started."""
    with pytest.raises(ProfileError) as caught:
        speculation_of(features)
    assert words in caught.value.message


@given(
    st.integers(1, 64),
    st.none() | st.integers(1, 64),
    st.none() | st.integers(1, 64),
)
def test_ngram_is_valid_exactly_where_min_is_at_most_max(
    tokens: int, least: int | None, most: int | None
) -> None:
    """And what is valid goes through JSON unchanged."""
    members = {"method": "ngram", "num_speculative_tokens": tokens}
    given_members = members | {"prompt_lookup_min": least, "prompt_lookup_max": most}
    if least is not None and most is not None and least > most:
        with pytest.raises(ProfileError):
            speculation_of({"speculative": given_members})
        return
    speculation = speculation_of({"speculative": given_members})
    assert speculation is not None
    again = speculation_of({"speculative_config": json.loads(speculation.to_json())})
    assert again == speculation


@pytest.mark.parametrize(
    ("speculative", "version", "arguments"),
    [
        (
            NGRAM | {"prompt_lookup_max": 3},
            "0.6.3",
            [
                "--speculative-model", "[ngram]", "--num-speculative-tokens", "4",
                "--ngram-prompt-lookup-max", "3",
            ],
        ),
        (
            NGRAM | {"prompt_lookup_min": 2},
            "0.8.1",
            [
                "--speculative-model", "[ngram]", "--num-speculative-tokens", "4",
                "--ngram-prompt-lookup-max", "2", "--ngram-prompt-lookup-min", "2",
            ],
        ),
        (
            {"model": "m", "num_speculative_tokens": 2, "draft_tensor_parallel_size": 1},
            "0.6.3",
            [
                "--speculative-model", "m", "--num-speculative-tokens", "2",
                "--speculative-draft-tensor-parallel-size", "1",
            ],
        ),
        (
            {"method": "mtp", "num_speculative_tokens": 1},
            "0.9.2",
            ["--speculative-config", '{"method":"deepseek_mtp","num_speculative_tokens":1}'],
        ),
        (
            {"method": "mtp", "num_speculative_tokens": 1},
            "0.24.0",
            ["--speculative-config", '{"method":"mtp","num_speculative_tokens":1}'],
        ),
        (
            NGRAM | {"disable_by_batch_size": 16},
            "0.9.2",
            [
                "--speculative-config",
                '{"method":"ngram","num_speculative_tokens":4,"disable_by_batch_size":16}',
            ],
        ),
        (
            NGRAM | {"disable_by_batch_size": 16},
            "0.32.0",
            ["--speculative-config", '{"method":"ngram","num_speculative_tokens":4}'],
        ),
    ],
)  # fmt: skip
def test_each_version_is_told_in_its_own_words(
    speculative: dict[str, Any], version: str, arguments: list[str]
) -> None:
    """Flags to 0.8.1, JSON since, and deepseek_mtp before there was mtp."""
    assert list(vllm_flags({"speculative": speculative}, version).arguments) == arguments


@pytest.mark.parametrize(
    ("speculative", "version", "words"),
    [
        ({"model": "m", "num_speculative_tokens": 2}, "0.11.0", "before 0.10.0, or from 0.15.0"),
        ({"method": "mtp", "num_speculative_tokens": 2}, "0.6.3", "from 0.9.0"),
        ({"method": "eagle3", "model": "m", "num_speculative_tokens": 2}, "0.6.3", "from 0.8.5"),
        (NGRAM, "0.6.3", "Give one, such as 4"),
    ],
)
def test_what_a_version_cannot_do_is_refused(
    speculative: dict[str, Any], version: str, words: str
) -> None:
    """vLLM 0.10 to 0.14 had no draft models at all."""
    with pytest.raises(ProfileError) as caught:
        vllm_flags({"speculative": speculative}, version)
    assert words in caught.value.fix


@pytest.mark.parametrize(
    ("model", "chosen"),
    [
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            Speculation(method="draft_model", model="meta-llama/Llama-3.2-1B-Instruct", num_speculative_tokens=5),
        ),
        (
            "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
            Speculation(method="draft_model", model="meta-llama/Llama-3.2-1B-Instruct", num_speculative_tokens=5),
        ),
        (
            "Qwen/Qwen3-32B-FP8",
            Speculation(method="draft_model", model="Qwen/Qwen3-0.6B", num_speculative_tokens=5),
        ),
        (
            "Qwen/Qwen2.5-3B-Instruct",
            Speculation(method="draft_model", model="Qwen/Qwen2.5-0.5B-Instruct", num_speculative_tokens=5),
        ),
        ("deepseek-ai/DeepSeek-V3-0324", Speculation(method="mtp", num_speculative_tokens=1)),
        ("deepseek-ai/DeepSeek-R1", Speculation(method="mtp", num_speculative_tokens=1)),
        (
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
            Speculation(method="draft_model", model="meta-llama/Llama-3.2-1B-Instruct", num_speculative_tokens=5),
        ),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", Speculation(method="mtp", num_speculative_tokens=2)),
    ],
)  # fmt: skip
def test_a_known_family_has_a_draft(model: str, chosen: Speculation) -> None:
    """Quantized or not, and vLLM takes it as it is."""
    assert choose_draft(model) == chosen
    assert vllm_flags({"speculative": chosen.config()}, "0.32.0").arguments[1] == chosen.to_json()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "vocab_size is 151936 there and 152064 in the model"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "vocab_size is 151936 there and 152064"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "151936 there and 152064"),
        ("google/gemma-3-27b-it", "262144 there and 262208"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "knows no smaller one with an equal vocabulary"),
        ("meta-llama/Llama-3.2-1B-Instruct", "the smallest of its family"),
        ("/mnt/models", "no draft is known for '/mnt/models'"),
    ],
)
def test_a_model_without_a_draft_that_fits_is_told_why(model: str, words: str) -> None:
    """And that ngram needs none."""
    with pytest.raises(ProfileError, match=re.escape(words)) as caught:
        choose_draft(model)
    assert "Use ngram, which needs no draft" in caught.value.fix


def test_what_config_json_says_outranks_the_table() -> None:
    """A fine-tune with two more tokens no longer fits, and a padded one may."""
    model = "my-org/llama-3.1-8b-tuned"
    with pytest.raises(ProfileError, match="128256 there and 128258 in the model"):
        choose_draft(model, {"vocab_size": 128258})
    assert (
        choose_draft(model, {"vocab_size": 128258}, {"vocab_size": 128258}).method == "draft_model"
    )
    padded = choose_draft(
        "Qwen/Qwen2.5-7B-Instruct", {"vocab_size": 152064}, {"vocab_size": 152064}
    )
    assert padded.model == "Qwen/Qwen2.5-0.5B-Instruct"
    nested = {"text_config": {"vocab_size": 262144}, "vocab_size": 7}
    assert choose_draft("google/gemma-3-12b-it", nested).model == "google/gemma-3-1b-it"
    with pytest.raises(ProfileError, match="num_nextn_predict_layers 0"):
        choose_draft("deepseek-ai/DeepSeek-V3", {"num_nextn_predict_layers": 0})


def test_every_family_is_whole() -> None:
    """A source, a pattern that compiles, and what its method needs."""
    for entry in families():
        assert entry["source"].count("https://") >= 1
        re.compile(entry["target"])
        if entry["method"] is None:
            assert entry["reason"]
        else:
            assert entry["num_speculative_tokens"] >= 1
            assert entry["target_vocab_size"] > 0
        assert (
            ("draft" in entry)
            == (entry["method"] == "draft_model")
            == ("draft_vocab_size" in entry)
        )
