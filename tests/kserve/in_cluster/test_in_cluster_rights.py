"""The rights that a run on the cluster needs, and those that it gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from attended import Stand, left, result, started
from kube_api_server import ApiServer
from measured_service import inference_service, wait_for_pods, wait_until_ready
from running import until
from stand_in_kserve import StandIn

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS

pytestmark = pytest.mark.kube


ROLE = Path(__file__).parents[3] / "deploy" / "kserve" / "role-in-cluster.yaml"


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
