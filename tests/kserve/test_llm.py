"""LLMInferenceService: what it says, what it refuses, and that its arguments arrive as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.errors import UsageError
from kvswarm.kserve.llm import quoted
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.sources import model_source
from kvswarm.kserve.wanted import Canary, LlmOptions

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import ask, spec_of

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
PRESET = f"""eval "exec '{sys.executable}' -c '{SHOW}' $@" """
"""How KServe's presets start vLLM: what follows `--` is read a second time as shell words."""


def as_vllm_reads(arguments: list[str]) -> list[str]:
    """Through a real shell, as the presets' script gives them on."""
    command = ["bash", "-c", PRESET, "--", *arguments]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return list(json.loads(out))


def as_kubernetes_and_kserve_leave(argument: str) -> str:
    """After both have filled in what they take for theirs: `$$(` is `$(`, and a quoted brace one."""
    return argument.replace("$$(", "$(").replace("{{ `{{` }}", "{{")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), max_size=5
    )
)
def test_any_argument_arrives_as_it_was_meant(arguments: list[str]) -> None:
    """A shell reads it twice: quotes, blanks, stars and dollars of JSON must survive."""
    sent = [as_kubernetes_and_kserve_leave(quoted(argument)) for argument in arguments]
    assert as_vllm_reads(sent) == arguments


@pytest.mark.parametrize("text", ["$(HOME) {{ .Spec }}", "{{{", "$$(A) {{{{"])
def test_no_variable_and_no_template_is_left_to_be_filled_in(text: str) -> None:
    """KServe would fail to combine its presets, or put something else there."""
    written = quoted(text)
    assert "{{" not in written.replace("{{ `{{` }}", "")
    assert "$(" not in written.replace("$$(", "")
    assert as_vllm_reads([as_kubernetes_and_kserve_leave(written)]) == [text]


def test_speculation_reaches_vllm_as_json() -> None:
    """The flag that started it: its value is full of quotes."""
    arguments = spec_of(features={"speculative": NGRAM})["template"]["containers"][0]["args"]
    flag, value = as_vllm_reads(arguments)[:2]
    assert flag == "--speculative-config"
    assert json.loads(value)["method"] == "ngram"


def test_the_model_has_the_services_name_unless_a_feature_names_it() -> None:
    """The presets give vLLM the name; a flag beside theirs would be a second one."""
    assert spec_of()["model"] == {"uri": "hf://Qwen/Qwen3-8B", "name": "qwen"}
    named = spec_of(features={"served-model-name": "mine", "max_num_seqs": 8})
    assert named["model"]["name"] == "mine"
    assert named["template"]["containers"][0]["args"] == ["--max-num-seqs", "8"]


def test_parallelism_is_told_to_kserve_and_to_vllm() -> None:
    """KServe counts pods by it, and the preset of one node leaves vLLM's flags to us."""
    features = {"tensor_parallel_size": 2, "data_parallel_size": 2, "enable_expert_parallel": True}
    spec = spec_of(features=features)
    assert spec["parallelism"] == {"tensor": 2, "data": 2, "dataLocal": 2, "expert": True}
    (container,) = spec["template"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "--data-parallel-size 2" in " ".join(container["args"])


def test_several_nodes_are_a_pipeline_of_the_same_container() -> None:
    """The worker loads its part with the same flags, or the parts do not fit."""
    spec = spec_of(nodes=2, machine=Machine(gpus=8), source=model_source("s3://b/m"))
    assert spec["parallelism"] == {"tensor": 8, "pipeline": 2}
    (head,), (worker,) = spec["template"]["containers"], spec["worker"]["containers"]
    assert worker == {key: value for key, value in head.items() if key != "startupProbe"}
    assert "worker" not in spec_of()


def test_prefill_and_decode_are_alike_and_hand_over_the_cache() -> None:
    """They exchange blocks of it: a different layout on either side is an error or nonsense."""
    options = LlmOptions(router="scheduler", prefill_replicas=3)
    spec = spec_of(llm=options, scaling=Scaling(min_replicas=2), machine=Machine(gpus=2))
    prefill = dict(spec["prefill"])
    assert (spec["replicas"], prefill.pop("replicas")) == (2, 3)
    assert prefill == {key: spec[key] for key in ("parallelism", "template")}
    (container,) = spec["template"]["containers"]
    arguments = as_vllm_reads(container["args"])
    at = arguments.index("--kv-transfer-config")
    assert json.loads(arguments[at + 1])["kv_connector"] == "NixlConnector"
    assert container["env"][-1]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert any("NIXL" in note for note in ask(form="llm", llm=options).notes)


@pytest.mark.parametrize(
    ("options", "router"),
    [
        (LlmOptions(), {"route": {}, "gateway": {}}),
        (LlmOptions(router="scheduler"), {"route": {}, "gateway": {}, "scheduler": {}}),
        (LlmOptions(gateway="main"), {"route": {}, "gateway": {"refs": [{"name": "main"}]}}),
        (
            LlmOptions(gateway="infra/main"),
            {"route": {}, "gateway": {"refs": [{"name": "main", "namespace": "infra"}]}},
        ),
        (LlmOptions(router="none"), None),
    ],
)
def test_what_leads_to_it_is_as_asked(options: LlmOptions, router: dict[str, Any] | None) -> None:
    """An empty mapping is KServe's own; a missing one is none."""
    assert spec_of(llm=options).get("router") == router


def test_images_are_the_presets_or_pinned() -> None:
    """vLLM's own image runs as root, which the presets forbid."""
    (preset,) = spec_of()["template"]["containers"]
    assert "image" not in preset
    assert "securityContext" not in preset
    (pinned,) = spec_of(backend="vllm-runtime", vllm_version="v0.24")["template"]["containers"]
    assert pinned["image"] == "vllm/vllm-openai:v0.24.0"
    assert pinned["securityContext"]["runAsNonRoot"] is False
    (mine,) = spec_of(image="registry/llm:1")["template"]["containers"]
    assert mine["image"] == "registry/llm:1"


def test_who_it_runs_as_and_what_pulls_an_image_are_named() -> None:
    """On every pod that loads the model."""
    source = model_source("oci://registry/qwen:1", secret="pull", service_account="loader")  # noqa: S106
    spec = spec_of(source=source, nodes=2, machine=Machine(gpus=1))
    for pod in (spec["template"], spec["worker"]):
        assert pod["serviceAccountName"] == "loader"
        assert pod["imagePullSecrets"] == [{"name": "pull"}]


def test_adapters_that_are_loaded_are_not_told_missing() -> None:
    """The profile's requests may name them."""
    options = LlmOptions(adapters={"a": "hf://org/a"})
    notes = ask(form="llm", llm=options, adapters=("a", "b")).notes
    (missing,) = [note for note in notes if "nothing here loads" in note]
    assert "adapters b," in missing


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"backend": "tgi"}, ("--backend tgi", "--kind llm")),
        ({"backend": "tensorrt-llm"}, ("--backend tensorrt-llm", "`vllm serve`")),
        ({"backend": "triton"}, ("--backend triton", "--kind llm")),
        ({"mode": "knative"}, ("--mode knative", "--kind llm")),
        ({"canary": Canary(traffic_percent=5)}, ("--canary-percent", "--kind llm")),
        ({"scaling": Scaling(autoscaler="hpa")}, ("--autoscaler hpa", "--kind llm")),
        ({"scaling": Scaling(max_replicas=2)}, ("--max-replicas 2", "--autoscaler none")),
        ({"scaling": Scaling(min_replicas=0)}, ("--min-replicas 0", "--kind llm")),
        ({"scaling": Scaling(metric="cpu")}, ("--scale-metric cpu", "none")),
        ({"machine": Machine(gpus=0)}, ("--gpus 0", "--image")),
        (
            {"source": model_source("hf://a/b", secret="s")},  # noqa: S106
            ("--secret s", "--service-account"),
        ),
        (
            {"llm": LlmOptions(prefill_replicas=1)},
            ("--prefill-replicas 1", "--router scheduler"),
        ),
        (
            {"llm": LlmOptions(router="none", gateway="g")},
            ("--router-gateway g", "--router none"),
        ),
        ({"llm": LlmOptions(adapters={"a": "oci://r/a"})}, ("--adapter a=oci://r/a", "hf://")),
        ({"llm": LlmOptions(adapters={"qwen": "hf://o/a"})}, ("--adapter qwen", "itself")),
        (
            {
                "llm": LlmOptions(adapters={"a": "hf://o/a"}),
                "features": {"lora_modules": {"b": "/b"}},
            },
            ("--adapter", "lora_modules"),
        ),
        ({"nodes": 2, "features": {"data_parallel_size": 2}}, ("--nodes 2", "data_parallel_size")),
        ({"form": "isvc", "llm": LlmOptions(router="none")}, ("--router", "--kind isvc")),
    ],
)
def test_what_it_cannot_be_is_refused_naming_both(
    changes: dict[str, Any], both: tuple[str, str]
) -> None:
    """KServe would start something else, or nothing."""
    with pytest.raises(UsageError) as refused:
        ask(**{"form": "llm", **changes})
    for words in both:
        assert words in str(refused.value)
    assert refused.value.fix
