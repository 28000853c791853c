"""Cold starts over a real API server: what is recorded of the pods, and what a run makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from kserve_manifests import ask
from kube_api_server import ApiServer, free_port
from running import KVSWARM, Done, Run, forgiving, going, kvswarm, run, until
from stand_in_kserve import StandIn, cluster_of
from stand_in_pods import Behaviour

from kvswarm.clusterlog import (
    AwayEntry,
    ClockEntry,
    Log,
    NoteEntry,
    PodEntry,
    ServiceEntry,
    WantedEntry,
    read_log,
)
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.timeline import Followed, Timeline
from kvswarm.simulator.launch import start_simulator

pytestmark = pytest.mark.kube
LABELS = "serving.kserve.io/inferenceservice=qwen,component=predictor"
SERVICE, POD = KINDS["InferenceService"], KINDS["Pod"]
ARRIVALS = """\
pattern: constant
concurrency: null
rate_rps: 20
requests: 120
slo: {ttft_ms: 500}
"""


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    """A controller of the namespace, whose pods take a step every 0.1 s."""
    with StandIn(cluster, namespace, Behaviour(replicas=0, pace_s=0.1)) as playing:
        yield playing


def apply(cluster: Cluster, namespace: str, **wanted: Any) -> None:
    """A service that can be scaled to zero, as `kvswarm manifest` writes it."""
    asleep = {
        "mode": "knative",
        "scaling": Scaling(autoscaler="kpa", min_replicas=0, max_replicas=3),
    }
    for document in ask(namespace=namespace, **{**asleep, **wanted}).documents:
        cluster.apply(document)


def deploy(cluster: Cluster, namespace: str, **wanted: Any) -> None:
    """The same, and wait until its controller says that it is ready."""
    apply(cluster, namespace, **wanted)
    until(lambda: is_ready(cluster, namespace), "the service is ready")


def is_ready(cluster: Cluster, namespace: str) -> bool:
    found = cluster.get(SERVICE, namespace, "qwen") or {}
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def followed(namespace: str) -> Followed:
    return Followed(namespace=namespace, service="qwen", labels=LABELS)


def entries(path: Path, kind: type[Any]) -> list[Any]:
    """What is in the log so far, of one kind."""
    log = read_log(path) or Log()
    return [each for each in log.entries if isinstance(each, kind)]


def silent(_text: str) -> None:
    """For who wants to be told nothing."""


def command(api: ApiServer, folder: Path, namespace: str, *more: str, user: str = "admin") -> Any:
    """Arguments and environment of a run of `forgiving`, with ARRIVALS in its place."""
    kubeconfig = api.kubeconfig(folder / f"{user}.kubeconfig", user=user)
    arguments = ["--profile", forgiving(folder, ARRIVALS), "--namespace", namespace]
    return [*arguments, "--service", "qwen", *more], {"KUBECONFIG": str(kubeconfig)}


def run_service(
    api: ApiServer, folder: Path, namespace: str, *more: str, user: str = "admin"
) -> Done:
    """`kvswarm run --service` to its end."""
    arguments, env = command(api, folder, namespace, *more, user=user)
    return run(folder / "run", *arguments, env=env)


# -- the recorder ----------------------------------------------------------------------------


def test_each_step_of_each_pod_is_a_line_as_it_comes(
    cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """In their order, once each, with the pod's own stamps beside the moment at which it was seen."""
    path = tmp_path / "cluster.jsonl"
    deploy(cluster, namespace)
    with Timeline(cluster, followed(namespace), path, pytest.fail):
        kserve.scale("qwen", 1)
        until(lambda: any(pod.ready for pod in entries(path, PodEntry)), "a ready pod is written")
        kserve.scale("qwen", 0)
        until(lambda: any(pod.deleted for pod in entries(path, PodEntry)), "its end is written")
    pods = entries(path, PodEntry)
    assert [pod.time_ns for pod in pods] == sorted(pod.time_ns for pod in pods)
    steps = ("scheduled_ns", "initialized_ns", "started_ns", "ready_ns")
    reached = [sum(getattr(pod, step) is not None for step in steps) for pod in pods]
    assert set(reached) == {0, 1, 2, 3, 4}
    assert reached == sorted(reached)
    assert not any(pod.listed for pod in pods)
    for step in steps:
        first = next(pod for pod in pods if getattr(pod, step) is not None)
        assert 0 <= first.time_ns - getattr(first, step) < 3e9
    assert pods[0].node is None
    assert pods[-1].node is not None
    (service, *_), wanted = entries(path, ServiceEntry), entries(path, WantedEntry)
    assert (service.pods_known, service.wanted_known) == (True, True)
    assert [each.replicas for each in wanted] == [0, 1, 0]
    assert entries(path, ClockEntry)[-1].least_ns <= 0 <= entries(path, ClockEntry)[-1].most_ns


def test_what_was_there_before_is_listed(
    cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Its moments are its own stamps, not that of the listing."""
    path = tmp_path / "cluster.jsonl"
    deploy(cluster, namespace)
    kserve.scale("qwen", 1)
    until(lambda: bool(kserve.pods("qwen")), "the pod is ready")
    with Timeline(cluster, followed(namespace), path, pytest.fail):
        (pod,) = entries(path, PodEntry)
    assert pod.listed
    assert pod.ready
    assert pod.ready_ns <= pod.time_ns


class Proxy:
    """A TCP proxy before the API server that can be cut, and refuses then."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = free_port()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.resume()

    def resume(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections and take none."""
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._open += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """One way, until it ends."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    source.close()


# urllib3 leaves the socket of a TLS connection that was cut to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_an_api_server_that_was_away_costs_only_the_moments_of_that_time(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Changes are told late, with a line that says so; nothing ends, nothing is told twice."""
    proxy = Proxy(api.port)
    config = api.kubeconfig(tmp_path / "cut.json")
    config.write_text(config.read_text().replace(f":{api.port}", f":{proxy.port}"))
    path = tmp_path / "cluster.jsonl"
    said: list[str] = []
    deploy(cluster, namespace)
    with Timeline(cluster_of(config), followed(namespace), path, said.append):
        until(lambda: len(entries(path, WantedEntry)) == 1, "it has begun")
        proxy.cut()
        until(lambda: bool(said), "it is told that the API server is away")
        kserve.scale("qwen", 1)
        until(lambda: bool(kserve.pods("qwen")), "a pod got ready meanwhile")
        assert entries(path, PodEntry) == []
        proxy.resume()
        until(lambda: any(pod.ready for pod in entries(path, PodEntry)), "the pod is written")
        until(lambda: bool(entries(path, AwayEntry)), "the absence is written")
    (away,) = entries(path, AwayEntry)
    ready = next(pod for pod in entries(path, PodEntry) if pod.ready)
    assert away.since_ns < ready.ready_ns + 1e9
    assert ready.ready_ns < ready.time_ns
    assert len(said) == 1
    proxy.cut()


def test_a_right_that_is_lacking_is_a_note_with_the_rule(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Without the deployments the pods are followed all the same."""
    allow(api, namespace, "operator", {"": ["pods"]})
    restricted = cluster_of(api.kubeconfig(tmp_path / "operator.json", user="operator"))
    path = tmp_path / "cluster.jsonl"
    said: list[str] = []
    deploy(cluster, namespace)
    with Timeline(restricted, followed(namespace), path, said.append):
        kserve.scale("qwen", 1)
        until(lambda: any(pod.ready for pod in entries(path, PodEntry)), "a ready pod is written")
    (service,) = entries(path, ServiceEntry)
    assert (service.pods_known, service.wanted_known) == (True, False)
    (note,) = entries(path, NoteEntry)
    assert "resources: ['deployments'], verbs: ['list']" in note.text
    assert said == [note.text]


def test_pods_that_may_be_listed_and_not_watched_are_not_believed(
    api: ApiServer, namespace: str, tmp_path: Path
) -> None:
    """They would stand still in the log."""
    allow(api, namespace, "operator", {"": ["pods"]}, verbs=("list",))
    restricted = cluster_of(api.kubeconfig(tmp_path / "operator.json", user="operator"))
    path = tmp_path / "cluster.jsonl"
    with Timeline(restricted, followed(namespace), path, silent):
        until(lambda: len(entries(path, ServiceEntry)) > 1, "the watch was refused")
    assert [each.pods_known for each in entries(path, ServiceEntry)] == [True, False]
    assert "verbs: ['watch']" in entries(path, NoteEntry)[-1].text


def allow(
    api: ApiServer,
    namespace: str,
    user: str,
    resources: dict[str, list[str]],
    verbs: tuple[str, ...] = ("get", "list", "watch"),
) -> None:
    """A Role for a user, and for nobody else in this namespace."""
    rules = [
        {"apiGroups": [group], "resources": names, "verbs": list(verbs)}
        for group, names in resources.items()
    ]
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    status, answer = api.ask("POST", f"{root}/roles", {"metadata": {"name": user}, "rules": rules})
    assert status == 201, answer
    binding = {
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    status, answer = api.ask("POST", f"{root}/rolebindings", binding)
    assert status == 201, answer


# -- runs ------------------------------------------------------------------------------------


def test_a_cold_run_wakes_the_service_with_its_first_request_and_not_before(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Requests are held as Knative holds them; each that came before the first ready pod is cold.

    It is paid for from when its pod has a node, by what its document says of that.
    """
    deploy(cluster, namespace)
    done = run_service(api, tmp_path, namespace, "--cold", "--gpu", "l4", "--cloud", "eks")
    assert done.code == 0, done.err
    section, rows = done.run.summary["replicas"], done.run.rows
    assert "the first request wakes it" in done.err
    assert done.run.info["target"]["service"]["asleep"] is True
    assert done.run.info["target"]["model"] == "qwen"
    (pod,) = section["pods"]
    assert pod["created_s"] > 0
    assert pod["pod"] == kserve.pods("qwen")[0]
    steps = [
        pod[f"{step}_s"] for step in ("created", "scheduled", "initialized", "started", "ready")
    ]
    assert steps == sorted(steps)
    assert pod["stamped"] == []
    first_s = section["time_to_first_ready_s"]
    assert first_s == pod["ready_s"]
    begun_ns = min(row["intended_ns"] for row in rows)
    cold = [row for row in rows if row["intended_ns"] < begun_ns + first_s * 1e9]
    assert section["requests"]["cold"]["sent"] == len(cold) > 5
    assert section["requests"]["warm"]["sent"] == 120 - len(cold)
    assert section["requests"]["cold"]["ok"] == len(cold)
    (up,) = section["scale_ups"]
    assert (up["from_replicas"], up["to_replicas"]) == (0, 1)
    assert up["all_ready_s"] == first_s
    assert section["cold_multiplier"]["low"] > 1
    assert 0 < section["slo_recovered_s"] <= first_s + 2
    assert "Cold start and scaling" in (done.run.path / "report.html").read_text()
    assert "no replica was ready at first" in done.out
    cost = done.run.summary["cost"]
    assert (cost["gpu"], cost["gpus_per_replica"]) == ("NVIDIA L4", 1)
    assert cost["replicas_by"] == "cluster"
    window_h = cost["replica_hours"] / cost["replicas_mean"]
    assert 0 < window_h * 3600 - cost["replica_hours"] * 3600 <= pod["scheduled_s"]
    assert cost["window_usd"] == pytest.approx(cost["gpu_hour_usd"] * cost["replica_hours"])


def test_cold_waits_until_the_service_has_no_pods(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """A warm service gives no cold start, and is not called one."""
    deploy(cluster, namespace)
    kserve.scale("qwen", 1)
    until(lambda: bool(kserve.pods("qwen")), "the pod is ready")
    name = kserve.pods("qwen")[0]
    done = run_service(api, tmp_path, namespace, "--cold", "--cold-timeout", "0.5")
    assert done.code == 4
    assert f"after 0.5 s qwen in namespace {namespace} still has pod {name}" in done.err
    assert not (tmp_path / "run").exists()
    arguments, env = command(api, tmp_path, namespace, "--cold", "--out", str(tmp_path / "run"))
    with going(*KVSWARM, "run", *arguments, cwd=tmp_path, env=env) as started:
        until(lambda: f"waiting until it is scaled to zero: pod {name}" in started.err, "it waits")
        kserve.scale("qwen", 0)
        assert started.end().code == 0
    (pod,) = Run(tmp_path / "run").summary["replicas"]["pods"]
    assert pod["pod"] != name


def test_cold_refuses_a_service_that_never_sleeps(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Ten minutes would not make it do so."""
    kserve.behave("qwen", Behaviour())
    deploy(cluster, namespace, mode="standard", scaling=Scaling())
    done = run_service(api, tmp_path, namespace, "--cold")
    assert done.code == 4
    assert "is never scaled to zero" in done.err
    assert "--min-replicas 0" in done.err


def test_a_scale_up_in_mid_run_is_told_with_the_requests_of_that_time(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """From one pod to two: the first was there before and is found, the second is seen."""
    kserve.behave("qwen", Behaviour(pace_s=0.1))
    deploy(cluster, namespace)
    out = tmp_path / "run"
    arguments, env = command(api, tmp_path, namespace, "--out", str(out))
    with going(*KVSWARM, "run", *arguments, cwd=tmp_path, env=env) as started:
        until(lambda: Run(out).journalled() > 10, "the load goes on")
        kserve.scale("qwen", 2)
        assert started.end().code == 0
    section = Run(out).summary["replicas"]
    (up,) = section["scale_ups"]
    assert (up["from_replicas"], up["to_replicas"]) == (1, 2)
    assert section["time_to_first_ready_s"] is None
    assert section["requests"]["cold"]["sent"] == 0
    assert section["requests"]["scaling"]["sent"] > 0
    old, new = section["pods"]
    assert "ready" in old["stamped"]
    assert new["stamped"] == []
    assert up["all_ready_s"] == pytest.approx(new["ready_s"] - up["rise_s"])


def test_a_killed_run_keeps_what_was_recorded(
    api: ApiServer, cluster: Cluster, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """`kill -9` of kvswarm run; `kvswarm report` makes the figures of what is there."""
    deploy(cluster, namespace)
    out = tmp_path / "run"
    arguments, env = command(api, tmp_path, namespace, "--cold", "--out", str(out))
    with going(*KVSWARM, "run", *arguments, cwd=tmp_path, env=env) as started:
        until(lambda: Run(out).journalled() > 40, "requests are answered")
        os.kill(started.process.pid, signal.SIGKILL)
        started.process.wait()
    until(lambda: kvswarm("report", out, cwd=tmp_path).code != 2, "the load has seen it")
    section = Run(out).summary["replicas"]
    assert section["time_to_first_ready_s"] > 0
    assert section["requests"]["cold"]["sent"] > 0
    assert section["pods"][0]["pod"] == kserve.pods("qwen")[0]


def test_a_server_that_refuses_until_it_is_there_is_timed_right(
    api: ApiServer, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """No stand-in: the pod and the service's status are set by hand, at moments that are known."""
    port = free_port()
    apply(cluster, namespace)
    url = f"http://127.0.0.1:{port}"
    ready = [{"type": "Ready", "status": "True"}]
    status = {"conditions": ready, "url": url, "address": {"url": url}}
    set_status(api, f"{SERVICE.path(namespace, 'qwen')}/status", status)
    out = tmp_path / "run"
    arguments, env = command(api, tmp_path, namespace, "--cold", "--out", str(out))
    with going(*KVSWARM, "run", *arguments, cwd=tmp_path, env=env) as started:
        until(lambda: Run(out).journalled() > 10, "requests are refused")
        pod = make_pod(api, namespace)
        words = ["--port", str(port), "--base-path", "/openai", "--model", "qwen"]
        with start_simulator(tuple(words)):
            ready_ns = time.time_ns()
            status = {
                "phase": "Running",
                "conditions": [{**ready[0], "lastTransitionTime": stamp()}],
            }
            set_status(api, f"{POD.path(namespace, pod)}/status", status)
            done = started.end()
    assert done.code in {0, 1}, done.err
    section, rows = Run(out).summary["replicas"], Run(out).rows
    begun_ns = min(row["intended_ns"] for row in rows)
    assert section["time_to_first_ready_s"] == pytest.approx((ready_ns - begun_ns) / 1e9, abs=1.0)
    cold, warm = section["requests"]["cold"], section["requests"]["warm"]
    refused = sum(row["error_kind"] == "connect" for row in rows)
    assert refused > 10
    assert round(cold["error_share"] * cold["sent"]) == refused
    assert (warm["error_share"], warm["sent"] > 0) == (0.0, True)


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def set_status(api: ApiServer, path: str, status: dict[str, Any]) -> None:
    code, answer = api.ask("PATCH", path, {"status": status}, "application/merge-patch+json")
    assert code == 200, answer


def make_pod(api: ApiServer, namespace: str) -> str:
    """One that no controller knows of."""
    labels = dict(pair.split("=") for pair in LABELS.split(","))
    container = {"name": "kserve-container", "image": "vllm/vllm-openai"}
    pod = {"metadata": {"name": "by-hand", "labels": labels}, "spec": {"containers": [container]}}
    code, answer = api.ask("POST", POD.path(namespace), pod)
    assert code == 201, answer
    return "by-hand"


def test_cold_goes_with_a_service_and_its_timeout_with_it(tmp_path: Path) -> None:
    """A flag that does nothing would be believed."""
    alone = kvswarm("run", "--cold", cwd=tmp_path)
    assert (alone.code, "there is no --service that it is of" in alone.err) == (2, True)
    lone = kvswarm("run", "--namespace", "a", "--service", "b", "--cold-timeout", "5", cwd=tmp_path)
    assert (lone.code, "--cold-timeout: goes with --cold" in lone.err) == (2, True)
