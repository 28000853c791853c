"""`kvswarm deploy` over a real API server, with a stand-in of KServe: ready, or nothing left."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from deploy_typed import flags, left, recorded, typed, typing
from kserve_manifests import ask
from kube_api_server import APPLY, ApiServer
from stand_in_kserve import SERVICE, Behaviour, StandIn

from kvswarm.kserve import deploying
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import DeployOptions, FailedError, deploy, deployed
from kvswarm.kserve.deployment_file import SCHEMA_PATH
from kvswarm.kserve.kinds import kind_of
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.manifests import LABELS, Manifests
from kvswarm.kserve.phases import PHASES

pytestmark = pytest.mark.kube


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


@pytest.mark.usefixtures("kserve")
def test_progress_is_told_only_when_it_changes(admin: Path, namespace: str, tmp_path: Path) -> None:
    """A log of a pipeline must stay readable."""
    _, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    told = [re.sub(r"^kvswarm: +\d+ s ", "", line) for line in err.splitlines()]
    steps = [line for line in told if line.startswith((" pod ", " service: "))]
    assert len(steps) > 4, err
    assert all(one != other for one, other in itertools.pairwise(steps)), err
    for words in ("loads the model's files", "loads the model (", "model Loaded", ": ready"):
        assert any(words in line for line in steps), err


def test_deployment_json_says_what_was_deployed_and_when(
    cluster: Cluster, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """By its own JSON Schema, which the docs name; with the phases in their order."""
    words = f"deploy {flags(namespace)} --backend tgi --min-replicas 2 --out there"
    code, _, err = typed(words, admin, tmp_path)
    assert code == 0, err
    while len(kserve.pods("qwen")) < 2:  # the second one comes after the service is ready
        pass
    plain = json.loads((tmp_path / "there/deployment.json").read_text("utf-8"))
    jsonschema.validate(plain, json.loads(SCHEMA_PATH.read_text("utf-8")))
    assert plain["backend"] == "tgi"
    assert plain["mode"] == "Standard"
    assert plain["flags"]["min_replicas"] == 2
    assert (
        plain["cluster"]["server"]
        == json.loads(admin.read_text())["clusters"][0]["cluster"]["server"]
    )
    kinds = [document["kind"] for document in plain["manifests"]]
    assert kinds == ["ServingRuntime", "InferenceService"]
    assert any("archived" in note for note in plain["notes"])
    for pod in plain["pods"]:
        known = [pod["phases"][f"{name}_s"] for name in PHASES]
        reached = [value for value in known if value is not None]
        assert reached == sorted(reached), pod
        assert all(value >= 0 for value in reached)
    assert plain["pods"][0]["images"][-1]["image"].startswith("ghcr.io/huggingface/text-gen")
    assert cluster.get(SERVICE, namespace, "qwen") is not None


def test_a_service_at_zero_is_ready_without_a_pod(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """As Knative and KEDA leave it; then only the service's own time is known."""
    kserve.behave("qwen", Behaviour(replicas=0))
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 0, err
    plain = recorded(tmp_path)
    assert plain["pods"] == []
    assert plain["phases"].pop("ready_s") >= 0
    assert set(plain["phases"].values()) == {None}


@pytest.mark.usefixtures("kserve")
def test_an_llm_inference_service_is_deployed_the_same_way(
    cluster: Cluster, namespace: str
) -> None:
    """Its conditions and its pods' labels are others."""
    document = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": "qwen", "namespace": namespace, "labels": LABELS},
        "spec": {"model": {"uri": "hf://Qwen/Qwen3-8B"}},
    }
    decided = Manifests(documents=(document,), notes=())
    with deployed(cluster, decided, DeployOptions(), lambda _: None) as deployment:
        assert deployment.url is not None
        assert deployment.url.endswith(f"/{namespace}/qwen")
        assert len(deployment.pods) == 1
        assert deployment.phases["started_s"] is not None
    assert left(cluster, namespace) == []


@pytest.mark.usefixtures("kserve")
def test_deployed_again_it_is_as_it_was_or_changed(
    admin: Path, namespace: str, tmp_path: Path
) -> None:
    """And stays, whatever becomes of the change: it was not made by that call."""
    assert typed(f"deploy {flags(namespace)}", admin, tmp_path)[0] == 0
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 0, err
    assert f"inferenceservice/qwen in namespace {namespace} is as it was" in err
    (first, second) = sorted(tmp_path.glob("deployments/*/deployment.json"))
    pods = [json.loads(path.read_text())["pods"][0]["name"] for path in (first, second)]
    assert pods[0] == pods[1]
    code, _, err = typed(f"deploy {flags(namespace)} --memory 64Gi", admin, tmp_path)
    assert code == 0, err
    assert f"changed inferenceservice/qwen in namespace {namespace}" in err
    path = max(tmp_path.glob("deployments/*/deployment.json"))
    (pod,) = json.loads(path.read_text())["pods"]
    assert pod["name"] != pods[0]  # what it waited for is the new one
    assert pod["phases"]["ready_s"] is not None


def test_a_kept_failure_is_not_that_of_the_next_try(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """KServe's word about the load is then still that about the one before."""
    kserve.behave("qwen", Behaviour(load="fails"))
    assert typed(f"deploy {flags(namespace)} --keep", admin, tmp_path)[0] == 4
    with typing(f"deploy {flags(namespace)} --memory 64Gi", admin, tmp_path) as going:
        going.wait_for("changed inferenceservice/qwen")
        kserve.behave("qwen", Behaviour())
        code, _ = going.end()
    assert code == 0, going.err


def test_a_changed_service_that_fails_stays_and_is_named(
    cluster: Cluster, namespace: str, kserve: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there before: removing it is for a person to decide."""
    decided = ask(namespace=namespace)
    deploy(cluster, decided, DeployOptions(), lambda _: None)
    kserve.behave("qwen", Behaviour(spec="invalid"))
    changed = ask(namespace=namespace, machine=Machine(memory="64Gi"))
    monkeypatch.setattr(deploying, "SETTLED_S", 0.5)
    with pytest.raises(FailedError, match=r"NoSupportingRuntime[\s\S]*Left behind: inferenceserv"):
        deploy(cluster, changed, DeployOptions(), lambda _: None)
    assert cluster.get(SERVICE, namespace, "qwen") is not None


def test_a_change_that_needs_no_new_pod_is_ready_as_it_was(
    cluster: Cluster, namespace: str, kserve: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing then shows that it was taken, but that nothing more comes."""
    kserve.behave("qwen", Behaviour(replicas=0))
    deploy(cluster, ask(namespace=namespace), DeployOptions(), lambda _: None)
    changed = ask(namespace=namespace, machine=Machine(memory="64Gi"))
    monkeypatch.setattr(deploying, "SETTLED_S", 0.5)
    assert deploy(cluster, changed, DeployOptions(), lambda _: None).pods == ()


def make(api: ApiServer, document: dict[str, Any], manager: str = "helm") -> None:
    """As another tool applies it."""
    kind = kind_of(document)
    metadata = document["metadata"]
    path = kind.path(metadata["namespace"], metadata["name"])
    query = f"fieldManager={manager}&force=true"
    status, answer = api.ask("PATCH", f"{path}?{query}", document, APPLY)
    assert status in {200, 201}, answer


@pytest.mark.usefixtures("kserve")
def test_a_service_of_somebody_else_is_not_changed_unless_forced(
    api: ApiServer, cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """Two people may choose one name. Nor is it removed."""
    (service,) = ask(namespace=namespace).documents
    theirs = {**service, "metadata": {"name": "qwen", "namespace": namespace}}
    theirs["spec"] = {"predictor": {**service["spec"]["predictor"], "timeout": 7}}
    make(api, theirs)
    for dry_run in ("", "--dry-run=server"):
        words = f"deploy {flags(namespace)} --backend tgi {dry_run}"
        code, _, err = typed(words, admin, tmp_path)
        assert code == 4, err
        assert "is there, and kvswarm does not manage it, but helm" in err
        assert "ServingRuntime/qwen-tgi" not in left(cluster, namespace)
    remover = f"teardown --namespace {namespace} --service qwen"
    code, _, err = typed(remover, admin, tmp_path)
    assert code == 4
    assert "is not kvswarm's" in err
    found = cluster.get(SERVICE, namespace, "qwen")
    assert found is not None
    assert found["spec"]["predictor"]["timeout"] == 7
    code, _, err = typed(f"deploy {flags(namespace)} --force", admin, tmp_path)
    assert code == 0, err
    found = cluster.get(SERVICE, namespace, "qwen")
    assert found is not None
    assert found["spec"]["predictor"]["timeout"] == 1800


@pytest.mark.usefixtures("kserve")
def test_fields_that_another_manager_took_are_not_taken_back_unless_forced(
    api: ApiServer, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """Such as an operator's who raised a limit; the answer names the manager and the field."""
    assert typed(f"deploy {flags(namespace)}", admin, tmp_path)[0] == 0
    (service,) = ask(namespace=namespace).documents
    spec = {"predictor": {"timeout": 900}}
    make(api, {**service, "spec": spec}, "platform-team")
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 4
    assert 'conflict with "platform-team": .spec.predictor.timeout' in err
    assert "--force" in err
    assert typed(f"deploy {flags(namespace)} --force", admin, tmp_path)[0] == 0


def test_a_dry_run_prints_the_manifests_and_asks_no_cluster(tmp_path: Path) -> None:
    """The same text as `kvswarm manifest`, so that it can be kept."""
    nowhere = tmp_path / "no-kubeconfig"
    code, out, _ = typed(f"deploy {flags('llm')} --dry-run", nowhere, tmp_path)
    assert code == 0
    assert out == typed(f"manifest {flags('llm')}", nowhere, tmp_path)[1]
    assert not (tmp_path / "deployments").exists()


@pytest.mark.usefixtures("kserve")
def test_a_dry_run_of_the_server_tells_what_would_change_and_changes_nothing(
    api: ApiServer, cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """Each document is judged by the API server itself."""
    words = f"deploy {flags(namespace)} --backend tgi --dry-run=server"
    code, out, err = typed(words, admin, tmp_path)
    assert code == 0, err
    assert f"would make servingruntime/qwen-tgi in namespace {namespace}" in out
    assert f"would make inferenceservice/qwen in namespace {namespace}" in out
    assert left(cluster, namespace) == []
    assert typed(f"deploy {flags(namespace)} --backend tgi", admin, tmp_path)[0] == 0
    _, out, _ = typed(f"{words} --set timeouts.total_s=60 --image mine:1", admin, tmp_path)
    assert "spec.predictor.timeout: 1800 -> 60" in out
    assert "spec.containers[0].image: ghcr.io/huggingface/" in out
    code, out, _ = typed(words, admin, tmp_path)
    assert out.count("would stay as it is") == 2
    assert api.answers(f"{SERVICE.path(namespace, 'qwen')}")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("--namespace nowhere --service qwen", 4, "kubectl create namespace nowhere"),
        ("--namespace llm --service qwen --dry-run=server --memory lots", 2, "--memory lots"),
        ("--namespace llm --service qwen --context nobody", 4, "nobody"),
        ("--namespace llm --service qwen --out full", 2, "full: is not empty"),
        ("--namespace llm --service qwen --timeout 0", 2, "--timeout"),
        ("--namespace llm --service qwen --dry-run=maybe", 2, "--dry-run"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(
    admin: Path, tmp_path: Path, words: str, code: int, told: str
) -> None:
    """2 for what is typed, 4 for what the cluster has not."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/other").touch()
    ended, _, err = typed(f"deploy --model hf://Qwen/Qwen3-8B {words}", admin, tmp_path)
    assert ended == code, err
    assert told in err
    assert "Traceback" not in err


def test_without_a_kubeconfig_nothing_is_deployed(tmp_path: Path) -> None:
    """The message names the variable."""
    code, _, err = typed(f"deploy {flags('llm')}", tmp_path / "none", tmp_path)
    assert code == 4
    assert "Set KUBECONFIG" in err


def test_nothing_to_remove_is_said_and_is_no_failure(
    admin: Path, namespace: str, tmp_path: Path
) -> None:
    """A script may tear down twice."""
    code, out, err = typed(f"teardown --namespace {namespace} --service qwen", admin, tmp_path)
    assert code == 0, err
    assert out == f"nothing to remove: no service qwen in namespace {namespace}\n"


@pytest.mark.usefixtures("kserve")
def test_a_teardown_leaves_other_services_alone(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """Also those whose names begin the same."""
    other = flags(namespace).replace("--service qwen", "--service qwen-tgi")
    assert typed(f"deploy {flags(namespace)} --backend tgi", admin, tmp_path)[0] == 0
    assert typed(f"deploy {other} --backend tgi", admin, tmp_path)[0] == 0
    before = {each for each in left(cluster, namespace) if "qwen-tgi" in each}
    assert typed(f"teardown --namespace {namespace} --service qwen", admin, tmp_path)[0] == 0
    assert set(left(cluster, namespace)) == before - {"ServingRuntime/qwen-tgi"}
    assert "ServingRuntime/qwen-tgi-tgi" in before


def test_every_member_of_deployment_json_has_a_line_in_the_docs() -> None:
    """By its path, and no line of one that is gone."""
    page = (Path(__file__).parents[2] / "docs/kserve.md").read_text("utf-8")
    table = page.partition("### deployment.json")[2].partition("## Teardown")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    schema = json.loads(SCHEMA_PATH.read_text("utf-8"))["properties"]
    paths = set(schema) - {"cluster", "phases", "pods"}
    paths |= {
        f"{name}.{each}" for name in ("cluster", "phases") for each in schema[name]["properties"]
    }
    paths |= {f"pods[].{each}" for each in schema["pods"]["items"]["properties"]}
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == paths
