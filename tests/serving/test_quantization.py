"""Sizes of known public models, and what each method of quantization needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.serving.flags import vllm_flags
from kvswarm.serving.quantization import (
    expected_weights_bytes,
    kv_bytes_per_token,
    methods,
    names,
    parameters_of,
    quantization,
    unquantized_parameters_of,
)

LLAMA_31_8B: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_32_1B = LLAMA_31_8B | {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN25_7B: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "tie_word_embeddings": True, "attention_bias": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_30B_A3B: dict[str, Any] = {
    "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False,
}  # fmt: skip
MISTRAL_7B_V03: dict[str, Any] = {
    "model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MIXTRAL_8X7B = MISTRAL_7B_V03 | {
    "model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8,
}  # fmt: skip
PHI_3_MINI = MISTRAL_7B_V03 | {
    "model_type": "phi3", "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
    "num_key_value_heads": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LLAMA_31_8B, 8_030_261_248),
        (LLAMA_32_1B, 1_235_814_400),
        (QWEN25_7B, 7_615_616_512),
        (QWEN3_06B, 596_049_920),
        (QWEN3_30B_A3B, 30_532_122_624),
        (MISTRAL_7B_V03, 7_248_023_552),
        (MIXTRAL_8X7B, 46_702_792_704),
        (PHI_3_MINI, 3_821_079_552),
    ],
    ids=[
        "Llama-3.1-8B",
        "Llama-3.2-1B",
        "Qwen2.5-7B",
        "Qwen3-0.6B",
        "Qwen3-30B-A3B",
        "Mistral-7B",
        "Mixtral-8x7B",
        "Phi-3-mini",
    ],
)
def test_parameters_are_those_that_the_models_pages_give(
    config: dict[str, Any], parameters: int
) -> None:
    """To the last one: the counts of their safetensors files."""
    assert parameters_of(config) == parameters


@pytest.mark.parametrize(
    ("config", "dtype", "kv_bytes"),
    [
        (LLAMA_31_8B, "auto", 2 * 32 * 8 * 128 * 2),
        (LLAMA_31_8B, "fp8", 2 * 32 * 8 * 128),
        (LLAMA_31_8B, "float32", 2 * 32 * 8 * 128 * 4),
        (QWEN25_7B, "auto", 2 * 28 * 4 * 128 * 2),
        (QWEN3_06B, "bfloat16", 2 * 28 * 8 * 128 * 2),
        # DeepSeek V3: latent attention keeps one vector per layer, for all heads.
        (
            {
                "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
                "torch_dtype": "bfloat16", "num_attention_heads": 128, "hidden_size": 7168,
            },
            "auto",
            61 * 576 * 2,
        ),
        # A model that sees has its language model one level down; no num_key_value_heads: all heads.
        (
            {
                "dtype": "float16",
                "text_config": {
                    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 256,
                },
            },
            "auto",
            2 * 2 * 4 * 64 * 2,
        ),
    ],
)  # fmt: skip
def test_a_token_takes_two_vectors_of_each_kv_head_in_each_layer(
    config: dict[str, Any], dtype: str, kv_bytes: int
) -> None:
    """Keys and values."""
    assert kv_bytes_per_token(config, dtype) == kv_bytes


def test_a_4_bit_8b_model_has_the_size_of_the_published_one() -> None:
    """hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4 is 5.73 GB; linear layers alone are not."""
    parameters, kept = parameters_of(LLAMA_31_8B), unquantized_parameters_of(LLAMA_31_8B)
    size = expected_weights_bytes(parameters, "awq", unquantized_parameters=kept)
    assert size == pytest.approx(5.73e9, rel=0.005)
    assert expected_weights_bytes(parameters, "awq") == pytest.approx(4.17e9, rel=0.005)


def test_without_quantization_a_parameter_is_two_bytes() -> None:
    """And quantizing nothing changes nothing."""
    assert expected_weights_bytes(8_030_261_248, None) == 16_060_522_496
    assert expected_weights_bytes(1000, "awq", unquantized_parameters=1000) == 2000


@given(st.integers(1, 10**12), st.sampled_from(sorted(names())))
def test_a_quantized_model_is_smaller_and_never_below_its_bits(
    parameters: int, method: str
) -> None:
    """Scales add to the bits, and never to 16."""
    size = expected_weights_bytes(parameters, method)
    least = parameters * quantization(method).bits / 8
    assert least <= size + 1
    assert size <= 2 * parameters


@pytest.mark.parametrize(
    ("method", "flag", "weight_only", "native"),
    [
        ("autoawq", "awq", (7, 5), None),
        ("AWQ", "awq", (7, 5), None),
        ("gptq", "gptq", (6, 0), None),
        ("fp8", "fp8", (7, 5), (8, 9)),
        ("int8", None, (7, 5), (7, 5)),
        ("int4", None, (7, 5), None),
    ],
)
def test_each_method_has_its_flag_and_its_gpus(
    method: str, flag: str | None, weight_only: tuple[int, int], native: tuple[int, int] | None
) -> None:
    """FP8 runs from Turing on, and in FP8 arithmetic from Ada on."""
    found = quantization(method)
    assert (found.flag, found.weight_only_from, found.native_from) == (flag, weight_only, native)


def test_every_method_is_whole() -> None:
    """Sources, and flags that vLLM takes today."""
    for name, method in methods().items():
        assert method.source
        assert method.bits <= method.bits_per_weight < method.bits + 0.2
        assert method.native_from is None or method.native_from >= method.weight_only_from
        expected = () if method.flag is None else ("--quantization", method.flag)
        assert vllm_flags({"quantization": name}, "0.32.0").arguments == expected
        assert method.flag is None or method.flag in method.flags


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "deepseek_v3"}, "'deepseek_v3', whose parameters kvswarm cannot count"),
        ({"model_type": "llama"}, "hidden_size is None"),
        (LLAMA_31_8B | {"vocab_size": "many"}, "vocab_size is 'many'"),
        (LLAMA_31_8B | {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(config: dict[str, Any], words: str) -> None:
    """A wrong count would be a wrong size."""
    full = LLAMA_31_8B | config if config.get("model_type") == "deepseek_v3" else config
    with pytest.raises(ProfileError) as caught:
        parameters_of(full)
    assert words in caught.value.message


def test_unknown_dtypes_and_methods_are_refused() -> None:
    """nvfp4's blocks have scales of their own; a guess would be too small."""
    with pytest.raises(ProfileError, match="kv_cache_dtype is 'nvfp4'"):
        kv_bytes_per_token(LLAMA_31_8B, "nvfp4")
    with pytest.raises(ProfileError, match="has no dtype"):
        kv_bytes_per_token({key: LLAMA_31_8B[key] for key in LLAMA_31_8B if "dtype" not in key})
    with pytest.raises(ProfileError, match="Did you mean 'gptq'"):
        quantization("gptqq")
