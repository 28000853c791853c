"""`kvswarm deploy` over a real API server, with a stand-in of KServe: ready, or nothing left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from deploy_typed import flags, left, recorded, typed
from kube_api_server import ApiServer
from stand_in_kserve import SERVICE, StandIn, cluster_of

from kvswarm.kserve.cluster import Cluster

pytestmark = pytest.mark.kube


@pytest.fixture
def admin(api: ApiServer, tmp_path: Path) -> Path:
    """A kubeconfig of the admin."""
    return api.kubeconfig(tmp_path / "admin.json")


@pytest.fixture
def cluster(admin: Path) -> Cluster:
    return cluster_of(admin)


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    with StandIn(cluster, namespace) as playing:
        yield playing


@pytest.mark.usefixtures("kserve")
@pytest.mark.parametrize("backend", ["vllm", "vllm-runtime", "tgi", "tensorrt-llm"])
def test_a_service_is_deployed_waited_for_and_torn_down(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path, backend: str
) -> None:
    """For every backend; with its phases in deployment.json, and nothing left at the end."""
    code, out, err = typed(f"deploy {flags(namespace)} --backend {backend}", admin, tmp_path)
    assert code == 0, err
    service = cluster.get(SERVICE, namespace, "qwen")
    assert service is not None
    assert f"URL: {service['status']['url']}" in out
    assert f"kvswarm run --namespace {namespace} --service qwen" in out
    plain = recorded(tmp_path)
    assert plain["ended"] == "ready"
    phases = [plain["phases"][f"{name}_s"] for name in ("scheduled", "started", "ready")]
    assert all(value is not None for value in phases), plain["phases"]
    assert "ready" in err
    code, out, err = typed(f"teardown --namespace {namespace} --service qwen", admin, tmp_path)
    assert code == 0, err
    assert left(cluster, namespace) == []
