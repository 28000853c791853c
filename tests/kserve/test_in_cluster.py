"""`kvswarm run --in-cluster` over a real API server; pods are processes of this machine."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from cutting_line import cutting
from kube_api_server import ApiServer
from measured_service import inference_service, wait_for_pods, wait_until_ready
from running import KVSWARM, Done, Going, Run, forgiving, free_port, going, until
from running import run as run_here
from stand_in_jobs import Fate, StandInJobs, kill_tree
from stand_in_kserve import StandIn
from stand_in_network import machine_address

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.placing import find_run
from kvswarm.kserve.refusals import NotAllowedError
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
    tmp_path: Path, config: Path, namespace: str, url: str | None, *more: str | Path
) -> contextlib.AbstractContextManager[Going]:
    """`kvswarm run --in-cluster` with two workers."""
    profile = () if "--profile" in more else ("--profile", forgiving(tmp_path))
    return going(
        *KVSWARM, "run", "--in-cluster", "--namespace", namespace, "--workers", "2",
        "--image", "registry/kvswarm:1", *(("--url", url) if url else ()), *profile,
        "--master-bind-port", str(free_port()), "--hand-over", str(free_port()), *more,
        cwd=tmp_path, env={"KUBECONFIG": str(config)},
    )  # fmt: skip


def left(jobs: StandInJobs) -> list[str]:
    """What of a run is left in the namespace."""
    kinds = ("Job", "Pod", "Service", "Secret", "ConfigMap", "NetworkPolicy", "Role")
    of_runs = re.compile(r"kvswarm-[0-9a-f]{6}\b")
    return [f"{kind}/{name}" for kind in kinds for name in jobs.names(kind) if of_runs.match(name)]


class Particular(http.server.BaseHTTPRequestHandler):
    """Answers those alone who have the key and the header."""

    protocol_version = "HTTP/1.1"
    key = tenant = ""

    def do_GET(self) -> None:
        self._answer(b'{"data": [{"id": "m"}]}', "application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        delta = {"choices": [{"delta": {"content": " a"}}]}
        last = {"choices": [{"delta": {}, "finish_reason": "length"}]}
        events = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in (delta, last))
        self._answer(events + b"data: [DONE]\n\n", "text/event-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        known = (
            self.headers["Authorization"] == self.key and self.headers["X-Tenant"] == self.tenant
        )
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def particular(key: str, tenant: str) -> Iterator[str]:
    """Such a server, where pods can reach it."""
    handler = type("Handler", (Particular,), {"key": key, "tenant": tenant})
    with http.server.ThreadingHTTPServer((machine_address(), 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{machine_address()}:{server.server_port}"
        server.shutdown()
        thread.join()


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


SLOW = "requests: 200\nconcurrency: 4\nmax_tokens: 40\n"
"""A run that takes long enough to do something to it."""


def in_mid_run(jobs: StandInJobs, tmp_path: Path, run: Going) -> str:
    """Wait until requests have been written down; give the run's name."""

    def begun() -> bool:
        assert run.process.poll() is None, run.err
        found = list((tmp_path / "pods").glob("*-master-0/runs/*"))
        return bool(found) and Run(found[0]).journalled() >= 8

    until(begun, "in mid-run")
    (name,) = [job.removesuffix("-master") for job in jobs.jobs if job.endswith("-master")]
    return name


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


def test_a_service_is_found_from_within_with_the_rights_of_the_runs_own_role(
    stand: Stand, tmp_path: Path, config: Path, namespace: str
) -> None:
    """The master asks as the account that was made for it; its pods' metrics are there."""
    cluster = Cluster.connect()
    with StandIn(cluster, namespace) as kserve, stand() as jobs:
        for document in inference_service(namespace):
            cluster.apply(document)
        wait_until_ready(cluster, KINDS["InferenceService"], namespace, "qwen")
        wait_for_pods(kserve, "qwen", 1)
        with started(tmp_path, config, namespace, None, "--service", "qwen") as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
        assert not {"ServiceAccount", "RoleBinding"} & {
            kind for kind in ("ServiceAccount", "RoleBinding") if jobs.names(kind)
        }
    here = result(done, tmp_path)
    assert here.info["target"]["service"]["name"] == "qwen"
    (metrics,) = here.info["metrics"]
    assert metrics["name"].startswith("qwen-predictor")
    assert here.summary["server"]["reconciliation"]["requests"]["explained"] == "They agree."


ROLE = Path(__file__).parents[2] / "deploy" / "kserve" / "role-in-cluster.yaml"


def allow(api: ApiServer, namespace: str, without: str = "") -> None:
    """Give the operators the Role of the file, but for the rules of one resource."""
    role = yaml.safe_load(ROLE.read_text("utf-8"))
    role["rules"] = [rule for rule in role["rules"] if without not in rule["resources"]]
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    group = {"kind": "Group", "name": "operators", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "Role", "name": role["metadata"]["name"], "apiGroup": group["apiGroup"]}
    binding = {"metadata": {"name": "operators"}, "subjects": [group], "roleRef": reference}
    for plural, document in (("roles", role), ("rolebindings", binding)):
        status, answer = api.ask("POST", f"{root}/{plural}", document)
        assert status == 201, answer


def test_the_role_of_the_file_is_enough(
    stand: Stand, api: ApiServer, tmp_path: Path, config: Path, namespace: str
) -> None:
    """With a service, whose Role a user may only grant as far as he has it himself."""
    cluster = Cluster.connect()
    allow(api, namespace)
    with StandIn(cluster, namespace) as kserve, stand() as jobs:
        for document in inference_service(namespace):
            cluster.apply(document)
        wait_until_ready(cluster, KINDS["InferenceService"], namespace, "qwen")
        wait_for_pods(kserve, "qwen", 1)
        api.kubeconfig(config, user="operator")
        with started(tmp_path, config, namespace, None, "--service", "qwen") as run:
            done = run.end()
        assert done.code == 0, done.err
        until(lambda: not left(jobs), "all is taken away")
    assert "may not" not in done.err
    assert len(result(done, tmp_path).rows) == 20


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("networkpolicies", "resources: ['networkpolicies'], verbs: ['patch']"),
        ("pods/proxy", "resources: ['pods/proxy'], verbs: ['get']"),
    ],
)
def test_a_right_that_lacks_is_named_and_nothing_is_left(  # noqa: PLR0913, PLR0917 - fixtures
    resource: str,
    told: str,
    stand: Stand,
    api: ApiServer,
    tmp_path: Path,
    config: Path,
    namespace: str,
    target: str,
) -> None:
    """Whether it is found out before the pods are there or after."""
    allow(api, namespace, without=resource)
    with stand() as jobs:
        api.kubeconfig(config, user="operator")
        with started(tmp_path, config, namespace, target) as run:
            done = run.end()
        until(lambda: not left(jobs), "all is taken away")
    assert done.code == 4, done.err
    assert told in done.err


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
