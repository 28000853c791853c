"""One replica over several nodes, a canary beside a service, and Triton: what is said and refused."""

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
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.nodes import unquoted
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.sources import model_source
from kvswarm.kserve.wanted import Canary

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import arguments, ask, of_kind, predictor

CLAIM = model_source("pvc://models/qwen")
BUCKET = model_source("s3://models/qwen")
NGRAM = {"method": "ngram", "num_speculative_tokens": 4}
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
RUNTIME = f"'{sys.executable}' -c '{SHOW}' $0 $@"
"""How KServe's runtime over several nodes gives its arguments on."""


def two(**changes: Any) -> dict[str, Any]:
    """The predictor of a service over two nodes."""
    return predictor(**{"nodes": 2, "source": CLAIM, "machine": Machine(gpus=4), **changes})


# -- several nodes ---------------------------------------------------------------------------


def test_the_model_is_a_pipeline_over_nodes_and_split_within_each() -> None:
    """KServe tells vLLM both sizes itself, from the worker; the flags would be a second time."""
    spec = two(features={"max_num_seqs": 8})
    assert spec["workerSpec"]["pipelineParallelSize"] == 2
    assert spec["workerSpec"]["tensorParallelSize"] == 4
    assert spec["model"]["runtime"] == "kserve-huggingfaceserver-multinode"
    words = " ".join(spec["model"]["args"])
    assert "--max-num-seqs 8" in words
    assert "parallel" not in words


def test_the_worker_has_what_the_head_has() -> None:
    """A node, its GPUs, memory to pass tensors through, and the image."""
    machine = Machine(gpus=4, cpu="16", memory="200Gi", node_selector={"pool": "h100"})
    spec = two(machine=machine, image="registry/server:1")
    worker, (container,) = spec["workerSpec"], spec["workerSpec"]["containers"]
    assert container["resources"] == spec["model"]["resources"]
    assert container["volumeMounts"] == spec["model"]["volumeMounts"]
    assert container["image"] == spec["model"]["image"] == "registry/server:1"
    assert worker["volumes"] == spec["volumes"]
    assert worker["nodeSelector"] == spec["nodeSelector"] == {"pool": "h100"}
    assert worker["tolerations"] == spec["tolerations"]


def test_a_device_that_kserve_does_not_know_is_named_to_it() -> None:
    """Its own webhook refuses the service otherwise."""
    machine = Machine(gpus=1, gpu_resource="example.com/gpu")
    changes: dict[str, Any] = {"nodes": 2, "source": CLAIM, "image": "r/s:1"}
    service = of_kind(ask(machine=machine, **changes), "InferenceService")
    named = service["metadata"]["annotations"]["serving.kserve.io/gpu-resource-types"]
    assert json.loads(named) == ["example.com/gpu"]
    known = of_kind(ask(**changes), "InferenceService")
    assert "serving.kserve.io/gpu-resource-types" not in known["metadata"]["annotations"]


JSON = st.recursive(
    st.booleans() | st.integers() | st.text("ab{}[]:,", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(value=st.dictionaries(st.text("abc", min_size=1), JSON, max_size=3))
def test_json_arrives_whole_where_a_shell_divides_at_blanks(value: dict[str, Any]) -> None:
    """Through a real shell that reads $0 $@ as KServe's runtime does, in an empty directory."""
    sent = unquoted(("--first", json.dumps(value)))
    command = ["bash", "-c", f"set -f; {RUNTIME}", *sent]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    first, arrived = json.loads(out)
    assert first == "--first"
    assert json.loads(arrived) == value


def test_what_cannot_lose_its_blanks_is_refused() -> None:
    """Half a template would be served with, without a word."""
    with pytest.raises(UsageError, match="a b"):
        two(features={"chat_template": "a b.jinja"})
    with pytest.raises(UsageError, match="divides arguments"):
        unquoted(('{"a": "b c"}',))


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"source": BUCKET}, ("--nodes 2", "pvc://")),
        ({"mode": "knative"}, ("--nodes 2", "--mode knative")),
        ({"backend": "vllm-runtime"}, ("--nodes 2", "--backend vllm-runtime")),
        ({"backend": "tgi"}, ("--nodes 2", "--backend tgi")),
        ({"scaling": Scaling(autoscaler="hpa")}, ("--nodes 2", "--autoscaler")),
        ({"scaling": Scaling(min_replicas=2)}, ("--nodes 2", "--min-replicas")),
        ({"canary": Canary(traffic_percent=5)}, ("--nodes 2", "--canary-percent")),
        ({"machine": Machine(gpu_resource="nvidia.com/mig-1g.10gb")}, ("--nodes 2", "MIG")),
        ({"machine": Machine(slice_by_label=True)}, ("--nodes 2", "slice")),
        ({"machine": Machine(gpus=0)}, ("--gpus 0", "--nodes 2")),
        ({"features": {"tensor_parallel_size": 2}}, ("--gpus 4", "tensor_parallel_size 2")),
        ({"features": {"pipeline_parallel_size": 4}}, ("--nodes 2", "pipeline_parallel_size 4")),
        ({"features": {"data_parallel_size": 2}}, ("--nodes 2", "data_parallel_size 2")),
    ],
)
def test_what_several_nodes_do_not_go_with_is_refused(
    changes: dict[str, Any], both: tuple[str, str]
) -> None:
    """KServe refuses most of it, later and in other words."""
    with pytest.raises(UsageError) as refused:
        two(**changes)
    for words in both:
        assert words in str(refused.value)
    assert refused.value.fix


def test_gpus_of_a_node_follow_from_the_features() -> None:
    """As they do on one node."""
    spec = two(machine=Machine(), features={"tensor_parallel_size": 8})
    assert spec["model"]["resources"]["limits"]["nvidia.com/gpu"] == "8"


# -- canary ----------------------------------------------------------------------------------


def test_knatives_canary_is_the_manifest_itself() -> None:
    """Its share is the new revision's; the one before it keeps the rest."""
    decided = ask(mode="knative", canary=Canary(traffic_percent=10))
    spec = of_kind(decided, "InferenceService")["spec"]
    assert spec["predictor"]["canaryTrafficPercent"] == 10
    assert "canary" not in spec
    assert any("gets all" in note for note in decided.notes)


@pytest.mark.parametrize(
    ("replicas", "percent", "its_own"), [(4, 25, 1), (4, 50, 2), (2, 0, 1), (3, 100, 2), (2, 99, 1)]
)
def test_standards_canary_stands_beside_the_service(
    replicas: int, percent: int, its_own: int
) -> None:
    """The same but for what is new, and with a fixed number of replicas of the service's own."""
    canary = Canary(
        traffic_percent=percent, model=model_source("hf://Qwen/Qwen3-8B-FP8"), image="r/s:2"
    )
    decided = ask(
        scaling=Scaling(min_replicas=replicas), canary=canary, features={"max_num_seqs": 8}
    )
    spec = of_kind(decided, "InferenceService")["spec"]
    (entry,) = spec["canary"]
    assert entry["trafficPercent"] == percent
    assert entry["predictor"]["minReplicas"] == its_own
    assert "maxReplicas" not in entry["predictor"]
    stable, new = spec["predictor"]["model"], entry["predictor"]["model"]
    assert stable["storageUri"] == "hf://Qwen/Qwen3-8B"
    assert (new["storageUri"], new["image"]) == ("hf://Qwen/Qwen3-8B-FP8", "r/s:2")
    assert new["args"] == stable["args"]
    assert "canaryTrafficPercent" not in spec["predictor"]


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({}, ("--canary-percent 10", "--canary-model")),
        (
            {"canary": Canary(traffic_percent=10, image="i"), "mode": "knative"},
            ("--canary-image", "--mode knative"),
        ),
        (
            {"canary": Canary(traffic_percent=10, image="i")},
            ("--canary-percent 10", "--min-replicas 1"),
        ),
        (
            {
                "canary": Canary(traffic_percent=10, image="i"),
                "scaling": Scaling(autoscaler="hpa", min_replicas=2, max_replicas=4),
            },
            ("--canary-percent 10", "--autoscaler hpa"),
        ),
    ],
)
def test_a_canary_that_cannot_be_is_refused(changes: dict[str, Any], both: tuple[str, str]) -> None:
    """Or all requests would go to the one, and the figures be of no canary."""
    with pytest.raises(UsageError) as refused:
        ask(**{"canary": Canary(traffic_percent=10), **changes})
    for words in both:
        assert words in str(refused.value)
    assert refused.value.fix


# -- Triton ----------------------------------------------------------------------------------


def test_triton_says_what_it_needs_and_what_differs() -> None:
    """A checkpoint would fail on the cluster, minutes later."""
    notes = " ".join(ask(backend="triton").notes)
    for words in ("model_repository", "tokenizer", "ensemble", "usage"):
        assert words in notes
    with pytest.raises(UsageError) as refused:
        ask(backend="triton", source=model_source("hf://Qwen/Qwen3-8B"))
    assert "--backend triton and --model hf://" in str(refused.value)
    assert "--backend tensorrt-llm" in str(refused.value)


def test_tritons_features_are_the_engines() -> None:
    """Each is told, none is written: an engine cannot be other than it was built."""
    features = {"max_num_seqs": 8, "kv_cache_dtype": "fp8", "speculative": NGRAM}
    plain = arguments(backend="triton")
    assert arguments(backend="triton", features=features) == plain
    left_out = [n for n in ask(backend="triton", features=features).notes if "left out" in n]
    assert len(left_out) == 3
    assert all("engine was built" in note for note in left_out)


def test_triton_starts_a_process_for_each_gpu_of_the_engine() -> None:
    """And none beside it where there is one."""
    assert "env" not in predictor(backend="triton")["model"]
    model = predictor(backend="triton", machine=Machine(gpus=2))["model"]
    assert model["env"] == [{"name": "TRTLLM_ORCHESTRATOR", "value": "1"}]
    assert (
        "the engine must be one for 2 GPUs." in ask(backend="triton", machine=Machine(gpus=2)).notes
    )
