"""What config.json says of a model, in the many ways that families spell it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.serving.architecture import FULL, STATE, WINDOW, architecture_of, weight_bits_of

sys.path.insert(0, str(Path(__file__).parent))
from model_configs import (
    DEEPSEEK_V3,
    GEMMA_3_27B,
    GPT_OSS_120B,
    LLAMA_31_8B,
    MISTRAL_7B_V01,
    MIXTRAL_8X7B,
    QWEN3_8B,
    QWEN3_NEXT_80B,
)


def test_a_dense_model_is_read_whole() -> None:
    """Llama's file has every key under its plain name."""
    model = architecture_of(LLAMA_31_8B)
    assert (model.name, model.layers, model.heads, model.kv_heads) == (
        "LlamaForCausalLM", 32, 32, 8,
    )  # fmt: skip
    assert (model.head_dim, model.dtype, model.tied_embeddings) == (128, "bfloat16", False)
    assert model.layer_kinds == (FULL,) * 32
    assert (model.experts, model.quant_method, model.window_tokens) == (None, None, None)


def test_a_model_that_sees_has_its_language_model_one_level_down() -> None:
    """Gemma 3 keeps it in text_config, and its dtype outside."""
    model = architecture_of(GEMMA_3_27B)
    assert (model.layers, model.vocabulary, model.dtype) == (62, 262208, "bfloat16")
    assert model.layer_kinds.count(FULL) == 10
    assert model.layer_kinds[:6] == (WINDOW,) * 5 + (FULL,)


@pytest.mark.parametrize(
    ("config", "full", "windows", "states"),
    [
        (GPT_OSS_120B, 18, 18, 0),
        (MISTRAL_7B_V01, 0, 32, 0),
        (MIXTRAL_8X7B, 32, 0, 0),
        (QWEN3_NEXT_80B, 12, 0, 36),
        (QWEN3_8B | {"sliding_window": 4096}, 36, 0, 0),
        (LLAMA_31_8B | {"num_hidden_layers": 4, "hybrid_override_pattern": "M-M*"}, 1, 0, 3),
        (LLAMA_31_8B | {"num_hidden_layers": 3, "layer_types": ["new_attention"] * 3}, 3, 0, 0),
        (LLAMA_31_8B | {"num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2}, 2, 0, 0),
    ],
    ids=["gpt-oss", "mistral", "mixtral", "qwen3-next", "unused", "nemotron", "new", "no window"],
)
def test_each_layers_kind_is_read(
    config: dict[str, Any], full: int, windows: int, states: int
) -> None:
    """A kind that is not known keeps every token: too much memory is the safer mistake."""
    kinds = architecture_of(config).layer_kinds
    assert [kinds.count(kind) for kind in (FULL, WINDOW, STATE)] == [full, windows, states]


def test_experts_are_counted_with_the_shared_and_without_the_dense_layers() -> None:
    """DeepSeek V3: 256 experts of which 8 are chosen and 1 is shared, from the fourth layer on."""
    experts = architecture_of(DEEPSEEK_V3).experts
    assert experts is not None
    assert (experts.count, experts.chosen, experts.shared, experts.layers) == (256, 8, 1, 58)
    assert experts.width == 2048


@pytest.mark.parametrize(
    ("change", "longest"),
    [
        ({}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 262144),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, 524288),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {
                    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        ({"model_max_length": 8192}, 8192),
        ({"max_position_embeddings": None, "n_positions": 2048}, 2048),
        ({"max_position_embeddings": None}, None),
    ],
    ids=["llama3", "linear", "dynamic", "yarn", "command-r", "gpt-2", "not said"],
)  # fmt: skip
def test_the_longest_sequence_is_vllms(change: dict[str, Any], longest: int | None) -> None:
    """Which scaling multiplies is read in vllm/config/model.py, _get_and_verify_max_len."""
    assert architecture_of(LLAMA_31_8B | change).max_positions == longest


def test_gemma_3_has_its_scaling_in_its_length_already() -> None:
    """vLLM leaves it out for gemma3, so that 131072 stays 131072."""
    assert architecture_of(GEMMA_3_27B).max_positions == 131072


@pytest.mark.parametrize(
    ("quantization", "method", "bits"),
    [
        (None, None, None),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4),
        ({"quant_method": "gptq", "bits": 8}, "gptq", 8),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "compressed-tensors",
            4,
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", None),
    ],
)
def test_quantization_is_read_from_the_checkpoint(
    quantization: dict[str, Any] | None, method: str | None, bits: int | None
) -> None:
    """Every tool writes its bits elsewhere; what is not said stays unknown."""
    model = architecture_of(LLAMA_31_8B | {"quantization_config": quantization})
    assert (model.quant_method, weight_bits_of(model)) == (method, bits)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(0, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted({*LLAMA_31_8B, *DEEPSEEK_V3, *GPT_OSS_120B})), JSON))
def test_no_config_is_too_odd_to_be_read(config: dict[str, Any]) -> None:
    """Anybody may hand in any file: what makes no sense is not said, and nothing is raised."""
    model = architecture_of(config)
    assert len(model.layer_kinds) == (model.layers or 0)
