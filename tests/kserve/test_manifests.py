"""Manifests for KServe: what they say, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvswarm.errors import KvswarmError, UsageError
from kvswarm.kserve.backends import BACKENDS
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.sources import model_source

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import arguments, ask, of_kind, predictor

NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
DRAFT = {"method": "draft_model", "model": "org/draft", "num_speculative_tokens": 5}


@pytest.mark.parametrize(("mode", "named"), [("standard", "Standard"), ("knative", "Knative")])
def test_the_mode_is_always_written(mode: str, named: str) -> None:
    """KServe's shipped defaults differ, and a mode cannot change later."""
    annotations = of_kind(ask(mode=mode), "InferenceService")["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == named


@pytest.mark.parametrize("backend", BACKENDS)
def test_resources_shared_memory_and_timeout_are_always_written(backend: str) -> None:
    """KServe's own are 1 CPU and 2 Gi, 64 MiB, and 60 s, none of which a large model lives with."""
    spec = predictor(backend=backend, timeout_s=90.5)
    share = {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert spec["model"]["resources"] == {"limits": share, "requests": share}
    assert spec["timeout"] == 91
    assert spec["model"]["volumeMounts"] == [{"name": "devshm", "mountPath": "/dev/shm"}]  # noqa: S108 - in a pod
    assert spec["volumes"] == [{"name": "devshm", "emptyDir": {"medium": "Memory"}}]


def test_flags_are_those_of_the_version_that_the_runtime_has() -> None:
    """The two runtimes of KServe have different versions of vLLM, and flags come and go."""
    features = {"calculate_kv_scales": True}
    assert "--calculate-kv-scales" in arguments(features=features)
    assert "--calculate-kv-scales" not in arguments(features=features, backend="vllm-runtime")
    older = arguments(features=features, backend="vllm-runtime", vllm_version="v0.24")
    assert "--calculate-kv-scales" in older


def test_the_image_has_the_version_that_the_flags_are_for() -> None:
    """`latest` may be another one tomorrow."""
    assert predictor(backend="vllm-runtime")["model"]["image"] == "vllm/vllm-openai:v0.32.0"
    older = predictor(backend="vllm-runtime", vllm_version="0.24")
    assert older["model"]["image"] == "vllm/vllm-openai:v0.24.0"
    mine = predictor(backend="vllm-runtime", image="registry/vllm:1")
    assert mine["model"]["image"] == "registry/vllm:1"


def test_the_served_name_is_the_services_unless_a_feature_names_it() -> None:
    """The Hugging Face runtime has a flag of its own for it."""
    assert "--model_name=qwen" in arguments()
    named = arguments(features={"served-model-name": "mine"})
    assert "--model_name=mine" in named
    assert not [word for word in named if "served" in word]


@pytest.mark.parametrize("backend", ["tgi", "tensorrt-llm", "triton"])
def test_a_backend_without_a_runtime_brings_its_own(backend: str) -> None:
    """KServe has none for them; the service names it, so that no other is chosen."""
    decided = ask(backend=backend)
    runtime, service = of_kind(decided, "ServingRuntime"), of_kind(decided, "InferenceService")
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    assert runtime["metadata"]["namespace"] == service["metadata"]["namespace"]
    (container,) = runtime["spec"]["containers"]
    port = container["ports"][0]["containerPort"]
    assert str(port) in " ".join(container["args"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = "/health/ready" if backend == "triton" else "/health"
        assert container[probe]["httpGet"] == {"path": path, "port": port}
    started = container["startupProbe"]
    assert started["periodSeconds"] * started["failureThreshold"] == 1800
    kinds = [each["kind"] for each in decided.documents]
    assert kinds.index("ServingRuntime") < kinds.index("InferenceService")


def test_tgi_is_said_to_be_archived() -> None:
    """Nobody should start with it unawares."""
    assert any("archived" in note for note in ask(backend="tgi").notes)


def test_features_are_written_in_tgis_words_and_others_are_told() -> None:
    """A profile means the same for every server, or says that it does not."""
    features = {
        "max_model_len": 8192,
        "quantization": "autoawq",
        "kv-cache-dtype": "fp8",
        "enable_prefix_caching": False,
        "lora_modules": {"a": "/mnt/models/a"},
        "speculative": NGRAM,
        "max_num_seqs": 64,
    }
    words = " ".join(arguments(backend="tgi", features=features))
    assert "--max-input-tokens 8191 --max-total-tokens 8192" in words
    assert "--quantize awq" in words
    assert "--kv-cache-dtype fp8_e4m3fn" in words
    assert "--lora-adapters a=/mnt/models/a" in words
    assert "--speculate 4" in words
    environment = predictor(backend="tgi", features=features)["model"]["env"]
    assert environment == [{"name": "PREFIX_CACHING", "value": "0"}]
    left_out = [note for note in ask(backend="tgi", features=features).notes if "left out" in note]
    assert len(left_out) == 1
    assert left_out[0].startswith("max_num_seqs ")


def test_features_are_written_in_tensorrt_llms_words_and_others_are_told() -> None:
    """What has no flag is in the file that its arguments name."""
    features = {
        "max_model_len": 8192,
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "kv_cache_dtype": "fp8",
        "speculative": NGRAM,
        "gpu_memory_utilization": 0.9,
    }
    decided = ask(backend="tensorrt-llm", features=features)
    words = " ".join(arguments(backend="tensorrt-llm", features=features))
    assert "--max_seq_len 8192 --max_batch_size 64" in words
    config = of_kind(decided, "ConfigMap")
    ((name, text),) = config["data"].items()
    assert f"/etc/kvswarm/{name}" in words
    assert yaml.safe_load(text) == {
        "return_perf_metrics": True,
        "enable_iter_perf_stats": True,
        "kv_cache_config": {"enable_block_reuse": False, "dtype": "fp8"},
        "speculative_config": {
            "decoding_type": "NGram",
            "max_draft_len": 4,
            "max_matching_ngram_size": 3,
        },
    }
    spec = of_kind(decided, "ServingRuntime")["spec"]
    assert spec["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    assert [note.split()[0] for note in decided.notes if "left out" in note] == [
        "gpu_memory_utilization"
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_feature_is_refused_by_every_backend(backend: str) -> None:
    """A typing mistake must not become a server that is measured for something else."""
    with pytest.raises(KvswarmError, match="max_model_length"):
        ask(backend=backend, features={"max_model_length": 1})


# -- models and their credentials ------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/qwen",
        "gs://bucket/qwen",
        "hf://Qwen/Qwen3-8B:main",
        "pvc://claim/qwen",
        "oci://registry.example.com/qwen:1",
        "https://example.com/qwen.tar.gz",
    ],
)
def test_a_models_uri_goes_to_kserves_storage_as_it_is(uri: str) -> None:
    """KServe knows these schemes itself."""
    assert predictor(source=model_source(uri))["model"]["storageUri"] == uri


def test_credentials_are_named_and_never_copied() -> None:
    """By the annotation, the service account, and for images their own field."""
    source = model_source("s3://bucket/qwen", secret="keys", service_account="loader")  # noqa: S106
    service = of_kind(ask(source=source), "InferenceService")
    annotation = service["metadata"]["annotations"]["serving.kserve.io/storageSecretName"]
    assert annotation == "keys"
    assert service["spec"]["predictor"]["serviceAccountName"] == "loader"
    image = model_source("oci://registry/qwen:1", secret="pull")  # noqa: S106
    service = of_kind(ask(source=image), "InferenceService")
    assert service["spec"]["predictor"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "serving.kserve.io/storageSecretName" not in service["metadata"]["annotations"]


def test_a_draft_of_hugging_face_is_loaded_with_the_same_secret() -> None:
    """KServe's storage loads the model, and the server the draft."""
    source = model_source("hf://Qwen/Qwen3-8B", secret="token")  # noqa: S106
    model = predictor(source=source, features={"speculative": DRAFT})["model"]
    assert model["env"] == [
        {
            "name": "HF_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": "token", "key": "HF_TOKEN", "optional": True}},
        }
    ]
    assert "env" not in predictor(source=source, features={"speculative": NGRAM})["model"]


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("Qwen/Qwen3-8B", "hf://Qwen/Qwen3-8B"),
        ("s4://bucket/qwen", "'s3'"),
        ("hf://Qwen", "org/name"),
        ("s3://", "s3://bucket"),
        ("https://me:hidden@example.com/qwen", "--secret"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_the_way_out(uri: str, told: str) -> None:
    """Before anything is applied."""
    with pytest.raises(UsageError) as refused:
        model_source(uri)
    assert told in str(refused.value)
    assert "hidden" not in str(refused.value)


# -- machines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "flag"),
    [
        ("vllm", "--tensor-parallel-size 2"),
        ("vllm-runtime", "--tensor-parallel-size 2"),
        ("tgi", "--num-shard 2"),
        ("tensorrt-llm", "--tp_size 2"),
    ],
)
def test_a_model_is_spread_over_the_gpus_of_its_replica(backend: str, flag: str) -> None:
    """And a replica has as many as its features spread it over."""
    assert flag in " ".join(arguments(backend=backend, machine=Machine(gpus=2)))
    spec = predictor(backend=backend, features={"tensor_parallel_size": 2})
    assert spec["model"]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_a_mig_slice_is_asked_for_by_its_name_on_nodes_that_have_them() -> None:
    """A slice counts as a GPU."""
    spec = predictor(machine=Machine(gpu_resource="nvidia.com/mig-1g.10gb"))
    assert spec["model"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
    assert spec["nodeSelector"] == {"nvidia.com/mig.capable": "true"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_gpu_that_kserve_may_not_know_is_told() -> None:
    """It would choose the image for CPUs, and the GPU would be held and idle."""
    shared = Machine(gpu_resource="nvidia.com/gpu.shared")
    (note,) = ask(machine=shared).notes
    assert "nvidia.com/gpu.shared" in note
    assert ask(machine=shared, image="registry/huggingfaceserver:1-gpu").notes == ()
    assert ask(machine=Machine(gpu_resource="nvidia.com/mig-1g.10gb")).notes == ()


def test_knative_gets_no_placement_that_nobody_asked_for() -> None:
    """A stock Knative refuses a service with node selectors or tolerations."""
    plain = predictor(mode="knative")
    assert "nodeSelector" not in plain
    assert "tolerations" not in plain
    asked = predictor(mode="knative", machine=Machine(node_selector={"zone": "a"}))
    assert asked["nodeSelector"] == {"zone": "a"}


def test_without_a_gpu_none_is_asked_for() -> None:
    """A CPU image on a node with GPUs must not hold one."""
    spec = predictor(machine=Machine(gpus=0), features={"vllm_cpu_kvcache_space": 4})
    assert set(spec["model"]["resources"]["limits"]) == {"cpu", "memory"}
    assert "tolerations" not in spec
    assert spec["model"]["env"] == [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"machine": Machine(gpus=2, gpu_resource="nvidia.com/mig-1g.10gb")}, ("--gpus 2", "mig")),
        (
            {
                "machine": Machine(gpu_resource="nvidia.com/mig-1g.10gb"),
                "features": {"tensor_parallel_size": 2},
            },
            ("tensor_parallel_size 2", "--gpu-resource"),
        ),
        (
            {"machine": Machine(gpus=4), "features": {"tensor_parallel_size": 2}},
            ("--gpus 4", "tensor_parallel_size 2"),
        ),
        ({"machine": Machine(gpus=0), "backend": "tgi"}, ("--gpus 0", "--backend tgi")),
        ({"machine": Machine(gpu_resource="amd.com/gpu")}, ("--gpu-resource", "--image")),
        ({"machine": Machine(gpu_resource="gpu")}, ("--gpu-resource gpu", "vendor/name")),
        ({"machine": Machine(memory="much")}, ("--memory much", "32Gi")),
        ({"machine": Machine(memory="32ki")}, ("--memory 32ki", "32Gi")),
        ({"service": "Qwen_3"}, ("--service Qwen_3", "letters")),
        ({"namespace": "-"}, ("--namespace -", "letters")),
        ({"backend": "vlm"}, ("--backend vlm", "'vllm'")),
        # Scaling.
        (
            {"scaling": Scaling(autoscaler="hpa"), "mode": "knative"},
            ("--autoscaler hpa", "--mode knative"),
        ),
        ({"scaling": Scaling(autoscaler="kpa")}, ("--autoscaler kpa", "--mode standard")),
        (
            {"scaling": Scaling(autoscaler="hpa", metric="rps")},
            ("--scale-metric rps", "--autoscaler hpa"),
        ),
        (
            {"scaling": Scaling(metric="cpu"), "mode": "knative"},
            ("--scale-metric cpu", "--autoscaler kpa"),
        ),
        (
            {"scaling": Scaling(autoscaler="keda", metric="rps", target=5)},
            ("--scale-metric rps", "--autoscaler keda"),
        ),
        ({"scaling": Scaling(autoscaler="keda")}, ("--autoscaler keda", "--scale-target")),
        (
            {"scaling": Scaling(autoscaler="keda", target=5)},
            ("--scale-metric", "--scale-query"),
        ),
        (
            {
                "scaling": Scaling(
                    autoscaler="keda", metric="cpu", target=5, query="up", prometheus="http://p"
                )
            },
            ("--scale-metric", "--scale-query"),
        ),
        (
            {"scaling": Scaling(autoscaler="keda", query="up", target=5)},
            ("--scale-query", "--prometheus"),
        ),
        (
            {"scaling": Scaling(autoscaler="hpa", query="up", prometheus="http://p")},
            ("--scale-query", "--autoscaler hpa"),
        ),
        (
            {"scaling": Scaling(autoscaler="hpa", min_replicas=0, max_replicas=2)},
            ("--min-replicas 0", "--autoscaler hpa"),
        ),
        ({"scaling": Scaling(max_replicas=2)}, ("--max-replicas 2", "--autoscaler none")),
        ({"scaling": Scaling(target=2)}, ("--scale-target 2", "--autoscaler none")),
        (
            {"scaling": Scaling(autoscaler="hpa", min_replicas=3, max_replicas=2)},
            ("--min-replicas 3", "--max-replicas 2"),
        ),
    ],
)
def test_what_does_not_go_together_is_refused_naming_both(
    changes: dict[str, Any], both: tuple[str, str]
) -> None:
    """KServe would take some of it and do something else, without a word."""
    with pytest.raises(UsageError) as refused:
        ask(**changes)
    for words in both:
        assert words in str(refused.value)
    assert refused.value.fix


def test_each_autoscaler_gets_its_metric_where_it_looks_for_it() -> None:
    """keda has metrics of its own and no scaleMetric."""
    kpa = predictor(
        mode="knative",
        scaling=Scaling(metric="concurrency", target=8, min_replicas=0, max_replicas=4),
    )
    assert (kpa["scaleMetric"], kpa["scaleTarget"], kpa["minReplicas"]) == ("concurrency", 8, 0)
    hpa = ask(scaling=Scaling(autoscaler="hpa", metric="cpu", target=70, max_replicas=3))
    service = of_kind(hpa, "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    assert service["spec"]["predictor"]["scaleMetric"] == "cpu"
    query = "sum(vllm:num_requests_waiting)"
    keda = predictor(
        scaling=Scaling(
            autoscaler="keda", query=query, prometheus="http://p:9090", target=5, max_replicas=3
        )
    )
    assert "scaleMetric" not in keda
    (metric,) = keda["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"] == query
    assert metric["external"]["target"] == {"type": "Value", "value": "5"}


def test_a_timeout_that_knative_refuses_is_told() -> None:
    """Its own limit is 600 s, and profiles allow 1800."""
    assert any("max-revision-timeout" in note for note in ask(mode="knative").notes)
    short = ask(mode="knative", timeout_s=600).notes
    assert not any("max-revision-timeout" in note for note in short)


def test_adapters_that_nothing_loads_are_told() -> None:
    """Every request for one would fail."""
    features = {"enable_lora": True, "lora_modules": {"a": "/mnt/models/a"}}
    (note,) = ask(adapters=("a", "b"), features=features).notes
    assert "adapters b," in note


def test_a_dollar_in_an_argument_is_no_variable_of_kubernetes() -> None:
    """$(NAME) in a container's arguments would be replaced."""
    words = arguments(features={"chat_template": "$(HOME)/t.jinja"})
    assert words[-1] == "$$(HOME)/t.jinja"
