"""Claims of a profile against what a server shows: confirmed, contradicted, or honestly unknown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.errors import ProfileError
from kvswarm.serving.checkpoints import fit, hints_in
from kvswarm.serving.claims import Claim, ServerEvidence, check_claims, kv_cache_capacity
from kvswarm.serving.quantization import methods

FIXTURE = Path(__file__).parents[1] / "fixtures" / "metrics_ngram.prom"
SAMPLES = [
    sample
    for family in text_string_to_metric_families(FIXTURE.read_text("utf-8"))
    for sample in family.samples
]
(CACHE_CONFIG,) = [
    sample.labels for sample in SAMPLES if sample.name == "vllm:cache_config_info"
]  # fmt: skip
METRIC_NAMES = frozenset(sample.name for sample in SAMPLES)
WITHOUT_DRAFTS = frozenset(name for name in METRIC_NAMES if "spec_decode" not in name)

NGRAM = {"method": "ngram", "num_speculative_tokens": 4}
VLLM = ServerEvidence(
    model_card={"id": "tiny", "root": "/models/tiny", "parent": None, "max_model_len": 2048},
    models=("tiny", "french"),
    cache_config=CACHE_CONFIG,
    metric_names=METRIC_NAMES,
    server_version="0.32.0+cpu",
)
"""A real page of vLLM 0.32 with ngram speculation."""

NOTHING = ServerEvidence()


def served(
    root: str | None, *, name: str = "model", flags: tuple[str, ...] | None = None
) -> ServerEvidence:
    """A server of which the checkpoint's name is known, and perhaps the flags."""
    return ServerEvidence(model_card={"id": name, "root": root}, deployment_flags=flags)


def one(features: dict[str, Any], evidence: ServerEvidence) -> Claim:
    """The only claim."""
    (claim,) = check_claims(features, evidence)
    return claim


@pytest.mark.parametrize(
    ("features", "status", "seen"),
    [
        ({"kv_cache_dtype": "auto"}, "confirmed", "auto"),
        ({"kv_cache_dtype": "fp8"}, "contradicted", "auto"),
        ({"kv_cache_dtype": "bfloat16"}, "unknown", "auto"),
        ({"enable_prefix_caching": True}, "confirmed", "True"),
        ({"enable-prefix-caching": False}, "contradicted", "True"),
        ({"gpu_memory_utilization": 0.92}, "confirmed", "0.92"),
        ({"gpu_memory_utilization": 0.9}, "contradicted", "0.92"),
        ({"block_size": 128}, "confirmed", "128"),
        ({"block_size": 16}, "contradicted", "128"),
        ({"max_model_len": 2048}, "confirmed", "2048"),
        ({"max_model_len": 4096}, "contradicted", "2048"),
        ({"speculative": NGRAM}, "confirmed", "on"),
        ({"speculative": "auto"}, "confirmed", "on"),
        ({"speculative_model": "m", "num_speculative_tokens": 2}, "confirmed", "on"),
        ({"lora_modules": {"french": "/a"}}, "confirmed", "tiny, french"),
        ({"lora_modules": {"french": "/a", "german": "/b"}}, "contradicted", "tiny, french"),
        ({"enable_lora": False}, "confirmed", "false"),
        ({"enable_lora": True}, "contradicted", "false"),
        ({"disable_sliding_window": True}, "unknown", None),
        ({"quantization": "fp8"}, "unknown", None),
    ],
)
def test_a_claim_is_what_a_real_servers_page_says_of_it(
    features: dict[str, Any], status: str, seen: str | None
) -> None:
    """The page was captured from vLLM 0.32."""
    claim = one(features, VLLM)
    assert (claim.status, claim.seen) == (status, seen)
    assert claim.sentence.startswith(f"{claim.key}: ")
    assert claim.sentence.endswith(".")


ALL: dict[str, Any] = {
    "quantization": "fp8",
    "kv_cache_dtype": "fp8",
    "enable_prefix_caching": True,
    "speculative": NGRAM,
    "enable_lora": True,
    "lora_modules": {"french": "/a"},
    "max_model_len": 2048,
    "gpu_memory_utilization": 0.9,
    "disable_sliding_window": True,
    "block_size": 16,
}


def test_without_evidence_everything_is_unknown() -> None:
    """Nothing seen is nothing known, and no metrics read is not no speculation."""
    claims = check_claims(ALL, NOTHING)
    assert [claim.key for claim in claims] == list(ALL)
    assert {(claim.status, claim.seen) for claim in claims} == {("unknown", None)}


def test_keys_that_cannot_be_seen_are_no_claims() -> None:
    """No server tells its max_num_seqs; null claims nothing."""
    features = {"max_num_seqs": 4, "tool_call_parser": "hermes", "kv_cache_dtype": None}
    assert check_claims(features, VLLM) == ()


def test_the_simulator_confirms_and_contradicts_nothing() -> None:
    """It has no GPU: its figures are its own, whatever its pages say."""
    evidence = ServerEvidence(
        model_card=VLLM.model_card, models=VLLM.models, cache_config=CACHE_CONFIG,
        metric_names=METRIC_NAMES, simulator=True,
    )  # fmt: skip
    for claim in check_claims(ALL, evidence):
        assert (claim.status, claim.seen) == ("unknown", "the simulator")
        assert "has no GPU" in claim.sentence
        assert "the figures are the simulator's" in claim.sentence


@pytest.mark.parametrize(
    ("names", "version", "flags", "status", "seen"),
    [
        (WITHOUT_DRAFTS, "0.32.0", None, "contradicted", "off"),
        (WITHOUT_DRAFTS, None, None, "contradicted", "off"),
        (WITHOUT_DRAFTS, "0.6.3", None, "unknown", None),
        (frozenset({"http_requests_total"}), "0.32.0", None, "unknown", None),
        (METRIC_NAMES, "0.32.0", ("-sc", '{"method":"ngram"}'), "confirmed", "ngram"),
        (
            METRIC_NAMES,
            "0.32.0",
            ('--speculative-config={"method":"eagle"}',),
            "contradicted",
            "eagle",
        ),
        (METRIC_NAMES, "0.32.0", ("--speculative-config", "no json"), "confirmed", "on"),
    ],
)
def test_speculation_shows_in_its_metrics_and_its_method_in_the_deployment(
    names: frozenset[str],
    version: str | None,
    flags: tuple[str, ...] | None,
    status: str,
    seen: str | None,
) -> None:
    """An engine without speculation has no such metrics; older ones never had."""
    evidence = ServerEvidence(metric_names=names, server_version=version, deployment_flags=flags)
    claim = one({"speculative": NGRAM}, evidence)
    assert (claim.status, claim.seen) == (status, seen)


@pytest.mark.parametrize(
    ("claimed", "evidence", "status"),
    [
        # The deployment decides, in any spelling.
        ("autoawq", served("/mnt/models", flags=("--quantization", "awq_marlin")), "confirmed"),
        ("fp8", served("/mnt/models", flags=("--quantization=fp8_per_tensor",)), "confirmed"),
        ("fp8", served("org/m-AWQ", flags=("-q", "awq")), "contradicted"),
        (
            "fp8",
            served("org/m-FP8-dynamic", flags=("--quantization", "compressed-tensors")),
            "confirmed",
        ),
        ("fp8", served("/mnt/models", flags=("--quantization", "compressed-tensors")), "unknown"),
        ("modelopt", served("/mnt/models", flags=("--quantization", "modelopt")), "confirmed"),
        # The checkpoint's name.
        ("awq", served("Qwen/Qwen2.5-7B-Instruct-AWQ"), "confirmed"),
        ("gptq", served("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4"), "confirmed"),
        ("int4", served("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4"), "confirmed"),
        ("int8", served("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8"), "contradicted"),
        ("int8", served("RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8"), "confirmed"),
        ("fp8", served("RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8"), "unknown"),
        ("int4", served("RedHatAI/Llama-3.1-8B-Instruct-quantized.w4a16"), "confirmed"),
        ("awq", served("RedHatAI/Llama-3.1-8B-Instruct-quantized.w4a16"), "unknown"),
        ("fp8", served("Qwen/Qwen3-8B-FP8"), "confirmed"),
        ("awq", served("Qwen/Qwen3-8B-FP8"), "contradicted"),
        ("int4", served("unsloth/Qwen3-8B-bnb-4bit"), "contradicted"),
        ("modelopt", served("nvidia/Llama-3.1-8B-Instruct-FP8"), "unknown"),
        # The served name, which anybody may choose; and no hint at all.
        ("awq", served("/mnt/models", name="llama-awq"), "unknown"),
        ("awq", served("/mnt/models", name="llama-fp8"), "unknown"),
        ("fp8", served("meta-llama/Llama-3.1-8B-Instruct"), "unknown"),
        ("fp8", served(None), "unknown"),
    ],
)
def test_quantization_is_as_certain_as_its_evidence(
    claimed: str, evidence: ServerEvidence, status: str
) -> None:
    """Flags, then the checkpoint's name; a served name proves nothing."""
    assert one({"quantization": claimed}, evidence).status == status


def test_a_method_by_its_older_name_is_the_same() -> None:
    """vLLM called mtp deepseek_mtp before 0.11."""
    flags = ("--speculative-config", '{"method":"deepseek_mtp","num_speculative_tokens":1}')
    evidence = ServerEvidence(metric_names=METRIC_NAMES, deployment_flags=flags)
    claimed = {"speculative": {"method": "mtp", "num_speculative_tokens": 1}}
    assert one(claimed, evidence).status == "confirmed"


def test_an_adapters_own_name_says_nothing_of_the_model_below_it() -> None:
    """Its root is the adapter's directory."""
    card = {"id": "french", "root": "/adapters/french-awq", "parent": "base-fp8"}
    claim = one({"quantization": "awq"}, ServerEvidence(model_card=card))
    assert (claim.status, claim.seen) == ("unknown", "fp8")


@pytest.mark.parametrize(
    ("claimed", "label", "flags", "status"),
    [
        (True, "4096", None, "contradicted"),
        (False, "4096", None, "confirmed"),
        (True, "None", ("--disable-sliding-window", "--port", "80"), "confirmed"),
        (False, "None", ("--no-disable-sliding-window",), "confirmed"),
        (True, "4096", ("--disable_sliding_window",), "confirmed"),
        (True, "None", ("--port", "80"), "unknown"),
    ],
)
def test_no_window_shown_is_no_window_off(
    *, claimed: bool, label: str, flags: tuple[str, ...] | None, status: str
) -> None:
    """vLLM shows None too where only some layers have a window."""
    evidence = ServerEvidence(cache_config={"sliding_window": label}, deployment_flags=flags)
    assert one({"disable_sliding_window": claimed}, evidence).status == status


def test_fp8_and_e4m3_are_one() -> None:
    """And e5m2 is another."""
    evidence = ServerEvidence(cache_config={"cache_dtype": "fp8_e4m3"})
    assert one({"kv_cache_dtype": "fp8"}, evidence).status == "confirmed"
    assert one({"kv_cache_dtype": "fp8_e5m2"}, evidence).status == "contradicted"


def test_values_that_cannot_be_claimed_are_refused() -> None:
    """Instead of a comparison with nonsense."""
    with pytest.raises(ProfileError, match="2 problems"):
        check_claims({"gpu_memory_utilization": "0.9", "lora_modules": 3}, VLLM)


def test_capacity_is_blocks_times_their_size() -> None:
    """The captured page shows vLLM's own product too."""
    capacity = kv_cache_capacity(CACHE_CONFIG, 2048)
    assert capacity.tokens == 8192 * 128 == int(CACHE_CONFIG["kv_cache_size_tokens"])
    assert capacity.max_concurrency == 512
    assert kv_cache_capacity(CACHE_CONFIG, None).max_concurrency is None


@pytest.mark.parametrize(
    "labels", [{}, {"num_gpu_blocks": "None", "block_size": "16"}, {"block_size": "16"}]
)
def test_an_unknown_capacity_is_none(labels: dict[str, str]) -> None:
    """And never 0."""
    capacity = kv_cache_capacity(labels, 2048)
    assert (capacity.tokens, capacity.max_concurrency) == (None, None)


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("org/Model-AWQ-INT4", {"awq", "int4"}),
        ("org/model.w4a16", {"w4a16"}),
        ("unsloth/model-bnb-4-bit", {"bnb", "4bit"}),
        ("org/Hawq-7B", set()),
        ("org/awqful", set()),
        ("org/fp80", set()),
    ],
)
def test_hints_stand_by_themselves(name: str, hints: set[str]) -> None:
    """Whatever separates them."""
    assert hints_in(name) == hints


@given(st.text(alphabet="abcdefgintwfp48-_/.", max_size=40))
def test_hints_are_words_and_never_parts_of_one(name: str) -> None:
    """`fawq` is no AWQ."""
    for hint in hints_in(name):
        pattern = hint.replace("bit", "-?bit")
        assert re.search(rf"(^|[^a-z0-9]){pattern}([^a-z0-9]|$)", name)


@given(
    st.sampled_from(sorted(methods())),
    st.sets(st.sampled_from(["nvfp4", "gguf", "bnb", "mxfp4"]), min_size=1),
    st.sets(st.sampled_from(["awq", "fp8", "int8"])),
)
def test_a_foreign_format_fits_no_method(method: str, foreign: set[str], others: set[str]) -> None:
    """Whatever else the name says."""
    assert fit(method, frozenset(foreign | others)) is False
