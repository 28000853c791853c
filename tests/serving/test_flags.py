"""vllm_features as the flags of one version: names, forms, what is gone, and what is wrong."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.errors import ProfileError
from kvswarm.serving.flags import ServerFlags, flags_as_text, known_keys, vllm_flags
from kvswarm.serving.tables import table
from kvswarm.serving.versions import span_of, vllm_version

PROFILES = Path(__file__).parents[2] / "kvswarm" / "profiles"
DRAFT = {"speculative_model": "org/draft", "num_speculative_tokens": 5}


@pytest.mark.parametrize(
    ("features", "version", "arguments"),
    [
        # Speculation: a flag each, then one JSON.
        (DRAFT, "0.6.3", ["--speculative-model", "org/draft", "--num-speculative-tokens", "5"]),
        (
            DRAFT,
            "0.32.0",
            [
                "--speculative-config",
                '{"method":"draft_model","model":"org/draft","num_speculative_tokens":5}',
            ],
        ),
        (DRAFT, "0.4.0", []),
        # Structured outputs: three names.
        (
            {"guided_decoding_backend": "outlines"},
            "0.6.3",
            ["--guided-decoding-backend", "outlines"],
        ),
        (
            {"guided-decoding-backend": "outlines"},
            "0.32.0",
            ["--structured-outputs-config.backend", "outlines"],
        ),
        (
            {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}},
            "0.32.0",
            ["--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'],
        ),
        # Booleans: as the version has them.
        ({"enable_prefix_caching": True}, "0.4.0", ["--enable-prefix-caching"]),
        ({"enable_prefix_caching": False}, "0.4.0", []),
        ({"enable_prefix_caching": False}, "0.9", ["--no-enable-prefix-caching"]),
        ({"enable_chunked_prefill": True}, "0.4.0", ["--enable-chunked-prefill", "True"]),
        ({"enable_chunked_prefill": False}, "0.6.3", ["--enable-chunked-prefill=False"]),
        ({"enable_chunked_prefill": False}, "0.32.0", ["--no-enable-chunked-prefill"]),
        ({"use_v2_block_manager": True}, "0.6.3", ["--use-v2-block-manager"]),
        ({"use_v2_block_manager": True}, "0.32.0", []),
        ({"disable_log_stats": True}, "0.32.0", ["--disable-log-stats"]),
        # Maps, in three forms.
        (
            {"limit_mm_per_prompt": {"image": 2, "video": 1}},
            "0.6.3",
            ["--limit-mm-per-prompt", "image=2,video=1"],
        ),
        ({"limit_mm_per_prompt": {"image": 2}}, "0.32.0", ["--limit-mm-per-prompt", '{"image":2}']),
        (
            {"enable_lora": True, "lora_modules": {"fr": "/a/fr", "de": "/a/de"}},
            "0.32.0",
            ["--enable-lora", "--lora-modules", "fr=/a/fr", "de=/a/de"],
        ),
        # Names that changed, plain values, null.
        ({"quantization": "autoawq"}, "0.32.0", ["--quantization", "awq"]),
        ({"quantization": "fp8"}, "0.32.0", ["--quantization", "fp8"]),
        ({"quantization": "int8"}, "0.32.0", []),
        (
            {"quantization": "compressed-tensors"},
            "0.24.0",
            ["--quantization", "compressed-tensors"],
        ),
        ({"attention_backend": "FLASHINFER"}, "0.24.0", ["--attention-backend", "FLASHINFER"]),
        ({"gpu_memory_utilization": 0.9}, "0.4.0", ["--gpu-memory-utilization", "0.9"]),
        ({"max_num_seqs": None, "dtype": "bfloat16"}, "0.32.0", ["--dtype", "bfloat16"]),
        ({"seed": -1}, "0.32.0", ["--seed=-1"]),
        ({}, "0.32.0", []),
    ],
)
def test_keys_become_the_flags_of_the_version(
    features: dict[str, Any], version: str, arguments: list[str]
) -> None:
    """Read in the argument parser of each."""
    assert list(vllm_flags(features, version).arguments) == arguments


def test_a_backend_was_a_variable_before_it_was_a_flag() -> None:
    """vLLM 0.12 reads it from the environment alone."""
    flags = vllm_flags({"attention_backend": "FLASH_ATTN"}, "0.12.0")
    assert flags.arguments == ()
    assert flags.environment == {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}
    assert "VLLM_ATTENTION_BACKEND" in flags.notes[0]


def test_the_space_for_a_cpus_kv_cache_is_a_variable() -> None:
    """It is what took the place of `device: cpu`, with the image."""
    flags = vllm_flags({"device": "cpu", "VLLM_CPU_KVCACHE_SPACE": 4}, "0.32.0")
    assert (flags.arguments, flags.environment) == ((), {"VLLM_CPU_KVCACHE_SPACE": "4"})
    (note,) = flags.notes
    assert note.startswith("device is left out: gone since vLLM 0.10.0")
    assert vllm_flags({"device": "cpu"}, "0.9.2").arguments == ("--device", "cpu")


@pytest.mark.parametrize(
    ("key", "value", "version", "words"),
    [
        ("num_scheduler_steps", 8, "0.32.0", "gone since vLLM 0.10.1"),
        ("swap_space", 4, "0.24.0", "gone since vLLM 0.18.0"),
        ("preemption_mode", "swap", "0.24.0", "gone since vLLM 0.11.0"),
        ("quantization_param_path", "/kv.json", "0.9", "gone since vLLM 0.7.0"),
        ("tool_call_parser", "hermes", "0.5.5", "it came with vLLM 0.6.0"),
        ("speculative", {"method": "ngram", "num_speculative_tokens": 2}, "0.4.0", "0.4.1"),
    ],
)
def test_what_a_version_does_not_have_is_left_out_with_a_note(
    key: str, value: Any, version: str, words: str
) -> None:
    """Old profiles must run on new servers, and the reader must know what is missing."""
    flags = vllm_flags({key: value}, version)
    assert flags.arguments == ()
    (note,) = flags.notes
    assert note.startswith((f"{key} is left out", "speculation is left out"))
    assert words in note


def test_a_plugins_quantization_is_passed_on_with_a_note() -> None:
    """bitsandbytes left vLLM in 0.28, and works with its plugin."""
    features = {"quantization": "bitsandbytes"}
    assert vllm_flags(features, "0.27.1").notes == ()
    flags = vllm_flags(features, "0.28.0")
    assert flags.arguments == ("--quantization", "bitsandbytes")
    assert "needs a plugin since vLLM 0.28.0" in flags.notes[0]


def test_fp8_has_a_condition_since_it_quantizes_no_more() -> None:
    """From 0.31 on an unquantized checkpoint is refused with it."""
    assert vllm_flags({"quantization": "fp8"}, "0.24.0").notes == ()
    (note,) = vllm_flags({"quantization": "fp8"}, "0.32.0").notes
    assert "fp8_per_tensor" in note


@pytest.mark.parametrize(
    ("features", "version", "words"),
    [
        ({"max_num_sequs": 4}, "0.32.0", "Did you mean 'max_num_seqs'?"),
        ({"max_num_seqs": 0}, "0.32.0", "is 0; must be 1 or more"),
        ({"max_num_seqs": "many"}, "0.32.0", "is 'many'; must be a whole number"),
        ({"max_num_seqs": True}, "0.32.0", "is True; must be a whole number"),
        ({"gpu_memory_utilization": 0}, "0.32.0", "must be above 0"),
        ({"gpu_memory_utilization": 1.01}, "0.32.0", "must be 1 or less"),
        ({"gpu_memory_utilization": float("nan")}, "0.32.0", "must be a number"),
        ({"enforce_eager": "yes"}, "0.32.0", "must be true or false"),
        ({"kv_cache_dtype": "fp16"}, "0.32.0", "Did you mean 'fp8'?"),
        ({"kv_cache_dtype": "nvfp4"}, "0.15.0", "versions from 0.20.0 do"),
        ({"quantization": "fp8"}, "0.4.0", "versions from 0.4.1 do"),
        ({"quantization": "awqq"}, "0.32.0", "Did you mean 'awq'?"),
        ({"quantization": "bitsandbytes"}, "0.4.3", "versions from 0.5.0 to before 0.28.0 do"),
        ({"hf_overrides": {}}, "0.32.0", "must be a map, not an empty one"),
        ({"attention_backend": "flashinfer"}, "0.32.0", "Did you mean 'FLASHINFER'?"),
        ({"max_lora_rank": 24}, "0.32.0", "which vLLM 0.32.0 does not take"),
        ({"block_size": 48}, "0.6.3", "which vLLM 0.6.3 does not take"),
        ({"lora_modules": ["a=/b"]}, "0.32.0", "must be a map"),
        ({"lora_modules": {"a": 1}}, "0.32.0", "holds a: 1; each must be a text"),
        ({"lora_modules": {"a=b": "/c"}}, "0.32.0", "a name ends at its first ="),
        ({"hf_overrides": {"a": object}}, "0.32.0", "cannot be written as JSON"),
        ({"structured_outputs_config": {"backends": "x"}}, "0.32.0", "Did you mean 'backend'?"),
        ({"max-num-seqs": 4, "max_num_seqs": 4}, "0.32.0", "is given twice"),
        (
            {"structured_outputs_config": {"backend": "x"}, "guided_decoding_backend": "outlines"},
            "0.32.0",
            "guided_decoding_backend says the same as structured_outputs_config",
        ),
        ({"speculative": "auto"}, "0.32.0", "no model is known yet"),
    ],
)
def test_what_cannot_be_is_refused(features: dict[str, Any], version: str, words: str) -> None:
    """Before a server is started, which takes minutes to say the same."""
    with pytest.raises(ProfileError) as caught:
        vllm_flags(features, version)
    assert words in caught.value.message
    assert caught.value.message.startswith("vllm_features.")
    assert caught.value.fix


def test_all_problems_are_told_at_once() -> None:
    """One run, one list."""
    features = {
        "max_num_sequs": 4,
        "gpu_memory_utilization": 2,
        "speculative": {"method": "ngrm"},
        "quantization": "awqq",
    }
    with pytest.raises(ProfileError, match="5 problems") as caught:
        vllm_flags(features, "0.32.0")
    for key in ("max_num_sequs", "gpu_memory_utilization", "speculative.method", "quantization"):
        assert f"vllm_features.{key} " in caught.value.message
    assert "num_speculative_tokens is missing" in caught.value.message


def test_text_can_be_pasted_into_a_shell() -> None:
    """JSON has quotes and braces."""
    flags = vllm_flags(
        {"limit_mm_per_prompt": {"image": 2}, "chat_template": "a b.jinja"}, "0.32.0"
    )
    text = flags_as_text(flags)
    assert text == """--limit-mm-per-prompt '{"image":2}' --chat-template 'a b.jinja'"""


@given(st.lists(st.text(max_size=12), max_size=6))
def test_quoting_survives_a_shells_reading(arguments: list[str]) -> None:
    """Whatever a name holds."""
    flags = ServerFlags(tuple(arguments), {}, ())
    assert shlex.split(flags_as_text(flags)) == arguments


EXAMPLES: dict[str, Any] = {
    "boolean": True,
    "integer": 16,
    "number": 0.5,
    "text": "x",
    "map": {"backend": "auto"},
}
FREE = sorted(key for key, entry in known_keys().items() if "choices" not in entry)


@given(st.sampled_from(FREE), st.integers(4, 40), st.integers(0, 3))
def test_every_key_is_written_or_noted_in_every_version(key: str, minor: int, patch: int) -> None:
    """The spans of its forms must not overlap, and its absence must be told."""
    entry = known_keys()[key]
    version = f"0.{minor}.{patch}"
    spans = [span_of(form) for form in entry.get("forms", [{}])]
    fitting = [span for span in spans if vllm_version(version) in span]
    assert len(fitting) <= 1
    value = {"a": 1} if entry.get("of") == "integer" else EXAMPLES[entry["kind"]]
    flags = vllm_flags({key: value}, version)
    written = bool(flags.arguments or flags.environment)
    assert written == bool(fitting)
    assert written or flags.notes


def test_every_entry_of_the_table_is_whole() -> None:
    """Each has a source; what is gone says what to do."""
    for key, entry in known_keys().items():
        assert entry["source"], key
        assert key == key.lower()
        last = entry.get("forms", [{}])[-1]
        assert ("gone" in entry) == ("until" in last), key
    speculation = table("vllm_keys")["speculation"]
    for part in ("methods", "members"):
        for name, entry in speculation[part].items():
            assert entry["source"], name


@pytest.mark.parametrize("version", ["0.24.0", "0.32.0"])
@pytest.mark.parametrize(
    "name",
    [
        "quantization/autoawq", "quantization/gptq", "quantization/fp8", "quantization/int8",
        "quantization/int4", "cpu-smoke", "mig/a100-1g.5gb", "mig/a100-2g.10gb", "mig/full",
    ],
)  # fmt: skip
def test_packaged_profiles_resolve_to_flags(name: str, version: str) -> None:
    """For the version that KServe pins, and for today's; nothing but `device` is left out."""
    document = yaml.safe_load((PROFILES / f"{name}.yaml").read_text("utf-8"))
    features = document["vllm_features"]
    flags = vllm_flags(features, version)
    left_out = [note for note in flags.notes if "left out" in note]
    assert all(note.startswith("device is left out") for note in left_out)
    assert flags_as_text(flags)
    assert set(document["recommended_for"]) <= {
        "production-baseline", "cost", "latency", "api-integration", "resource-planning",
        "backend-selection", "development",
    }  # fmt: skip
    assert document["needs"]
    assert document["expect"]
    if "speculative-config" in flags_as_text(flags):
        json.loads(flags.arguments[flags.arguments.index("--speculative-config") + 1])
