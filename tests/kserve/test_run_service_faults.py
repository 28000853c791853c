"""`kvswarm run --service` with rights that are lacking, an API server that goes, tokens, workers."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import ASSETS, define_kserve
from gateways import Gateway, authority_file
from kube_api_server import ApiServer, api_server, free_port
from measured_service import (
    SERVICE,
    Person,
    inference_service,
    role_for,
    wait_for_pods,
    wait_until_ready,
)
from running import Run, going, until
from stand_in_kserve import StandIn, cluster_of
from stand_in_pods import Behaviour

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.scaling import Scaling

pytestmark = pytest.mark.kube


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    """A controller of the namespace, with a service that is ready."""
    with StandIn(cluster, namespace) as running:
        deploy(cluster, running, namespace)
        yield running


@pytest.fixture
def operator(api: ApiServer, tmp_path: Path, namespace: str) -> Person:
    """Who may do what a role says."""
    return Person(api, tmp_path, namespace, user="operator")


def deploy(cluster: Cluster, kserve: StandIn, namespace: str) -> None:
    for document in inference_service(namespace):
        cluster.apply(document)
    wait_until_ready(cluster, SERVICE, namespace, "qwen")
    wait_for_pods(kserve, "qwen", 1)


def bind(cluster: Cluster, namespace: str, *, without: str | None = None) -> None:
    for document in role_for(namespace, without=without):
        cluster.apply(document)


def test_the_role_is_all_that_a_run_needs(
    cluster: Cluster, kserve: StandIn, namespace: str, operator: Person
) -> None:
    """Nothing of it is for the whole cluster."""
    bind(cluster, namespace)
    assert "Did you mean 'qwen'?" in operator.run("qwem").err
    done = operator.run("qwen")
    assert done.code == 0, done.err
    assert done.run.summary["server"]["reconciliation"]["requests"]["explained"] == "They agree."
    assert [each["name"] for each in done.run.info["metrics"]] == kserve.pods("qwen")


@pytest.mark.parametrize("resource", ["pods/proxy", "pods"])
def test_without_a_right_to_pods_the_run_goes_on_and_names_the_rule(
    cluster: Cluster,
    kserve: StandIn,  # noqa: ARG001 - it serves
    namespace: str,
    operator: Person,
    resource: str,
) -> None:
    """Their metrics are missing; the load is what it would be."""
    bind(cluster, namespace, without=resource)
    done = operator.run("qwen")
    assert done.code == 0, done.err
    assert done.run.summary["requests"]["ok"] == 20
    rule = f"resources: ['{resource}']"
    assert rule in done.err
    assert any(rule in note for note in done.run.info["notes"])


def test_a_right_that_is_missing_is_named_though_no_pod_was_there_to_try_it(
    cluster: Cluster, kserve: StandIn, namespace: str, operator: Person
) -> None:
    """A service that sleeps has its first pod in mid-run."""
    bind(cluster, namespace, without="pods/proxy")
    kserve.behave("cold", Behaviour(replicas=0))
    scaling = Scaling(autoscaler="kpa", min_replicas=0, max_replicas=2)
    for document in inference_service(namespace, "cold", scaling=scaling, mode="knative"):
        cluster.apply(document)
    wait_until_ready(cluster, SERVICE, namespace, "cold")
    done = operator.run("cold")
    assert done.code == 0, done.err
    assert any("resources: ['pods/proxy']" in note for note in done.run.info["notes"])


def test_without_a_right_to_the_service_there_is_no_run(
    cluster: Cluster,
    kserve: StandIn,  # noqa: ARG001 - it serves
    namespace: str,
    operator: Person,
) -> None:
    """The rule is named."""
    bind(cluster, namespace, without="inferenceservices")
    done = operator.run("qwen")
    assert done.code == 4
    assert "resources: ['inferenceservices'], verbs: ['get']" in done.err


def test_a_run_goes_on_without_its_api_server(tmp_path: Path) -> None:
    """The load needs none; its pods' last pages are missing, and the run says so."""
    if ASSETS is None:
        pytest.skip(
            "KUBEBUILDER_ASSETS is unset: it names a directory with kube-apiserver and etcd"
        )
    with api_server(Path(ASSETS), tmp_path) as api:
        define_kserve(api)
        person = Person(api, tmp_path, "llm")
        cluster = cluster_of(api.kubeconfig(tmp_path / "admin.json"))
        kserve = StandIn(cluster, "llm")
        kserve.__enter__()
        deploy(cluster, kserve, "llm")
        out = tmp_path / "run"
        words = person.arguments("qwen", "--requests", "100000", "--out", out)
        started = going(
            *(sys.executable, "-m", "kvswarm", "run", *words),
            cwd=tmp_path,
            env=person.environment(),
        )
        running = started.__enter__()
        run = Run(out)
        until(lambda: run.journalled() > 20, "the load goes on")
    seen = run.journalled()
    until(lambda: run.journalled() > seen + 100, "the load goes on")
    done = running.end(signal.SIGINT)
    kserve.__exit__()
    started.__exit__(None, None, None)
    assert done.code == 130, done.err
    assert run.summary["requests"]["failed"] == 0
    assert any("pages missing" in note for note in run.info["notes"])


def test_the_kubeconfigs_token_goes_to_the_service_and_into_no_file(
    cluster: Cluster, kserve: StandIn, namespace: str, operator: Person, api: ApiServer
) -> None:
    """Over https alone, unless told."""
    bind(cluster, namespace)
    token = f"operator-{api.token}"
    kserve.behave("qwen", Behaviour(host="qwen.example.invalid"))
    until(lambda: host_of(cluster, namespace) == "http://qwen.example.invalid", "it has a host")
    authority, trusted = authority_file(operator.folder)
    port = int(kserve.url("qwen").rpartition(":")[2])
    with Gateway({"qwen.example.invalid": port}) as gateway:
        plain = operator.run("qwen", "--gateway", gateway.url, "--token-from-kubeconfig")
        assert plain.code == 2
        assert "is not https" in plain.err
        assert gateway.seen == []
    with Gateway({"qwen.example.invalid": port}, authority) as gateway:
        given = ("--gateway", gateway.url, "--ca-file", trusted, "--token-from-kubeconfig")
        done = operator.run("qwen", *given)
    assert done.code == 0, done.err
    assert {head["authorization"] for head in gateway.heads} == {f"Bearer {token}"}
    for path in (operator.folder / "run").rglob("*"):
        assert token.encode() not in path.read_bytes(), path
    assert token not in done.err + done.out


def host_of(cluster: Cluster, namespace: str) -> str | None:
    found = cluster.get(SERVICE, namespace, "qwen") or {}
    url: str | None = found.get("status", {}).get("url")
    return url


def test_a_sweep_measures_the_service_once_for_each_value(
    cluster: Cluster, kserve: StandIn, namespace: str, operator: Person
) -> None:
    """Each of its runs has the pods' metrics."""
    bind(cluster, namespace)
    done = operator.run("qwen", "--sweep", "max_tokens=4,8")
    assert done.code == 0, done.err
    swept = json.loads((operator.folder / "run" / "sweep.json").read_text())
    assert swept["target"] == f"service qwen in namespace {namespace}"
    assert any("of --service was not started anew" in note for note in swept["notes"])
    for value in ("4", "8"):
        metrics = Run(operator.folder / "run" / value).info["metrics"]
        assert [each["name"] for each in metrics] == kserve.pods("qwen")
    of_server = operator.run("qwen", "--sweep", "vllm_features.max_num_seqs=4,8")
    assert of_server.code == 2
    assert "the one of --service runs already" in of_server.err


def test_workers_of_a_master_are_told_where_to_go(
    cluster: Cluster, kserve: StandIn, namespace: str, operator: Person
) -> None:
    """They have neither kubeconfig nor flags: the gateway comes from the master."""
    bind(cluster, namespace)
    kserve.behave("qwen", Behaviour(host="qwen.example.invalid"))
    until(lambda: host_of(cluster, namespace) == "http://qwen.example.invalid", "it has a host")
    port, out = free_port(), operator.folder / "run"
    listen = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port))
    with Gateway({"qwen.example.invalid": int(kserve.url("qwen").rpartition(":")[2])}) as gateway:
        words = operator.arguments("qwen", *listen, "--gateway", gateway.url, "--out", out)
        (operator.folder / "worker").mkdir()
        with (
            going(
                *(sys.executable, "-m", "kvswarm", "run", *words),
                cwd=operator.folder,
                env=operator.environment(),
            ) as master,
            going(
                *(sys.executable, "-m", "kvswarm", "worker", "--master-host", "127.0.0.1"),
                *("--master-port", str(port)),
                cwd=operator.folder / "worker",
            ) as worker,
        ):
            done = master.end()
            worker.end()
    assert done.code == 0, done.err
    assert {name for _, name in gateway.seen} == {"qwen.example.invalid"}
    assert Run(out).summary["requests"]["ok"] == 20
    told = Run(out).summary["server"]["reconciliation"]["requests"]
    assert told["explained"] == "They agree."
