"""Runs over a real API server, whose pods are processes of this machine."""

from __future__ import annotations

import base64
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from attended import SLOW, Stand, in_mid_run, left, particular, result, started
from kube_api_server import ApiServer
from running import KVSWARM, Run, forgiving, going, until
from running import run as run_here
from stand_in_jobs import Fate

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.placing import find_run
from kvswarm.kserve.refusals import NotAllowedError

pytestmark = pytest.mark.kube


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


def test_ctrl_c_ends_the_run_in_order_and_keeps_what_was_measured(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Whoever lacks the token cannot do that; nothing is left on the cluster."""
    slow = forgiving(tmp_path, SLOW)
    with stand() as jobs:
        with started(tmp_path, config, namespace, target, "--profile", slow) as run:
            name = in_mid_run(jobs, tmp_path, run)
            of = find_run(Cluster.connect(), namespace, name)
            with pytest.raises(NotAllowedError, match="the token is another one"):
                replace(of, token="0" * 64).desk(f"{name}-master-0").stop()
            done = run.end(signal.SIGINT)
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 130, done.err
    here = result(done, tmp_path)
    assert here.info["ended"] == "interrupted"
    assert 8 <= len(here.rows) < 200


def test_who_leaves_is_told_how_to_come_back_and_fetch_brings_the_results(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """A second Ctrl-C; the run has gone on, and ends as if nobody had left."""
    slow = forgiving(tmp_path, SLOW + "drain_s: 30\n")
    with stand() as jobs:
        with started(tmp_path, config, namespace, target, "--profile", slow) as run:
            name = in_mid_run(jobs, tmp_path, run)
            run.process.send_signal(signal.SIGSTOP)
            run.process.send_signal(signal.SIGINT)
            run.process.send_signal(signal.SIGTERM)
            done = run.end(signal.SIGCONT)
        assert done.code == 130, done.err
        assert f"kvswarm fetch --namespace {namespace} --run {name}" in done.err
        assert f"kubectl delete -n {namespace}" in done.err
        assert not (tmp_path / "runs").exists()
        assert f"Job/{name}-master" in left(jobs)
        words = ("fetch", "--namespace", namespace, "--run", name, "--json")
        with going(*KVSWARM, *words, cwd=tmp_path, env={"KUBECONFIG": str(config)}) as fetching:
            fetched = fetching.end()
        until(lambda: not left(jobs), "all is taken away")
    here = Run(next(each for each in (tmp_path / "runs").iterdir()))
    assert fetched.code == 0, fetched.err
    assert json.loads(fetched.out) == here.summary
    assert len(here.rows) == 200


def test_ctrl_c_before_the_pods_run_leaves_nothing(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """There is no master to tell, and nothing to keep."""
    with stand(master=Fate(schedule="fails")) as jobs:
        with started(tmp_path, config, namespace, target) as run:
            until(lambda: "not scheduled: 0/1 nodes" in run.err, "it is told what it waits for")
            done = run.end(signal.SIGINT)
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 130, done.err
    assert "nothing was measured" in done.err


def test_secrets_reach_the_pods_by_reference_and_are_written_nowhere(
    stand: Stand, api: ApiServer, tmp_path: Path, config: Path, namespace: str
) -> None:
    """A key from a Secret of the namespace, and a header of the command line."""
    secret = {"metadata": {"name": "keys"}, "data": {"k": base64.b64encode(b"key-0815").decode()}}
    status, answer = api.ask("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert status == 201, answer
    with stand() as jobs, particular("Bearer key-0815", "tenant-4711") as url:
        words = ("--api-key-env", "LLM_KEY", "--secret-env", "LLM_KEY=keys/k")
        header = ("--header", "X-Tenant: tenant-4711")
        with started(tmp_path, config, namespace, url, *words, *header) as run:
            done = run.end()
        assert done.code == 0, done.err
        for job in jobs.jobs.values():
            assert "key-0815" not in json.dumps(job)
            assert "tenant-4711" not in json.dumps(job)
    here = result(done, tmp_path)
    assert here.summary["requests"]["ok"] == 20
    for path in here.path.iterdir():
        assert b"key-0815" not in path.read_bytes()
        assert b"tenant-4711" not in path.read_bytes()


def test_a_claim_keeps_the_results_and_has_the_prompts(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """What is too large for a ConfigMap is read from a volume; the results are there and here."""
    data, kept = tmp_path / "pods" / "data", tmp_path / "pods" / "kept"
    with stand() as jobs:
        data.mkdir()
        (data / "rows.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
        words = ("--data-claim", "data", "--results-claim", "kept")
        more = ("--set", "prompts=/data/rows.jsonl")
        with started(tmp_path, config, namespace, target, *words, *more) as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
    here = result(done, tmp_path)
    assert (kept / here.path.name / "summary.json").read_bytes() == (
        here.path / "summary.json"
    ).read_bytes()
    assert here.info["profile"]["prompt"]["prompts_file"].endswith("/rows.jsonl")


def test_a_run_on_the_cluster_is_compared_with_one_from_here(
    stand: Stand, tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """The same profile and seed are the same workload, wherever it is made."""
    profile = forgiving(tmp_path)
    local = run_here(tmp_path / "before", "--profile", profile, "--url", target)
    assert local.code == 0, local.err
    with stand() as jobs:
        words = ("--baseline", tmp_path / "before", "--profile", profile)
        with started(tmp_path, config, namespace, target, *words) as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
    here = result(done, tmp_path)
    assert {effect["figure"] for effect in here.summary["baseline"]["effects"]} >= {"ttft_ms"}


def test_a_baseline_is_not_taken_where_the_profile_names_files(
    tmp_path: Path, config: Path, namespace: str, target: str
) -> None:
    """Their paths are others there: better told before the run than after it."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "one"}\n')
    profile = forgiving(tmp_path, "prompts: ./rows.jsonl\ninput_tokens: null")
    local = run_here(tmp_path / "before", "--profile", profile, "--url", target)
    assert local.code == 0, local.err
    words = ("--baseline", tmp_path / "before", "--profile", profile)
    with started(tmp_path, config, namespace, target, *words) as refused:
        done = refused.end()
    assert done.code == 2, done.err
    assert "the profile names files" in done.err
