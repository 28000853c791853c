"""`kvswarm run --namespace N --service S` over a real API server, with KServe's controller played."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gateways import Gateway
from kube_api_server import ApiServer
from measured_service import (
    LLM_SERVICE,
    SERVICE,
    Person,
    inference_service,
    llm_service,
    wait_for_pods,
    wait_until_ready,
)
from running import Run, going, until
from stand_in_kserve import StandIn
from stand_in_pods import Behaviour

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.scaling import Scaling

pytestmark = pytest.mark.kube


@pytest.fixture
def person(api: ApiServer, tmp_path: Path, namespace: str) -> Person:
    """Who may do anything."""
    return Person(api, tmp_path, namespace)


def deploy(
    cluster: Cluster, kserve: StandIn, namespace: str, replicas: int = 1, **wanted: object
) -> None:
    """An InferenceService, ready."""
    scaling = Scaling(min_replicas=replicas)
    for document in inference_service(namespace, scaling=scaling, **wanted):
        cluster.apply(document)
    wait_until_ready(cluster, SERVICE, namespace, "qwen")
    wait_for_pods(kserve, "qwen", replicas)


def test_each_pod_is_a_replica_and_together_they_count_what_the_client_counts(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """Through the API server's proxy: no pod is reached directly."""
    deploy(cluster, kserve, namespace, replicas=2)
    done = person.run("qwen")
    assert done.code == 0, done.err
    server = done.run.summary["server"]
    assert set(server["replicas"]) == set(kserve.pods("qwen"))
    told = [sum(each["requests"].values()) for each in server["replicas"].values()]
    assert sum(told) == done.run.summary["requests"]["ok"] == 20
    line = server["reconciliation"]["requests"]
    assert (line["client"], line["server"]) == (20, 20)
    assert line["explained"] == "They agree, over all 2 replicas."
    target = done.run.info["target"]
    assert target["base_url"].endswith("/openai/v1")
    assert target["model"] == "qwen"
    assert target["service"]["kind"] == "InferenceService"
    assert {pod["name"] for pod in target["service"]["pods"]} == set(kserve.pods("qwen"))
    assert all("/proxy/metrics" in each["url"] for each in done.run.info["metrics"])


def test_a_gateway_leads_to_the_host_that_the_service_names(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """From outside the cluster, where nobody knows that host."""
    host = f"qwen-{namespace}.example.invalid"
    kserve.behave("qwen", Behaviour(host=host))
    deploy(cluster, kserve, namespace)
    lost = person.run("qwen")
    assert lost.code == 4
    assert f"{host} has no address that this machine knows" in lost.err
    assert "kubectl get gateway -A" in lost.err
    assert "--gateway http://ADDRESS" in lost.err
    assert not (person.folder / "run").exists()
    port = int(kserve.url("qwen").rpartition(":")[2])
    with Gateway({host: port}) as gateway:
        done = person.run("qwen", "--gateway", gateway.url, "--processes", "2")
    assert done.code == 0, done.err
    assert {name for _, name in gateway.seen} == {host}
    assert done.run.info["target"]["base_url"] == f"http://{host}:80/openai/v1"
    assert done.run.summary["server"]["reconciliation"]["requests"]["explained"] == "They agree."


def test_an_llm_service_keeps_its_path_and_names_its_model(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """/NAMESPACE/NAME/v1, and the name of spec.model."""
    cluster.apply(llm_service(namespace))
    wait_until_ready(cluster, LLM_SERVICE, namespace, "llama")
    done = person.run("llama")
    assert done.code == 0, done.err
    target = done.run.info["target"]
    assert target["base_url"].endswith(f"/{namespace}/llama/v1")
    assert target["model"] == "meta-llama/Llama-3.1-8B"
    assert target["service"]["kind"] == "LLMInferenceService"
    assert [each["name"] for each in done.run.info["metrics"]] == kserve.pods("llama")


def test_a_service_that_is_not_ready_is_not_measured(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """With what KServe says is wrong."""
    kserve.behave("qwen", Behaviour(load="fails"))
    for document in inference_service(namespace):
        cluster.apply(document)

    def failed() -> bool:
        found = cluster.get(SERVICE, namespace, "qwen") or {}
        return "lastFailureInfo" in found.get("status", {}).get("modelStatus", {})

    until(failed, "the load fails")
    done = person.run("qwen")
    assert done.code == 4
    assert (
        f"inferenceservice/qwen in namespace {namespace} is not ready: PredictorReady is"
        in done.err
    )
    assert "MinimumReplicasUnavailable" in done.err
    assert "CUDA out of memory" in done.err
    assert not (person.folder / "run").exists()


def test_a_service_that_is_scaled_to_zero_is_woken_by_the_load_alone(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """Whoever asks for its models before would warm it up."""
    kserve.behave("qwen", Behaviour(replicas=0, simulator=("--step-ms", "1")))
    scaling = Scaling(autoscaler="kpa", min_replicas=0, max_replicas=2)
    for document in inference_service(namespace, scaling=scaling, mode="knative"):
        cluster.apply(document)
    wait_until_ready(cluster, SERVICE, namespace, "qwen")
    done = person.run("qwen")
    assert done.code == 0, done.err
    assert "scaled to zero" in done.err
    info = done.run.info
    assert info["target"]["service"]["asleep"] is True
    assert info["target"]["service"]["pods"] == []
    assert info["target"]["model"] == "qwen"
    assert [(each["name"], each["late"]) for each in info["metrics"]] == [
        (kserve.pods("qwen")[0], True)
    ]
    assert done.run.summary["requests"]["ok"] == 20
    line = done.run.summary["server"]["reconciliation"]["requests"]
    assert (line["server"], line["explained"]) == (20, "They agree.")


def test_pods_that_come_and_go_in_mid_run_are_followed(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """The run goes on; a reader learns which pod left, and that its figures are of a part."""
    deploy(cluster, kserve, namespace)
    (first,) = kserve.pods("qwen")
    out = person.folder / "run"
    words = person.arguments("qwen", "--requests", "100000", "--out", out)
    with going(
        *(sys.executable, "-m", "kvswarm", "run", *words),
        cwd=person.folder,
        env=person.environment(),
    ) as started:
        run = Run(out)
        until(lambda: run.journalled() > 20, "the load goes on")
        cluster.delete(KINDS["Pod"], namespace, first)
        until(lambda: first not in kserve.pods("qwen"), "the first pod is gone")
        (second,) = wait_for_pods(kserve, "qwen", 1)
        until(lambda: run_names(out) == [first, second], "the second pod is asked")
        seen = run.journalled()
        until(lambda: run.journalled() > seen + 40, "the load goes on")
        done = started.end(signal.SIGINT)
    assert done.code == 130, done.err
    assert {each["name"]: each["late"] for each in run.info["metrics"]} == {
        first: False,
        second: True,
    }
    assert any(note.startswith(f"{first} left the service at ") for note in run.info["notes"])
    server = run.summary["server"]
    assert sum(server["replicas"][second]["requests"].values()) > 0
    assert server["window"]["whole"] is False
    assert "do not cover the window" in server["reconciliation"]["requests"]["explained"]


def run_names(out: Path) -> list[str]:
    """The pods that are asked for metrics, as far as run.json tells."""
    return [each["name"] for each in Run(out).info["metrics"]]


def test_a_name_that_is_not_there_brings_the_nearest(
    cluster: Cluster, namespace: str, person: Person
) -> None:
    """And all that are there."""
    cluster.apply(llm_service(namespace))
    cluster.apply(inference_service(namespace)[0])
    done = person.run("qwem")
    assert done.code == 4
    assert f"--service qwem: namespace {namespace} has no service of KServe" in done.err
    assert "Did you mean 'qwen'? It has: llama, qwen." in done.err
    with_kind = person.run("qwen", "--kind", "LLMInferenceService")
    assert with_kind.code == 4
    assert f"namespace {namespace} has no LLMInferenceService of that name" in with_kind.err


def test_two_services_of_one_name_need_a_kind(
    cluster: Cluster, namespace: str, person: Person
) -> None:
    """Nothing else tells which is meant."""
    cluster.apply(llm_service(namespace, "qwen"))
    cluster.apply(inference_service(namespace)[0])
    done = person.run("qwen")
    assert done.code == 2
    assert "Say which with --kind InferenceService or --kind LLMInferenceService." in done.err


def test_inside_the_cluster_service_and_pods_are_reached_at_their_own_addresses(
    cluster: Cluster, kserve: StandIn, namespace: str, person: Person
) -> None:
    """No gateway, no proxy: the host of the URL need not be known there."""
    kserve.behave("qwen", Behaviour(host="qwen.example.invalid"))
    deploy(cluster, kserve, namespace)
    lost = person.run("qwen", env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert "qwen.example.invalid has no address" in lost.err  # it is in another cluster
    done = person.run("qwen", env={"KUBERNETES_SERVICE_HOST": "127.0.0.1"})
    assert done.code == 0, done.err
    assert done.run.info["target"]["base_url"] == f"{kserve.url('qwen')}/openai/v1"
    (metrics,) = done.run.info["metrics"]
    assert metrics["url"].startswith("http://")
    assert metrics["url"].endswith("/metrics")
    assert "/proxy/" not in metrics["url"]
    assert done.run.summary["server"]["reconciliation"]["requests"]["explained"] == "They agree."


@pytest.mark.parametrize(
    ("backend", "model", "metrics"),
    [
        ("vllm-runtime", "qwen", "/metrics"),
        ("tgi", None, "/metrics"),
        ("tensorrt-llm", "models", "/prometheus/metrics"),
    ],
)
def test_every_backend_is_measured_with_its_own_words(  # noqa: PLR0913 - one case
    *,
    cluster: Cluster,
    kserve: StandIn,
    namespace: str,
    person: Person,
    backend: str,
    model: str | None,
    metrics: str,
) -> None:
    """Its base path, its model's name, its page of metrics, and counts that agree."""
    deploy(cluster, kserve, namespace, backend=backend)
    done = person.run("qwen")
    assert done.code == 0, done.err
    target = done.run.info["target"]
    assert target["service"]["backend"] == backend
    assert target["base_url"].endswith("/v1")
    assert not target["base_url"].endswith("/openai/v1")
    assert model is None or target["model"] == model
    (page,) = done.run.info["metrics"]
    assert page["url"].endswith(f"/proxy{metrics}")
    assert done.run.summary["requests"]["ok"] == 20
    assert done.run.summary["server"]["reconciliation"]["requests"]["explained"] == "They agree."
