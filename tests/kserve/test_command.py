"""`kvswarm manifest` as it is typed: exit codes, what goes where, and docs/kserve.md's own lines."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from typed_commands import Typed, TypeIn, typing_in

from kvswarm.commands.manifest import EFFECTS, tolerations
from kvswarm.kserve.backends import BACKENDS
from kvswarm.profiles.load import packaged_names

HF = "hf://Qwen/Qwen3-8B"
MODELS = {"triton": "s3://models/qwen3-8b"}
"""Where a backend's model can come from, if not from Hugging Face."""
NAMED = "--namespace llm --service qwen"
REQUIRED = f"--model {HF} {NAMED}"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> TypeIn:
    """`kvswarm manifest WORDS` from its entry point to its exit."""
    return typing_in(monkeypatch, capfd, "manifest")


def service(typed: Typed) -> dict[str, Any]:
    """The service that was printed, of either kind."""
    assert typed.code == 0, typed.err
    kinds = ("InferenceService", "LLMInferenceService")
    (found,) = [d for d in yaml.safe_load_all(typed.out) if d["kind"] in kinds]
    return dict(found)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("profile", packaged_names())
def test_every_packaged_profile_has_a_manifest_for_every_backend(
    type_in: TypeIn, profile: str, backend: str
) -> None:
    """Or the profile holds what a backend cannot even leave out."""
    typed = type_in(
        f"{NAMED} --model {MODELS.get(backend, HF)} --backend {backend} --profile {profile}"
    )
    assert service(typed)["metadata"]["name"] == "qwen"


def test_standard_output_is_for_kubectl_and_nothing_else(type_in: TypeIn) -> None:
    """What a person must know goes to standard error, so that a pipe stays one."""
    typed = type_in(f"{REQUIRED} --backend tgi")
    assert "archived" in typed.err
    assert "archived" not in typed.out
    kinds = [document["kind"] for document in yaml.safe_load_all(typed.out)]
    assert kinds == ["ServingRuntime", "InferenceService"]


def test_the_draft_of_auto_is_the_models(type_in: TypeIn) -> None:
    """`hf://` names the model, so a draft can be chosen."""
    words = "--profile speculative-decoding --set speculative=auto"
    told = type_in(f"{words} --model hf://meta-llama/Llama-3.1-8B --namespace llm --service qwen")
    flags = service(told)["spec"]["predictor"]["model"]["args"]
    assert "Llama-3.2-1B" in flags[flags.index("--speculative-config") + 1]


def test_a_setting_changes_the_timeout(type_in: TypeIn) -> None:
    """The way out that the note for Knative names."""
    typed = type_in(f"{REQUIRED} --mode knative --set timeouts.total_s=600")
    assert service(typed)["spec"]["predictor"]["timeout"] == 600
    assert "max-revision-timeout" not in typed.err


def test_labels_and_taints_are_read(type_in: TypeIn) -> None:
    """And take the place of the taint that is tolerated by default."""
    placed = "--node-selector zone=a --toleration gpu=yes:NoExecute --toleration spot"
    spec = service(type_in(f"{REQUIRED} {placed}"))["spec"]["predictor"]
    assert spec["nodeSelector"] == {"zone": "a"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute"},
        {"key": "spot", "operator": "Exists"},
    ]


TAINTS = st.text("abcxyz019./-_", min_size=1)


@given(key=TAINTS, value=st.none() | TAINTS, effect=st.none() | st.sampled_from(EFFECTS))
def test_any_taint_is_read_as_it_is_written(
    key: str, value: str | None, effect: str | None
) -> None:
    """Missing parts stay missing: an empty value or effect means something else."""
    written = (
        key + ("" if value is None else f"={value}") + ("" if effect is None else f":{effect}")
    )
    (read,) = tolerations([written])
    assert read["key"] == key
    assert read.get("value") == value
    assert read.get("effect") == effect
    assert read["operator"] == ("Exists" if value is None else "Equal")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--service qwen --namespace llm", "--model"),
        (f"{REQUIRED} --backend vlm", "Did you mean 'vllm'?"),
        (f"{REQUIRED} --profile standart", "Did you mean 'standard'?"),
        (f"{REQUIRED} --node-selector zone", "--node-selector zone: is not KEY=VALUE"),
        (f"{REQUIRED} --toleration gpu:Never", "--toleration gpu:Never"),
        (f"{REQUIRED} --vllm-version latest", "'latest', which is no version"),
        (f"{REQUIRED} --set vllm_features.quantisation=fp8", "Did you mean 'quantization'?"),
        (f"{REQUIRED} --autoscaler kpa", "--mode standard"),
        (f"{REQUIRED} --kind llm --adapter sql", "--adapter sql: is not NAME=URI"),
        (f"{REQUIRED} --kind llm --adapter a=hf://o/a --adapter a=hf://o/b", "is given twice"),
        (f"{REQUIRED} --canary-model hf://o/b", "no --canary-percent"),
        (f"{REQUIRED} --canary-percent 5 --canary-model qwen", "--model qwen: is no URI"),
        (f"{REQUIRED} --nodes 2", "pvc://claim/path"),
        (f"{REQUIRED} --backend triton", "--backend tensorrt-llm"),
        (
            "--model s3://b/m --namespace llm --service qwen --profile speculative-decoding "
            "--set speculative=auto",
            "ngram",
        ),
    ],
)
def test_a_mistake_is_told_and_ends_with_2(type_in: TypeIn, words: str, told: str) -> None:
    """Nothing is printed that could be applied."""
    typed = type_in(words)
    assert typed.code == 2
    assert told in typed.err
    assert typed.out == ""


@pytest.mark.parametrize("page", ["kserve.md", "command-line.md"])
def test_every_line_of_the_docs_can_be_pasted(type_in: TypeIn, page: str) -> None:
    """Up to where it is piped to kubectl or into a file."""
    text = (DOCS / page).read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    kvswarm manifest ([^|>\n]+)", text, re.MULTILINE)
    assert lines
    for line in lines:
        assert service(type_in(line))["metadata"]["name"] == "qwen"
