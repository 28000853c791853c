"""What a run on the cluster needs: a target that pods reach, a kubeconfig, and who plays the pods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from attended import Stand
from kube_api_server import ApiServer
from stand_in_jobs import Fate, StandInJobs
from stand_in_network import machine_address

from kvswarm.kserve.cluster import Cluster
from kvswarm.simulator.launch import start_simulator


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A simulator that pods can reach."""
    with start_simulator(("--host", "0.0.0.0", "--exact", "20", "2")) as simulator:  # noqa: S104
        port = simulator.url.rpartition(":")[2]
        yield f"http://{machine_address()}:{port}"


@pytest.fixture
def config(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The admin's kubeconfig, which this process uses, too."""
    path = api.kubeconfig(tmp_path / "config")
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture
def stand(api: ApiServer, namespace: str, config: Path, tmp_path: Path) -> Stand:
    """Makes the stand-in of the test's namespace."""
    assert config.exists()

    def make(**fates: Fate) -> StandInJobs:
        folder = tmp_path / "pods"
        folder.mkdir()
        return StandInJobs(api, Cluster.connect(), namespace, folder, **fates)

    return make
