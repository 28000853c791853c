"""The stand-in of KServe that other tests use: it does what they take for granted."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import ask
from stand_in_kserve import LLM_SERVICE, POD, SERVICE, Behaviour, StandIn

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import Kind
from kvswarm.kserve.watching import Watched, Watching

pytestmark = pytest.mark.kube
SECONDS = 30.0


def apply(cluster: Cluster, namespace: str, **changes: Any) -> None:
    for document in ask(namespace=namespace, **changes).documents:
        cluster.apply(document)


def until(cluster: Cluster, kind: Kind, namespace: str, done: Any) -> dict[str, Any]:
    """Watch until an object is as it should be."""
    last: Any = None
    with Watching(cluster, [Watched(kind=kind, namespace=namespace)]) as watching:
        while (change := watching.next(SECONDS)) is not None:
            last = change.document
            if not change.deleted and done(change.document):
                return change.document
    raise AssertionError(json.dumps(last, indent=1))


def is_ready(document: dict[str, Any]) -> bool:
    conditions = document.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - ours
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("backend", "metric"),
    [("vllm", "vllm:"), ("vllm-runtime", "vllm:"), ("tgi", "tgi_"), ("tensorrt-llm", "trtllm_")],
)
def test_a_service_becomes_ready_and_answers_as_its_runtime(
    cluster: Cluster, namespace: str, kserve: StandIn, backend: str, metric: str
) -> None:
    """At its URL, and each pod through the API server's proxy and log."""
    path = "/openai/v1/models" if backend == "vllm" else "/v1/models"
    apply(cluster, namespace, backend=backend)
    found = until(cluster, SERVICE, namespace, is_ready)
    assert found["status"]["modelStatus"]["transitionStatus"] == "UpToDate"
    assert json.loads(get(found["status"]["url"] + path))["data"]
    (name,) = kserve.pods("qwen")
    pod = cluster.get(POD, namespace, name)
    assert pod is not None
    annotations = pod["metadata"]["annotations"]
    port, page = (annotations[f"prometheus.kserve.io/{key}"] for key in ("port", "path"))
    with cluster.open_pod(namespace, name, int(port), page) as answer:
        assert metric in answer.data.decode()
    assert "Application startup complete." in cluster.logs(namespace, name, "kserve-container")


@pytest.mark.usefixtures("kserve")
def test_what_a_service_owned_goes_with_it(cluster: Cluster, namespace: str) -> None:
    """There is no garbage collector here."""
    apply(cluster, namespace)
    until(cluster, SERVICE, namespace, is_ready)
    watched = Watched(kind=POD, namespace=namespace)
    with Watching(cluster, [watched]) as watching:
        cluster.delete(SERVICE, namespace, "qwen")
        while (change := watching.next(SECONDS)) is not None:
            if change.deleted:
                return
    raise AssertionError("the pod is still there")


def test_a_pod_that_waits_goes_on_when_its_behaviour_changes(
    cluster: Cluster, namespace: str, kserve: StandIn
) -> None:
    """So a test decides when, without a clock."""
    kserve.behave("qwen", Behaviour(load="never"))
    apply(cluster, namespace)
    until(cluster, POD, namespace, lambda pod: pod["status"]["phase"] == "Running")
    assert kserve.pods("qwen") == []
    kserve.behave("qwen", Behaviour())
    until(cluster, SERVICE, namespace, is_ready)


def test_a_failed_load_is_told_as_kserve_does(
    cluster: Cluster, namespace: str, kserve: StandIn
) -> None:
    """The pod crashes, the service is blocked, and the log before the restart is there."""
    kserve.behave("qwen", Behaviour(load="fails"))
    apply(cluster, namespace)
    found = until(
        cluster,
        SERVICE,
        namespace,
        lambda each: each.get("status", {}).get("modelStatus", {}).get("lastFailureInfo"),
    )
    assert found["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    assert found["status"]["modelStatus"]["lastFailureInfo"]["exitCode"] == 1
    pod = until(cluster, POD, namespace, lambda each: "containerStatuses" in each["status"])
    lines = cluster.logs(namespace, pod["metadata"]["name"], "kserve-container", previous=True)
    assert "out of memory" in lines[-1]


def test_connections_are_spread_over_the_pods_that_are_wanted(
    cluster: Cluster, namespace: str, kserve: StandIn
) -> None:
    """And a service at zero makes its first pod for the first connection."""
    kserve.behave("qwen", Behaviour(replicas=0))
    apply(cluster, namespace)
    found = until(cluster, SERVICE, namespace, is_ready)
    assert cluster.list_all(POD, namespace)[0] == []
    get(found["status"]["url"] + "/openai/v1/models")
    assert len(kserve.pods("qwen")) == 1
    kserve.scale("qwen", 2)
    names = set()
    while len(names) < 2:
        names.add(until(cluster, POD, namespace, is_ready)["metadata"]["name"])
        names |= set(kserve.pods("qwen"))


@pytest.mark.usefixtures("kserve")
def test_an_llm_inference_service_has_its_own_conditions_and_path(
    cluster: Cluster, namespace: str
) -> None:
    """`/NAMESPACE/NAME/v1`, as its route has it."""
    cluster.apply(
        {
            "apiVersion": LLM_SERVICE.api_version,
            "kind": LLM_SERVICE.name,
            "metadata": {"name": "llama", "namespace": namespace},
            "spec": {"model": {"uri": "hf://meta/llama", "name": "meta/llama"}, "replicas": 1},
        }
    )
    found = until(cluster, LLM_SERVICE, namespace, is_ready)
    url = found["status"]["url"]
    assert url.endswith(f"/{namespace}/llama")
    assert json.loads(get(f"{url}/v1/models"))["data"][0]["id"] == "meta/llama"
