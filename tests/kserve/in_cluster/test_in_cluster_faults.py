"""What can go wrong with a run on the cluster, over a real API server."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from attended import SLOW, Stand, in_mid_run, left, result, started
from cutting_line import cutting
from kube_api_server import ApiServer
from running import KVSWARM, Run, forgiving, going, until
from stand_in_jobs import Fate, kill_tree
from stand_in_network import machine_address

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.refusals import UnreachableError
from kvswarm.kserve.watching import Watched, Watching

pytestmark = pytest.mark.kube


def test_a_worker_that_is_killed_degrades_the_run_and_ends_no_other(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """The verdict says so, and the results come all the same."""
    slow = forgiving(tmp_path, SLOW + "on_worker_loss: continue\n")
    with stand() as jobs:
        with started(tmp_path, config, namespace, target, "--profile", slow) as run:
            name = in_mid_run(jobs, tmp_path, run)
            kill_tree(jobs.process(f"{name}-workers-0"))
            done = run.end()
        until(lambda: not left(jobs), "all is taken away")
    here = result(done, tmp_path)
    assert [worker["lost"] for worker in here.info["workers"]].count(True) == 1
    assert any("lost" in reason for reason in here.summary["verdict"]["reasons"])
    assert here.summary["verdict"]["status"] != "valid"
    assert f"{name}-workers-0 ended with code" in done.err


def test_a_run_whose_starter_was_killed_can_be_fetched(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """`kill -9`, a closed laptop: the cluster has all that is needed."""
    with stand() as jobs:
        slow = forgiving(tmp_path, SLOW)
        with started(tmp_path, config, namespace, target, "--profile", slow) as run:
            name = in_mid_run(jobs, tmp_path, run)
            run.end(signal.SIGKILL)
        words = ("fetch", "--namespace", namespace, "--run", name, "--out", "mine")
        with going(*KVSWARM, *words, cwd=tmp_path, env={"KUBECONFIG": str(config)}) as fetching:
            fetched = fetching.end()
        until(lambda: not left(jobs), "all is taken away")
    assert fetched.code == 0, fetched.err
    assert len(Run(tmp_path / "mine").rows) == 200


def test_a_copy_that_breaks_off_goes_on(  # noqa: PLR0913, PLR0917 - fixtures
    stand: Stand, api: ApiServer, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Each connection to the API server is cut after some hundred kilobytes."""
    with stand() as jobs, cutting(api.port, after_bytes=300_000) as line:
        config.write_text(config.read_text().replace(f":{api.port}", f":{line.port}"))
        with started(tmp_path, config, namespace, target) as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
    assert line.cuts >= 2
    (there,) = (tmp_path / "pods").glob("*-master-0/runs/*")
    here = result(done, tmp_path)
    assert (here.path / "report.html").read_bytes() == (there / "report.html").read_bytes()


def test_a_target_that_the_pods_cannot_reach_ends_with_the_same_code_as_here(
    stand: Stand, tmp_path: Path, config: Path, namespace: str
) -> None:
    """The master's own words are told, and nothing is left."""
    nobody = f"http://{machine_address()}:9"
    with stand() as jobs:
        with started(tmp_path, config, namespace, nobody) as run:
            done = run.end()
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 4, done.err
    assert f"on the cluster: {nobody}" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs").exists()


def test_a_master_that_dies_is_told_with_the_end_of_its_log(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Its results are gone with it, unless a claim has them."""
    with stand() as jobs:
        slow = forgiving(tmp_path, SLOW)
        with started(tmp_path, config, namespace, target, "--profile", slow) as run:
            name = in_mid_run(jobs, tmp_path, run)
            kill_tree(jobs.process(f"{name}-master-0"))
            done = run.end()
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 4, done.err
    assert "the master ended with code 137 (OOMKilled)" in done.err
    assert "\n    Waiting for 2 workers" in done.err
    assert "--results-claim" in done.err


@pytest.mark.parametrize(
    ("fates", "told"),
    [
        ({"worker": Fate(pull="fails")}, "the image registry/kvswarm:1 cannot be pulled"),
        ({"master": Fate(create="quota")}, "exceeded quota"),
    ],
)
def test_pods_that_cannot_start_end_it_at_once_and_leave_nothing(  # noqa: PLR0913, PLR0917
    fates: dict[str, Fate],
    told: str,
    stand: Stand,
    tmp_path: Path,
    config: Path,
    namespace: str,
    target: str,
) -> None:
    """What the cluster says is told, and what to do about it."""
    with stand(**fates) as jobs:
        with started(tmp_path, config, namespace, target) as run:
            done = run.end()
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 4, done.err
    assert told in done.err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_not_there_cannot_be_fetched(
    api: ApiServer, tmp_path: Path, config: Path, namespace: str
) -> None:
    """Nor one that somebody else has made, which hands nothing over."""
    job = {
        "metadata": {"name": "theirs-master"},
        "spec": {
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
            }
        },
    }
    status, answer = api.ask("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", job)
    assert status == 201, answer
    for name, told in (("kvswarm-000000", "there is none"), ("theirs", "hands no results over")):
        words = ("fetch", "--namespace", namespace, "--run", name)
        with going(*KVSWARM, *words, cwd=tmp_path, env={"KUBECONFIG": str(config)}) as fetching:
            done = fetching.end()
        assert done.code == 4, done.err
        assert f"--run {name}: {told}" in done.err
    assert Cluster.connect().get(KINDS["Job"], namespace, "theirs-master") is not None


def test_results_that_cannot_be_copied_wait_and_a_spoilt_copy_begins_again(  # noqa: PLR0913, PLR0917
    stand: Stand, api: ApiServer, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Each connection breaks before it has brought anything; what brings the results is named."""
    direct = config.read_text()
    with stand() as jobs:
        with cutting(api.port, after_bytes=40_000) as line:
            config.write_text(direct.replace(f":{api.port}", f":{line.port}"))
            with started(tmp_path, config, namespace, target) as run:
                done = run.end()
        assert done.code == 4, done.err
        assert "its results are not here" in done.err
        (command,) = re.findall(r"kvswarm (fetch --namespace \S+ --run \S+)", done.err)
        config.write_text(direct)
        (there,) = (tmp_path / "pods").glob("*-master-0/runs/*")
        (tmp_path / "runs" / f".{there.name}.tar.gz").write_bytes(b"spoilt")
        with going(
            *KVSWARM, *command.split(), cwd=tmp_path, env={"KUBECONFIG": str(config)}
        ) as fetching:
            fetched = fetching.end()
        until(lambda: not left(jobs), "all is taken away")
    assert fetched.code == 0, fetched.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [there.name]
    assert (tmp_path / "runs" / there.name / "summary.json").read_bytes() == (
        there / "summary.json"
    ).read_bytes()


def test_an_answer_that_breaks_off_is_an_error_and_ends_no_watch_unheard(
    api: ApiServer, config: Path, namespace: str
) -> None:
    """A watch lists first; its thread must neither die nor leave whoever waits for it waiting."""
    big = {"metadata": {"name": "big"}, "data": {"text": "x" * 200_000}}
    status, answer = api.ask("POST", f"/api/v1/namespaces/{namespace}/configmaps", big)
    assert status == 201, answer
    with cutting(api.port, after_bytes=100_000) as line:
        config.write_text(config.read_text().replace(f":{api.port}", f":{line.port}"))
        cluster = Cluster.connect()
        with pytest.raises(UnreachableError, match="broke off"):
            cluster.get(KINDS["ConfigMap"], namespace, "big")
        watched = Watched(kind=KINDS["ConfigMap"], namespace=namespace)
        with (
            Watching(cluster, [watched], patience_s=1.0) as watching,
            pytest.raises(UnreachableError, match="broke off"),
        ):
            assert watching.next(60.0) is None
