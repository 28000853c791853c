"""Rules about sizes between their examples, and the estimate beside the verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from examples import check_example
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.guardrails.check import check_profile
from kvswarm.guardrails.deployments import deployment_of
from kvswarm.guardrails.facts import Deployment, Server
from kvswarm.guardrails.rule import Example
from kvswarm.guardrails.rules.memory import LLAMA_8B
from kvswarm.guardrails.rules.quantization import AWQ
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.sources import model_source
from kvswarm.kserve.wanted import Wanted
from kvswarm.profiles.overrides import Overrides

FP8 = LLAMA_8B | {"quantization_config": {"quant_method": "fp8"}}
COMPRESSED = LLAMA_8B | {"quantization_config": {"quant_method": "compressed-tensors"}}


def ids(folder: Path, profile: str, **known: Any) -> set[str]:
    """The rules that a profile breaks."""
    checked = check_example(Example(profile=profile, **known), folder)
    return {finding.rule.id for finding in checked.findings}


@pytest.mark.parametrize(
    ("method", "config", "version", "broken"),
    [
        ("fp8", LLAMA_8B, "0.32.0", {"KVS120"}),
        ("fp8", LLAMA_8B, "0.24.0", set()),
        ("fp8_per_tensor", LLAMA_8B, "0.32.0", set()),
        ("gptq", LLAMA_8B, "0.24.0", {"KVS120"}),
        ("fp8", FP8, "0.32.0", set()),
        ("fp8", COMPRESSED, "0.32.0", {"KVS121"}),
        ("int8", COMPRESSED, "0.32.0", set()),
        ("int4", AWQ, "0.32.0", set()),
        ("int8", AWQ, "0.32.0", {"KVS121"}),
        ("awq_marlin", AWQ, "0.24.0", set()),
        (None, AWQ, "0.32.0", set()),
    ],
)
def test_quantization_is_held_against_the_checkpoint(
    tmp_path: Path, method: str | None, config: dict[str, Any], version: str, broken: set[str]
) -> None:
    """What vLLM makes by itself needs no checkpoint; what it reads must be there."""
    value = "null" if method is None else method
    profile = f"vllm_features: {{quantization: {value}}}\n"
    assert ids(tmp_path, profile, config=config, version=version) == broken


@pytest.mark.parametrize(
    ("gpu", "config", "broken"),
    [
        ("V100", FP8, {"KVS122"}),
        ("T4", FP8, {"KVS123"}),
        ("A100", FP8, {"KVS123"}),
        ("L40S", FP8, set()),
        ("H100", FP8, set()),
        ("MI300X", FP8, set()),
        ("T4", AWQ, set()),
    ],
)
def test_a_checkpoints_own_method_is_held_against_the_gpu(
    tmp_path: Path, gpu: str, config: dict[str, Any], broken: set[str]
) -> None:
    """Ada has FP8, too, not only Hopper; AMD has no compute capability to compare."""
    profile = "concurrency: 2\nvllm_features: {max_model_len: 1024}\n"
    assert ids(tmp_path, profile, gpu=gpu, config=config) == broken


@pytest.mark.parametrize("gpu", ["cpu", None])
def test_nothing_is_said_of_sizes_without_a_gpu(tmp_path: Path, gpu: str | None) -> None:
    """A rule about sizes must not guess."""
    assert ids(tmp_path, "concurrency: 4\n", config=LLAMA_8B, gpu=gpu) == set()


def test_a_feature_that_is_not_given_is_told_by_where_it_would_stand(tmp_path: Path) -> None:
    """With speculation, too, whose key has nothing to do with memory."""
    ngram = "speculative: {method: ngram, num_speculative_tokens: 3, prompt_lookup_max: 3}\n"
    example = Example(profile=f"concurrency: 1\n{ngram}", config=LLAMA_8B, gpu="L4")
    (finding,) = check_example(example, tmp_path).findings
    assert finding.rule.id == "KVS101"
    assert finding.message.startswith("vllm_features has no max_model_len")


def test_weights_that_are_only_estimated_are_no_error_at_the_edge(tmp_path: Path) -> None:
    """A family that is not counted exactly may be some percent smaller than its shape says."""
    profile = "concurrency: 1\nvllm_features: {max_model_len: 512}\n"
    fewer = LLAMA_8B | {"num_hidden_layers": 31}
    assert ids(tmp_path, profile, config=fewer, gpu="T4") & {"KVS100"} == set()
    unknown = LLAMA_8B | {"model_type": "new"}
    assert "KVS100" not in ids(tmp_path, profile, config=unknown, gpu="T4")
    assert ids(tmp_path, profile, config=LLAMA_8B, gpu="T4") == {"KVS100"}


def test_two_gpus_hold_what_one_does_not(tmp_path: Path) -> None:
    """16-bit Llama-8B: not on one T4, but on two."""
    one = "concurrency: 2\nvllm_features: {max_model_len: 2048}\n"
    two = one.replace("}", ", tensor_parallel_size: 2}")
    assert ids(tmp_path, one, config=LLAMA_8B, gpu="T4") == {"KVS100"}
    assert ids(tmp_path, two, config=LLAMA_8B, gpu="T4") == set()


@pytest.mark.parametrize(
    ("backend", "path", "broken"),
    [
        ("vllm", "/openai/v1", set()),
        ("vllm", "/serving/ns/llm/openai/v1", set()),
        ("vllm", "/v1", {"KVS150"}),
        ("vllm-runtime", "/v1", set()),
        ("vllm-runtime", "", set()),
        ("vllm-runtime", "/openai/v1", {"KVS150"}),
    ],
)
def test_each_runtime_has_its_path(
    tmp_path: Path, backend: str, path: str, broken: set[str]
) -> None:
    """A gateway's path stands before the runtime's own."""
    deployment = Deployment(url_path=path)
    assert ids(tmp_path, "concurrency: 4\n", backend=backend, deployment=deployment) == broken


@pytest.mark.parametrize(
    ("image", "broken"),
    [
        ("vllm/vllm-openai", {"KVS158"}),
        ("registry.local:5000/vllm", {"KVS158"}),
        ("registry.local:5000/vllm:v0.32.0", set()),
        ("vllm/vllm-openai@sha256:" + "0" * 64, set()),
    ],
)
def test_an_images_version_is_its_tag_or_digest(
    tmp_path: Path, image: str, broken: set[str]
) -> None:
    """A registry's port is no tag."""
    deployment = Deployment(image=image)
    assert ids(tmp_path, "concurrency: 4\n", deployment=deployment) == broken


def test_a_secret_is_told_by_its_name_and_never_shown(tmp_path: Path) -> None:
    """A finding lands in CI logs."""
    deployment = Deployment(arguments=("--api-key=sesame-sesame",))
    checked = check_example(Example(profile="concurrency: 4\n", deployment=deployment), tmp_path)
    (finding,) = checked.findings
    assert finding.rule.id == "KVS161"
    assert "sesame" not in str(finding.to_dict())
    assert "--api-key" in finding.message


def validate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    command = [sys.executable, "-m", "kvswarm", "validate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_estimate_stands_beside_the_verdict(tmp_path: Path) -> None:
    """As text, and as data that a later report can hold against what was measured."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    known = ("--profile", "standard", "--model", str(tmp_path), "--gpu", "NVIDIA-H100-80GB-HBM3")
    text = validate(*known)
    assert text.returncode == 0, text.stderr
    assert "Estimate for H100-SXM (floors and ceilings, not measurements):" in text.stdout
    figures = json.loads(validate(*known, "--json").stdout)["estimate"]
    assert figures["is_estimate"] is True
    assert figures["kv_bytes_per_token_per_gpu"] == 131072
    assert json.loads(validate("--profile", "standard", "--json").stdout)["estimate"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "H1000"), "knows no such GPU"),
        (("--gpu", "L4", "--mig", "1g.10gb"), "cannot be divided"),
        (("--gpu", "H200", "--mig", "1g.10gb"), "no such slice"),
        (("--mig", "1g.10gb"), "of which GPU"),
    ],
)
def test_a_gpu_that_is_not_known_is_refused(arguments: tuple[str, ...], words: str) -> None:
    """Rules about sizes would be silent, and silence would read as approval."""
    done = validate("--profile", "standard", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_is_asked_of_kserve_is_held_against_the_rules(tmp_path: Path) -> None:
    """The same wishes that the manifests are made of; `kvswarm manifest` sets timeout and /dev/shm."""
    wanted = Wanted(
        backend="vllm",
        service="llm",
        namespace="default",
        source=model_source("hf://org/model"),
        features={"tensor_parallel_size": 2},
        image="vllm/vllm-openai",
        scaling=Scaling(min_replicas=0),
    )
    deployment = deployment_of(wanted)
    assert (deployment.gpus, deployment.storage, deployment.timeout_s) == (2, "hf", 1800.0)
    profile = "vllm_features: {tensor_parallel_size: 2}\n"
    assert ids(tmp_path, profile, deployment=deployment) == {"KVS155", "KVS158"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9000) | st.floats(0, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
KEYS = (
    *LLAMA_8B, "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "kv_lora_rank",
    "qk_rope_head_dim", "layer_types", "sliding_window", "quantization_config", "text_config",
    "rope_scaling", "head_dim", "first_k_dense_replace", "decoder_sparse_step", "mlp_only_layers",
)  # fmt: skip


@given(
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5),
    gpu=st.sampled_from(["T4", "H100", "MI250", "A30", "nothing known"]),
    tensor=st.sampled_from([1, 3, 8]),
)
def test_no_models_config_is_too_odd_for_the_rules(
    changes: dict[str, Any], gpu: str, tensor: int
) -> None:
    """Whatever somebody hands in by --model: findings or none, and nothing raised."""
    overrides = Overrides(settings=(f"vllm_features.tensor_parallel_size={tensor}",))
    server = Server(config=LLAMA_8B | changes, gpu=gpu)
    checked = check_profile("standard", overrides, server)
    assert all(finding.message for finding in checked.findings)
