"""`kvswarm run --in-cluster` over a real API server; pods are processes of this machine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from kube_api_server import ApiServer
from running import KVSWARM, Done, Going, Run, forgiving, free_port, going, until
from stand_in_jobs import Fate, StandInJobs, machine_address

from kvswarm.kserve.cluster import Cluster
from kvswarm.simulator.launch import start_simulator

pytestmark = pytest.mark.kube

Stand = Callable[..., contextlib.AbstractContextManager[StandInJobs]]


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


def started(
    tmp_path: Path, config: Path, namespace: str, url: str, *more: str | Path
) -> contextlib.AbstractContextManager[Going]:
    """`kvswarm run --in-cluster` with two workers."""
    profile = () if "--profile" in more else ("--profile", forgiving(tmp_path))
    return going(
        *KVSWARM, "run", "--in-cluster", "--namespace", namespace, "--workers", "2",
        "--image", "registry/kvswarm:1", "--url", url, *profile,
        "--master-bind-port", str(free_port()), "--hand-over", str(free_port()), *more,
        cwd=tmp_path, env={"KUBECONFIG": str(config)},
    )  # fmt: skip


def left(jobs: StandInJobs) -> list[str]:
    """What of a run is left in the namespace."""
    kinds = ("Job", "Pod", "Service", "Secret", "ConfigMap", "NetworkPolicy", "Role")
    return [
        f"{kind}/{name}" for kind in kinds for name in jobs.names(kind) if name.startswith("kvsw")
    ]


def result(done: Done, folder: Path) -> Run:
    """The only run directory here."""
    (path,) = [each for each in (folder / "runs").iterdir() if not each.name.startswith(".")]
    assert str(path.name) in done.out + done.err
    return Run(path)


def test_a_run_on_the_cluster_ends_up_here(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Its directory as the master wrote it, its table, its exit code, and nothing left there."""
    with stand() as jobs:
        with started(tmp_path, config, namespace, target) as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
    here = result(done, tmp_path)
    (there,) = (tmp_path / "pods").glob("*-master-0/runs/*")
    assert here.path.name == there.name
    files = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*.*")}
    assert {str(p.relative_to(here.path)): p.read_bytes() for p in here.path.rglob("*.*")} == files
    assert len(here.rows) == 20
    assert {worker["worker"] for worker in here.info["workers"]} == {0, 1}
    assert "TTFT" in done.out
    assert "workers: 2 of 2 running" in done.err
    assert "requests" in done.err  # the master's own lines
