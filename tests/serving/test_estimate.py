"""Memory and roofline against what real servers logged, and against arithmetic by hand."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.serving.architecture import architecture_of
from kvswarm.serving.estimate import Asked, Estimate, Workload, estimate
from kvswarm.serving.gpus import GIB, device_named, gpus
from kvswarm.serving.memory import (
    Parameters,
    Spread,
    count_parameters,
    kv_cache,
    weights_bytes,
)
from kvswarm.serving.model_files import read_model
from kvswarm.serving.roofline import peak_flops

sys.path.insert(0, str(Path(__file__).parent))
from model_configs import (
    DEEPSEEK_V3,
    GEMMA_3_27B,
    GPT_OSS_120B,
    LLAMA_3_8B,
    LLAMA_31_8B,
    MIXTRAL_8X7B,
    QWEN3_8B,
    QWEN3_30B_A3B,
)

CHAT = Workload(prompt_tokens=512, output_tokens=256, sequences=64)


def parameters(config: dict[str, Any]) -> Parameters:
    """Count, where counting is possible."""
    counted = count_parameters(architecture_of(config), config)
    assert counted is not None
    return counted


def estimated(config: dict[str, Any], gpu: str, **features: Any) -> Estimate:
    """Estimate for the chat workload."""
    return estimate(Asked(config=config, device=device_named(gpu), features=features), CHAT)


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (LLAMA_31_8B, 8.03e9, 8.03e9),
        (QWEN3_8B, 8.19e9, 8.19e9),
        (MIXTRAL_8X7B, 46.7e9, 12.9e9),
        (QWEN3_30B_A3B, 30.5e9, 3.3e9),
        (DEEPSEEK_V3, 671e9, 37e9),
        (GPT_OSS_120B, 116.8e9, 5.1e9 + 0.58e9),
        (GEMMA_3_27B, 27.0e9, 27.0e9),
    ],
    ids=["Llama", "Qwen3", "Mixtral", "Qwen3-MoE", "DeepSeek", "gpt-oss", "Gemma"],
)
def test_parameters_are_what_the_models_pages_say(
    config: dict[str, Any], total: float, active: float
) -> None:
    """Also of families that are estimated from their shape (gpt-oss leaves its embedding out)."""
    counted = parameters(config)
    assert counted.total == pytest.approx(total, rel=0.005)
    assert counted.active == pytest.approx(active, rel=0.03)


@pytest.mark.parametrize(
    ("config", "spread", "tokens", "gib"),
    [
        # "To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache
        # is needed": github.com/vllm-project/tpu-inference/pull/223
        (LLAMA_31_8B, Spread(), 131072, 16.0),
        # The same of Qwen3-Coder-30B-A3B, 262144 tokens: vllm-project/vllm/issues/34076
        (QWEN3_30B_A3B, Spread(), 262144, 24.0),
        # gpt-oss-120b, 131072 tokens: vllm-project/vllm/issues/27508 (4.54; the last chunk of the
        # prompt is in its windows, too)
        (GPT_OSS_120B, Spread(), 131072, 4.51),
    ],
)
def test_the_kv_cache_of_a_sequence_is_what_vllm_logged(
    config: dict[str, Any], spread: Spread, tokens: int, gib: float
) -> None:
    """Real servers' own messages, on real GPUs."""
    cache = kv_cache(architecture_of(config), spread)
    assert cache is not None
    assert cache.bytes_of(tokens) / GIB == pytest.approx(gib, abs=0.01)


def test_tokens_in_a_kv_cache_are_what_vllm_logged_with_tensor_parallelism() -> None:
    """Qwen3-235B-A22B on 4 GPUs: 8.11 GiB held 178,880 tokens (vllm-project/vllm/issues/21348)."""
    config = QWEN3_30B_A3B | {"num_hidden_layers": 94, "num_attention_heads": 64}
    cache = kv_cache(architecture_of(config), Spread(tensor=4))
    assert cache is not None
    assert 8.11 * GIB / cache.bytes_per_token == pytest.approx(178_880, rel=0.02)


def test_the_room_for_the_kv_cache_is_near_what_vllm_logged() -> None:
    """Llama-3-8B on an A100-80GB at 0.9: 53.29 GiB of 79.22 (vllm-project/vllm/pull/10511)."""
    figures = estimated(
        LLAMA_3_8B, "A100-80GB", gpu_memory_utilization=0.9, max_num_batched_tokens=8192
    )
    assert figures.weights_bytes_per_gpu is not None
    assert figures.weights_bytes_per_gpu / GIB == pytest.approx(14.96, abs=0.01)
    assert figures.kv_cache_bytes_per_gpu is not None
    assert figures.kv_cache_bytes_per_gpu / GIB == pytest.approx(53.29, rel=0.03)


def test_tensor_parallelism_divides_weights_and_heads_but_never_a_head() -> None:
    """Sixteen GPUs share eight KV heads: each keeps a whole one."""
    model = architecture_of(LLAMA_31_8B)
    per_gpu = [kv_cache(model, Spread(tensor=t)) for t in (1, 2, 8, 16)]
    assert [cache.bytes_per_token for cache in per_gpu if cache] == [131072, 65536, 16384, 16384]
    latent = [kv_cache(architecture_of(DEEPSEEK_V3), Spread(tensor=t)) for t in (1, 8)]
    assert [cache.bytes_per_token for cache in latent if cache] == [70272, 70272]


def test_pipeline_parallelism_divides_layers() -> None:
    """32 layers over 3 stages: the largest has 11."""
    cache = kv_cache(architecture_of(LLAMA_31_8B), Spread(pipeline=3))
    assert cache is not None
    assert cache.bytes_per_token == 11 * 4096


def test_eight_bits_halve_the_kv_cache() -> None:
    """FP8 takes one byte where bfloat16 takes two."""
    cache = kv_cache(architecture_of(LLAMA_31_8B), Spread(), "fp8")
    assert cache is not None
    assert cache.bytes_per_token == 65536


@pytest.mark.parametrize(
    ("config", "method", "gib"),
    [
        (LLAMA_31_8B, None, 14.96),
        (LLAMA_31_8B, "fp8", 8.46),
        (LLAMA_31_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}, None, 5.31),
        (GPT_OSS_120B, None, 60.7),
        (LLAMA_31_8B | {"torch_dtype": "float32"}, None, 14.96),
    ],
)
def test_weights_take_what_their_bits_say(
    config: dict[str, Any], method: str | None, gib: float
) -> None:
    """Embeddings stay in 16 bits, and vLLM loads 32 bits as 16."""
    size = weights_bytes(architecture_of(config), parameters(config), method)
    assert size is not None
    assert size / GIB == pytest.approx(gib, rel=0.01)


def test_a_step_of_decoding_reads_the_weights_once_and_each_sequences_past() -> None:
    """By hand: (weights without the input embedding + KV of one half-made answer) / bandwidth."""
    figures = estimated(LLAMA_31_8B, "H100")
    read = (8_030_261_248 - 128256 * 4096) * 2 + (512 + 128) * 131072
    assert figures.tpot_floor_ms == pytest.approx(read / 3350e9 * 1000, rel=1e-6)
    together = (8_030_261_248 - 128256 * 4096) * 2 + 64 * (512 + 128) * 131072
    assert figures.tpot_floor_at_load_ms == pytest.approx(together / 3350e9 * 1000, rel=1e-6)
    assert figures.sequences_at_load == 64


def test_a_prompt_takes_two_operations_per_parameter_and_token() -> None:
    """By hand, for Llama on an H100; attention adds a percent at this length."""
    figures = estimated(LLAMA_31_8B, "H100")
    by_hand = 2 * (8_030_261_248 - 128256 * 4096) * 512 + 2 * 32 * 4096 * 512**2
    assert figures.ttft_floor_ms == pytest.approx(by_hand / 989.4e12 * 1000, rel=1e-6)


def test_one_sequence_reads_only_the_chosen_experts_and_many_read_all() -> None:
    """Mixtral: two of eight experts for one token, nearly all for 64."""
    figures = estimated(MIXTRAL_8X7B, "H100", tensor_parallel_size=2)
    assert figures.tpot_floor_ms is not None
    assert figures.tpot_floor_at_load_ms is not None
    assert figures.tpot_floor_at_load_ms / figures.tpot_floor_ms > 3


@pytest.mark.parametrize(
    ("gpu", "method", "figure"),
    [
        ("H100", None, "fp16_flops"),
        ("H100", "fp8", "fp8_flops"),
        ("A100", "fp8", "fp16_flops"),
        ("H100", "awq", "fp16_flops"),
        ("A100", "int8", "int8_ops"),
    ],
)
def test_arithmetic_is_as_narrow_as_method_and_gpu_allow(
    gpu: str, method: str | None, figure: str
) -> None:
    """Weight-only methods, and FP8 below capability 8.9, compute in 16 bits."""
    device = device_named(gpu)
    assert peak_flops(device, architecture_of(LLAMA_31_8B), method) == getattr(device, figure)


def test_a_model_too_large_leaves_nothing_and_says_so() -> None:
    """An 8B model in 16 bits on a T4: no speed is told of what cannot start."""
    figures = estimated(LLAMA_31_8B, "T4")
    assert figures.kv_cache_bytes_per_gpu is not None
    assert figures.kv_cache_bytes_per_gpu < 0
    assert figures.kv_cache_tokens == 0
    assert "nothing is left for it" in figures.lines()[-1]


def test_what_the_tables_lack_is_none_and_never_zero() -> None:
    """A GPU without figures, and a config without layers."""
    unknown_gpu = estimated(LLAMA_31_8B, "MI250")
    assert unknown_gpu.kv_cache_tokens
    assert (unknown_gpu.ttft_floor_ms, unknown_gpu.tpot_floor_ms) == (None, None)
    assert "unknown" in unknown_gpu.lines()[-1]
    unknown_model = estimated({"model_type": "new"}, "H100")
    assert unknown_model.parameters is None
    assert unknown_model.kv_cache_bytes_per_gpu is None


def test_an_estimate_is_plain_data_that_says_what_it_is() -> None:
    """A report must not take it for a measurement."""
    plain = json.loads(json.dumps(estimated(LLAMA_31_8B, "H100").to_dict()))
    assert plain["is_estimate"] is True
    assert plain["schema_version"] == 1
    assert plain["weights_bytes_per_gpu"] == 16_060_522_496


@given(
    gpu=st.sampled_from(sorted(gpus())),
    tensor=st.sampled_from([1, 2, 4, 8]),
    prompt=st.integers(1, 100_000),
    sequences=st.integers(1, 5000) | st.none(),
)
def test_more_at_a_time_is_never_faster_for_one(
    gpu: str, tensor: int, prompt: int, sequences: int | None
) -> None:
    """Over every GPU and load: the floor at load is no lower than that of one sequence."""
    figures = estimate(
        Asked(
            config=QWEN3_30B_A3B,
            device=device_named(gpu),
            features={"tensor_parallel_size": tensor},
        ),
        Workload(prompt_tokens=prompt, output_tokens=10, sequences=sequences),
    )
    assert figures.lines()
    if figures.tpot_floor_ms is not None and figures.tpot_floor_at_load_ms is not None:
        assert figures.tpot_floor_at_load_ms >= figures.tpot_floor_ms


def write_safetensors(path: Path, tensors: dict[str, int]) -> None:
    """Write a file with tensors of so many bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def test_the_size_of_weights_is_read_from_their_headers(tmp_path: Path) -> None:
    """All tensors of all files, without their headers; the index's total where there is one."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B))
    assert read_model(tmp_path).weights_bytes is None
    write_safetensors(tmp_path / "a.safetensors", {"x": 100, "y": 28})
    write_safetensors(tmp_path / "b.safetensors", {"z": 72})
    assert read_model(tmp_path / "config.json").weights_bytes == 200
    (tmp_path / "c.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0no")
    assert read_model(tmp_path).weights_bytes is None
    index = {"metadata": {"total_size": 1234}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_model(tmp_path).weights_bytes == 1234
    asked = Asked(
        config=LLAMA_31_8B,
        device=device_named("H100"),
        features={"tensor_parallel_size": 2},
        stored_weights_bytes=1234,
    )
    assert estimate(asked, CHAT).weights_bytes_per_gpu == 617


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None) -> None:
    """The message names the file."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        read_model(tmp_path)
