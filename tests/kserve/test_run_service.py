"""`kvswarm run --namespace N --service S` over a real API server, with KServe's controller played."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
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
from stand_in_kserve import StandIn, cluster_of
from stand_in_pods import Behaviour

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.scaling import Scaling

pytestmark = pytest.mark.kube


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path) -> Cluster:
    """As the admin."""
    return cluster_of(api.kubeconfig(tmp_path / "admin.json"))


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    """A controller of the namespace."""
    with StandIn(cluster, namespace) as running:
        yield running


@pytest.fixture
def person(api: ApiServer, tmp_path: Path, namespace: str) -> Person:
    """Who may do anything."""
    return Person(api, tmp_path, namespace)


def deploy(cluster: Cluster, kserve: StandIn, namespace: str, replicas: int = 1, **wanted: object) -> None:
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
