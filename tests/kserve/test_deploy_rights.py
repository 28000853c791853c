"""deploy/kserve/role.yaml is what a deployment needs: with it all works, without any part of it not."""

from __future__ import annotations

import copy
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from deploy_typed import flags, left, typed
from kserve_manifests import ask
from kube_api_server import ApiServer
from stand_in_kserve import Behaviour, StandIn, cluster_of

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import DeployOptions, deploy
from kvswarm.kserve.manifests import LABELS, Manifests
from kvswarm.kserve.refusals import ClusterError, NotAllowedError
from kvswarm.kserve.teardown import TeardownOptions, teardown

pytestmark = pytest.mark.kube
ROLE = yaml.safe_load((Path(__file__).parents[2] / "deploy/kserve/role.yaml").read_text("utf-8"))
LLM = {
    "apiVersion": "serving.kserve.io/v1alpha2",
    "kind": "LLMInferenceService",
    "spec": {"model": {"uri": "hf://Qwen/Qwen3-8B"}},
}


class Right(NamedTuple):
    """One verb on one resource."""

    group: str
    resource: str
    verb: str


def rights(role: dict[str, Any]) -> list[Right]:
    return [
        Right(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


RIGHTS = rights(ROLE)


def without(missing: Right) -> dict[str, Any]:
    """The role without one right."""
    role = copy.deepcopy(ROLE)
    role["rules"] = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
        for right in RIGHTS
        if right != missing
    ]
    return dict(role)


def grant(api: ApiServer, namespace: str, role: dict[str, Any], operator: Cluster) -> None:
    """Give the role to the user `operator`, and wait until the API server knows."""
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    assert api.ask("POST", f"{root}/roles", role)[0] == 201
    binding = {
        "metadata": {"name": "kvswarm-deploy"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": role["metadata"]["name"],
        },
        "subjects": [
            {"kind": "Group", "name": "operators", "apiGroup": "rbac.authorization.k8s.io"}
        ],
    }
    assert api.ask("POST", f"{root}/rolebindings", binding)[0] == 201
    while not all(allowed(operator, namespace, right) for right in rights(role)):
        pass


def allowed(cluster: Cluster, namespace: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    asked = {
        "namespace": namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer = cluster._open(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        headers={"Content-Type": "application/json"},
        body=review,
    )
    return bool(answer.json()["status"]["allowed"])


@pytest.fixture
def kubeconfig(api: ApiServer, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path / "operator.json", user="operator")


@pytest.fixture
def operator(kubeconfig: Path) -> Cluster:
    return cluster_of(kubeconfig)


@pytest.fixture
def admin(api: ApiServer, tmp_path: Path) -> Cluster:
    return cluster_of(api.kubeconfig(tmp_path / "admin.json"))


@pytest.fixture
def kserve(admin: Cluster, namespace: str) -> Iterator[StandIn]:
    with StandIn(admin, namespace) as playing:
        yield playing


@pytest.mark.usefixtures("kserve")
def test_a_user_with_this_role_alone_deploys_and_tears_down(  # noqa: PLR0913, PLR0917
    api: ApiServer,
    admin: Cluster,
    operator: Cluster,
    kubeconfig: Path,
    namespace: str,
    tmp_path: Path,
) -> None:
    """Also the kinds that only some backends need."""
    grant(api, namespace, ROLE, operator)
    words = f"deploy {flags(namespace)} --backend tensorrt-llm"
    code, _, err = typed(words, kubeconfig, tmp_path)
    assert code == 0, err
    code, _, err = typed(f"teardown --namespace {namespace} --service qwen", kubeconfig, tmp_path)
    assert code == 0, err
    assert left(admin, namespace) == []


def llm(namespace: str) -> Manifests:
    metadata = {"name": "qwen", "namespace": namespace, "labels": LABELS}
    return Manifests(documents=({**LLM, "metadata": metadata},), notes=())


def test_the_page_shows_the_role_as_it_is() -> None:
    """What is pasted from the page must be what was tested."""
    root = Path(__file__).parents[2]
    shown = textwrap.indent((root / "deploy/kserve/role.yaml").read_text("utf-8"), "    ")
    assert shown in (root / "docs/kserve.md").read_text("utf-8")


NEEDED_FOR_LOGS = Right("", "pods/log", "get")


@pytest.mark.parametrize(
    "missing", [right for right in RIGHTS if right != NEEDED_FOR_LOGS], ids="-".join
)
def test_each_right_is_needed_and_named_where_it_lacks(
    api: ApiServer, operator: Cluster, namespace: str, missing: Right
) -> None:
    """With the rule that a Role must have; so the file asks for no more than is needed."""
    grant(api, namespace, without(missing), operator)
    documents = ask(namespace=namespace, backend="tensorrt-llm")
    manifests = llm(namespace) if missing.resource == "llminferenceservices" else documents
    options = DeployOptions(timeout_s=3.0)
    said: list[str] = []
    # Nobody plays KServe: with all rights both end by the time that is over.
    with pytest.raises(ClusterError) as ended:
        deploy(operator, manifests, options, said.append)
    told = [str(ended.value), *said]
    if not isinstance(ended.value, NotAllowedError):
        with pytest.raises(NotAllowedError) as refused:
            teardown(operator, namespace, "qwen", TeardownOptions(), said.append)
        told += [str(refused.value), *said]
    rule = f"resources: ['{missing.resource}'], verbs: ['{missing.verb}']"
    assert any(f"may not {missing.verb} " in line for line in told), told
    assert any(rule in line for line in told), told


def test_a_log_that_may_not_be_read_is_told_beside_the_failure(
    api: ApiServer, operator: Cluster, namespace: str, kserve: StandIn
) -> None:
    """What failed is worth more than the log."""
    kserve.behave("qwen", Behaviour(load="fails"))
    grant(api, namespace, without(NEEDED_FOR_LOGS), operator)
    with pytest.raises(ClusterError, match=r"out of memory[\s\S]*may not get pod/qwen-predictor"):
        deploy(operator, ask(namespace=namespace), DeployOptions(), lambda _: None)
