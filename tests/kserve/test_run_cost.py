"""What a service of KServe cost, of a real API server: its pods ask for GPUs, its nodes say which."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kube_api_server import ApiServer
from measured_service import (
    SERVICE,
    Person,
    inference_service,
    role_for,
    wait_for_pods,
    wait_until_ready,
)
from stand_in_kserve import StandIn

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.clusters.load import load_cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.scaling import Scaling

pytestmark = pytest.mark.kube


def test_a_service_is_paid_for_by_what_its_pods_hold(
    cluster: Cluster, kserve: StandIn, namespace: str, api: ApiServer, tmp_path: Path
) -> None:
    """Two replicas of one L4: who may not get nodes has to name the GPU, who may need say nothing."""
    machine = Machine(gpus=1, cpu="4", memory="16Gi")
    for document in inference_service(namespace, scaling=Scaling(min_replicas=2), machine=machine):
        cluster.apply(document)
    wait_until_ready(cluster, SERVICE, namespace, "qwen")
    names = wait_for_pods(kserve, "qwen", 2)
    for document in role_for(namespace):
        cluster.apply(document)
    node = (cluster.get(KINDS["Pod"], namespace, names[0]) or {})["spec"]["nodeName"]
    labels = {
        "node.kubernetes.io/instance-type": "g6.2xlarge",
        "nvidia.com/gpu.product": "NVIDIA-L4",
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}
    )
    price = load_cluster("eks").gpus["l4-24gb"].nodes[0].price
    assert price is not None

    barred = Person(api, tmp_path / "barred", namespace, user="operator")
    barred.folder.mkdir()
    summary = barred.run("qwen").run.summary
    assert summary["cost"]["per_hour_usd"] is None
    assert "which: --gpu NAME" in summary["cost"]["notes"][-1]

    person = Person(api, tmp_path / "free", namespace)
    person.folder.mkdir()
    done = person.run("qwen")
    assert done.code == 0, done.err
    cost = done.run.summary["cost"]
    assert (cost["gpu"], cost["gpus_per_replica"]) == ("NVIDIA L4", 1)
    assert (cost["replicas_by"], cost["replicas_mean"]) == ("cluster", pytest.approx(2.0))
    assert cost["per_hour_usd"] == pytest.approx(2 * price.price_per_hour_usd)
    pods = done.run.info["target"]["service"]["pods"]
    assert [(pod["cpus"], pod["memory_gib"]) for pod in pods] == [(4.0, 16.0)] * 2
