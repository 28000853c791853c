"""What is read of a service's documents: its server's words, its model, its way, why it is not ready."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import ask, of_kind

from kvswarm.errors import TargetError
from kvswarm.kserve.addresses import address_of, with_path
from kvswarm.kserve.found import FoundService, Serving, backend_of, flag_value, model_of, words_of
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.pods import read_pod
from kvswarm.kserve.services import read_inference_service, read_llm_service, with_pods

TYPE = "node.kubernetes.io/instance-type"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
WORD = st.text("abcxyz0189./-_", min_size=1).filter(lambda word: not word.startswith("-"))


def isvc(
    status: dict[str, Any] | None = None,
    predictor: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    model = {"modelFormat": {"name": "huggingface"}, "args": ["--model_name=chat"]}
    return {
        "kind": "InferenceService",
        "metadata": {"name": "qwen", "namespace": "llm", "annotations": annotations or {}},
        "spec": {"predictor": {"model": model, **(predictor or {})}},
        "status": READY if status is None else status,
    }


def pod(**changes: Any) -> dict[str, Any]:
    container = {
        "name": "kserve-container",
        "image": "vllm/vllm-openai:v0.32.0",
        "args": ["--served-model-name=chat", "--port=8080"],
        "ports": [{"containerPort": 8080}],
        **changes.pop("container", {}),
    }
    return {
        "metadata": {"name": "qwen-1", **changes.pop("metadata", {})},
        "spec": {
            "nodeName": "gpu-1",
            "containers": [{"name": "queue-proxy", "ports": [{"containerPort": 8012}]}, container],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "kserve-container", "state": {"running": {}}, "restartCount": 2}
            ],
            **changes.pop("status", {}),
        },
    }


# -- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"command": ["trtllm-serve"], "args": ["/mnt/models"]}, ("trtllm-serve", "/mnt/models")),
        ({"args": ["--a=$$(HOME)"]}, ("--a=$(HOME)",)),
        (
            {
                "command": ["/bin/bash", "-c"],
                "args": [
                    'set -e\neval "exec vllm" # no\nexec vllm serve /mnt/models \\\n'
                    "  --served-model-name 'my model' ${VLLM_ADDITIONAL_ARGS}"
                ],
                "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-model-len 4096"}],
            },
            (
                *("vllm", "serve", "/mnt/models", "--served-model-name", "my model"),
                *("--max-model-len", "4096"),
            ),
        ),
        ({"command": ["sh", "-c"], "args": ["vllm serve 'x"]}, ("vllm", "serve", "'x")),
    ],
)
def test_a_command_line_is_read_however_it_is_written(
    container: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Kubernetes' own escapes, a shell's script, and what a variable adds to it."""
    assert words_of(container) == words


@given(value=WORD, before=st.lists(WORD, max_size=3), joined=st.booleans(), low=st.booleans())
def test_a_flag_has_its_value_however_it_is_spelled(
    *, value: str, before: list[str], joined: bool, low: bool
) -> None:
    """Joined or apart, with hyphens or underscores; the last one counts."""
    name = "--model_name" if low else "--model-name"
    flag = [f"{name}={value}"] if joined else [name, value]
    words = ["--model-name=first", *before, *flag, *before]
    assert flag_value(words, "--model-name") == value
    assert flag_value(before, "--model-name") is None


@given(secret=st.text("abcdef0123456789", min_size=8), joined=st.booleans())
@pytest.mark.parametrize(
    "flag", ["--api-key", "--hf-token", "--hf_token", "--ssl-keyfile-password", "--client-secret"]
)
def test_no_secret_of_a_command_line_is_shown(*, flag: str, secret: str, joined: bool) -> None:
    """And all else is, tokens that are counted among it."""
    given_words = [f"{flag}={secret}"] if joined else [flag, secret]
    words = ("--max-num-batched-tokens=2048", *given_words, "--tokenizer=x")
    shown = Serving(backend=None, runtime=None, image=None, words=words).flags
    assert secret not in "\n".join(shown)
    assert shown[0] == words[0]
    assert shown[-1] == words[-1]


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", "v0.32.0"),
        ("registry:5000/vllm", None),
        ("registry:5000/vllm:1@sha256:00", "1"),
        ("vllm@sha256:00", None),
        (None, None),
    ],
)
def test_the_version_is_the_images_tag(image: str | None, version: str | None) -> None:
    """A registry's port is none."""
    assert Serving(backend=None, runtime=None, image=image, words=()).version == version


@pytest.mark.parametrize("backend", ["vllm", "vllm-runtime", "tgi", "tensorrt-llm"])
def test_every_manifest_is_read_as_the_backend_that_it_was_written_for(backend: str) -> None:
    """And its model as its server calls it, where the command line says so."""
    decided = ask(backend=backend)
    document = of_kind(decided, "InferenceService")
    runtime = None
    if backend in {"tgi", "tensorrt-llm"}:
        runtime = of_kind(decided, "ServingRuntime")
    found = read_inference_service({**document, "status": READY}, runtime)
    assert found.serving.backend == backend
    model = {"vllm": "qwen", "vllm-runtime": None, "tgi": None, "tensorrt-llm": "models"}[backend]
    assert found.model == model
    path = "/openai/v1" if backend == "vllm" else "/v1"
    assert found.serving.api_path == path


def test_a_clusters_runtime_is_filled_with_the_services_name() -> None:
    """As KServe does for its own runtimes."""
    runtime = {
        "spec": {
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "vllm/vllm-openai:v0.32.0",
                    "args": ["--served-model-name={{.Name}}", "--port=8080"],
                }
            ]
        }
    }
    document = isvc(predictor={"model": {"modelFormat": {"name": "vLLM"}, "args": ["--seed=1"]}})
    found = read_inference_service(document, runtime)
    assert found.serving.words == ("--served-model-name=qwen", "--port=8080", "--seed=1")
    assert found.model == "qwen"
    assert found.serving.image == "vllm/vllm-openai:v0.32.0"


def test_a_server_that_nobody_knows_has_no_backend() -> None:
    """Its base path and its model are asked for."""
    assert backend_of("example.com/server:1", ("serve",), "custom") is None
    assert model_of(("serve",), None) is None


# -- pods ---------------------------------------------------------------------------------------


def test_a_pod_tells_where_its_metrics_are() -> None:
    """By its annotations, or else by its server's container; by https where its probe is."""
    assert (read_pod(pod()).port, read_pod(pod()).path) == (8080, "/metrics")
    noted = {"prometheus.kserve.io/port": "9000", "prometheus.kserve.io/path": "prometheus/metrics"}
    found = read_pod(pod(metadata={"annotations": noted}))
    assert (found.port, found.path, found.scheme) == (9000, "/prometheus/metrics", "http")
    probe = {"readinessProbe": {"httpGet": {"scheme": "HTTPS", "path": "/health", "port": 8000}}}
    assert read_pod(pod(container=probe)).scheme == "https"


def test_a_pod_tells_how_it_fares() -> None:
    """Of its server's container, not of what stands beside it."""
    found = read_pod(pod())
    assert (found.running, found.ready, found.restarts, found.leaving) == (True, True, 2, False)
    waiting = {"containerStatuses": [{"name": "kserve-container", "state": {"waiting": {}}}]}
    assert read_pod(pod(status=waiting)).running is False
    assert read_pod(pod(status={"conditions": []})).ready is False
    assert read_pod(pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})).leaving is True
    bare = read_pod({"metadata": {"name": "new"}, "spec": {}, "status": {}})
    assert (bare.running, bare.ready, bare.restarts, bare.ip) == (False, False, 0, None)


def test_a_pod_that_only_prefills_does_not_count_requests() -> None:
    """Each of them is counted by the pod that decodes it, too."""
    assert read_pod(pod(metadata={"labels": {"llm-d.ai/role": "prefill"}})).counts is False
    assert read_pod(pod(metadata={"labels": {"llm-d.ai/role": "decode"}})).counts is True


def test_a_pod_that_helps_another_has_no_page_and_no_say() -> None:
    """Of a server over several nodes, all but the head are such, with containers of other names."""
    helper = read_pod(pod(container={"name": "worker-container", "args": ["ray", "start"]}))
    assert helper.counts is False
    bare = read_inference_service(isvc(), None)
    found = with_pods(FoundService(**{**fields(bare), "pods": (helper, read_pod(pod()))}))
    assert found.serving.words == ("--served-model-name=chat", "--port=8080")


def test_what_a_pod_runs_goes_before_what_documents_say() -> None:
    """KServe puts arguments of its own between."""
    bare = read_inference_service(
        isvc(predictor={"model": {"modelFormat": {"name": "vLLM"}}}), None
    )
    found = with_pods(FoundService(**{**fields(bare), "pods": (read_pod(pod()),)}))
    assert found.serving.words == ("--served-model-name=chat", "--port=8080")
    assert found.serving.version == "v0.32.0"
    assert found.model == "chat"


def fields(service: FoundService) -> dict[str, Any]:
    return {name: getattr(service, name) for name in FoundService.__slots__}


# -- how the service fares ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "at_least", "sleeps"),
    [
        ({"serving.kserve.io/deploymentMode": "Knative"}, 0, True),
        ({"serving.kserve.io/deploymentMode": "Serverless"}, 0, True),
        ({"serving.kserve.io/autoscalerClass": "keda"}, 0, True),
        ({"serving.kserve.io/autoscalerClass": "hpa"}, 0, False),
        ({"serving.kserve.io/deploymentMode": "Knative"}, 1, False),
        ({"serving.kserve.io/deploymentMode": "Knative"}, None, False),
    ],
)
def test_a_service_sleeps_where_its_autoscaler_goes_to_zero(
    *, annotations: dict[str, str], at_least: int | None, sleeps: bool
) -> None:
    """And nowhere else: KServe raises the others to one."""
    predictor = {} if at_least is None else {"minReplicas": at_least}
    bare = read_inference_service(isvc(predictor=predictor, annotations=annotations), None)
    assert FoundService(**{**fields(bare), "pods": ()}).asleep is sleeps
    assert FoundService(**{**fields(bare), "pods": (read_pod(pod()),)}).asleep is False
    assert bare.asleep is False  # not known


def test_a_service_that_was_stopped_does_not_sleep() -> None:
    """No request wakes it; nor does one wake an LLMInferenceService of no replicas."""
    knative = {"serving.kserve.io/deploymentMode": "Knative"}
    stopped = {**knative, "serving.kserve.io/stop": "true"}
    zero = {"minReplicas": 0}
    assert read_inference_service(isvc(predictor=zero, annotations=knative), None).may_sleep
    assert not read_inference_service(isvc(predictor=zero, annotations=stopped), None).may_sleep
    metadata = {"name": "llama", "namespace": "llm"}
    model = {"uri": "hf://x/y"}
    none = {"metadata": metadata, "spec": {"model": model, "replicas": 0}}
    scaled = {"metadata": metadata, "spec": {"model": model, "scaling": zero}}
    assert not read_llm_service(none, None).may_sleep
    assert read_llm_service(scaled, None).may_sleep


def test_a_model_that_kserve_gave_up_is_no_sleeping_one() -> None:
    """It has no pods either."""
    status = {"modelStatus": {"transitionStatus": "BlockedByFailedLoad"}}
    assert read_inference_service(isvc(status), None).failed
    assert not read_inference_service(isvc(), None).failed


def test_what_keeps_a_service_from_being_ready_is_told_with_its_reason() -> None:
    """The conditions below Ready, and what KServe says of the model."""
    status = {
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "All"},
            {"type": "PredictorReady", "status": "False", "reason": "Few", "message": "0 of 1"},
            {"type": "IngressReady", "status": "True"},
        ],
        "modelStatus": {"lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no memory"}},
    }
    found = read_inference_service(isvc(status), None)
    assert not found.ready
    assert found.why_not_ready == (
        "PredictorReady is False (Few: 0 of 1); its model: ModelLoadFailed: no memory"
    )
    assert (
        read_inference_service(isvc({}), None).why_not_ready == "KServe has said nothing of it yet"
    )


def test_a_canary_is_told() -> None:
    """Its figures are of two revisions."""
    assert read_inference_service(isvc(predictor={"canaryTrafficPercent": 20}), None).notes
    assert not read_inference_service(isvc(predictor={"canaryTrafficPercent": 100}), None).notes


# -- the way to it ------------------------------------------------------------------------------


def llm(**status: Any) -> FoundService:
    return read_llm_service(
        {
            "metadata": {"name": "llama", "namespace": "llm"},
            "spec": {"model": {"uri": "hf://x/y", "name": "x/y"}, "replicas": 2},
            "status": status,
        },
        None,
    )


def address(service: FoundService, **changes: Any) -> tuple[str, str | None]:
    asked: dict[str, Any] = {"inside": False, "gateway": None, "resolves": lambda _: True}
    found = address_of(service, **{**asked, **changes})
    return found.url, found.gateway


def test_the_addresses_of_an_llm_service_are_of_both_sides() -> None:
    """`addresses` holds those of gateways and the one inside the cluster; the path is kept."""
    found = llm(
        addresses=[
            {"url": "https://llama.llm.svc.cluster.local:8000"},
            {"url": "http://gateway.example/llm/llama"},
        ],
        router={"gateways": [{"name": "public", "namespace": "kserve"}]},
    )
    assert address(found) == ("http://gateway.example/llm/llama/v1", None)
    assert address(found, inside=True) == ("https://llama.llm.svc.cluster.local:8000/v1", None)
    with pytest.raises(TargetError) as caught:
        address(found, resolves=lambda _: False)
    assert "kubectl get gateway -n kserve public" in caught.value.fix


def test_a_gateways_scheme_goes_before_the_services() -> None:
    """It may end TLS for URLs that say http; a path is kept."""
    found = read_inference_service(isvc({**READY, "url": "http://qwen.example/serving"}), None)
    assert address(found, gateway="https://203.0.113.7") == (
        "https://qwen.example/serving/openai/v1",
        "https://203.0.113.7",
    )
    assert address(found, inside=True)[0] == "http://qwen.example/serving/openai/v1"


def test_a_service_without_a_url_is_reached_from_inside_alone() -> None:
    """The message says both ways out."""
    found = read_inference_service(isvc({**READY, "address": {"url": "http://qwen.llm.svc"}}), None)
    assert address(found, inside=True) == ("http://qwen.llm.svc/openai/v1", None)
    with pytest.raises(TargetError, match="no URL outside the cluster"):
        address(found)


@pytest.mark.parametrize(
    ("mode", "told"), [("Knative", "istio-ingressgateway"), ("Standard", "kubectl get gateway -A")]
)
def test_a_host_that_nobody_knows_needs_a_gateway(mode: str, told: str) -> None:
    """The message says where to look for it."""
    status = {**READY, "url": "http://qwen.example", "deploymentMode": mode}
    with pytest.raises(TargetError, match=r"qwen\.example has no address") as caught:
        address(read_inference_service(isvc(status), None), resolves=lambda _: False)
    assert told in caught.value.fix
    assert "Host: qwen.example" in caught.value.fix


def test_a_sleeping_service_that_nobody_knows_is_taken_for_the_usual() -> None:
    """It cannot be asked without being woken."""
    model = {"modelFormat": {"name": "custom"}}
    knative = {"serving.kserve.io/deploymentMode": "Knative"}
    status = {**READY, "url": "http://qwen.example"}
    bare = read_inference_service(
        isvc(status, {"minReplicas": 0, "model": model}, annotations=knative), None
    )
    assert address(bare)[0] == "http://qwen.example"
    asleep = FoundService(**{**fields(bare), "pods": ()})
    assert address(asleep)[0] == "http://qwen.example/v1"


def test_a_path_that_ends_in_v1_is_the_api() -> None:
    """Nothing is laid behind it twice."""
    assert with_path("http://a/openai/v1", "/v1") == "http://a/openai/v1"
    assert with_path("http://a/", None) == "http://a"


# -- the machine --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "machine"),
    [
        ({"limits": {"nvidia.com/gpu": "2", "cpu": "8", "memory": "64Gi"}},
         (2, "nvidia.com/gpu", 8.0, 64.0)),
        ({"requests": {"cpu": "1500m"}, "limits": {"cpu": "4", "nvidia.com/mig-1g.10gb": 1}},
         (1, "nvidia.com/mig-1g.10gb", 1.5, None)),
        ({"limits": {"nvidia.com/gpu": "0", "cpu": "2", "memory": "4G", "rdma/hca": "1"}},
         (0, None, 2.0, 4e9 / 2**30)),
        ({}, (0, None, None, None)),
    ],
    ids=["gpus", "a slice", "none", "nothing asked"],
)  # fmt: skip
def test_what_a_pod_asks_for_is_what_its_servers_container_does(
    resources: dict[str, Any], machine: tuple[object, ...]
) -> None:
    """Requests go before limits; a network card is no GPU."""
    found = read_pod(pod(container={"resources": resources}))
    assert (found.gpus, found.gpu_resource, found.cpus, found.memory_gib) == machine


def test_a_service_without_pods_says_what_one_would_ask_for() -> None:
    """As `kvswarm deploy` writes it; one that leaves it to its runtime says nothing."""
    machine = Machine(gpus=2, cpu="6", memory="48Gi", node_selector={TYPE: "g6.12xlarge"})
    features = {"tensor_parallel_size": 2}
    wanted = {"gpus": 2, "gpu_resource": "nvidia.com/gpu", "cpus": 6.0, "memory_gib": 48.0,
              "labels": {TYPE: "g6.12xlarge"}}  # fmt: skip
    service = of_kind(ask(machine=machine, features=features), "InferenceService")
    assert read_inference_service(service, None).machine == wanted
    llm = of_kind(ask(machine=machine, features=features, form="llm"), "LLMInferenceService")
    assert read_llm_service(llm, None).machine == wanted
    assert read_inference_service(isvc(), None).machine == {}
