"""Deployments that cannot become ready: each ends at once with why, exit code 4, and nothing left."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from deploy_typed import flags, left, recorded, typed, typing
from kube_api_server import APPLY, ApiServer
from stand_in_kserve import Behaviour, StandIn
from stand_in_pods import World

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS

pytestmark = pytest.mark.kube


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (
            Behaviour(load="fails", log=tuple(f"line {n}" for n in range(40))),
            r"ends with code 1 \(torch.OutOfMemoryError[\s\S]*"
            r"the end of its log:\n    line 21\n[\s\S]*    torch.OutOfMemoryError"
            r"[\s\S]*\n  Mend what its log names",
        ),
        (
            Behaviour(storage="fails"),
            r"the model's files cannot be loaded[\s\S]*RepositoryNotFoundError[\s\S]*"
            r"the end of its log:[\s\S]*\n  Check --model",
        ),
        (
            Behaviour(pull="fails"),
            r"the image \S+ cannot be pulled: (ErrImagePull|ImagePullBackOff): .*not found"
            r"\n  Check the image's name",
        ),
        (Behaviour(spec="invalid"), r"NoSupportingRuntime: no runtime found"),
    ],
    ids=["load", "storage", "pull", "spec"],
)
def test_what_can_never_be_ready_ends_at_once_and_leaves_nothing(  # noqa: PLR0913, PLR0917
    cluster: Cluster,
    admin: Path,
    namespace: str,
    kserve: StandIn,
    tmp_path: Path,
    behaviour: Behaviour,
    told: str,
) -> None:
    """With the reason that tells most, the end of the log, and what to do; long before --timeout."""
    kserve.behave("qwen", behaviour)
    code, out, err = typed(f"deploy {flags(namespace)} --backend tgi", admin, tmp_path)
    assert code == 4, err
    assert re.search(told, err), err
    assert "Traceback" not in err
    assert out == ""
    assert left(cluster, namespace) == []
    plain = recorded(tmp_path)
    assert plain["ended"] == "failed"
    assert plain["error"] in err


def test_a_log_has_no_more_than_its_last_lines(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """A server's log may be long; its end is what tells."""
    kserve.behave("qwen", Behaviour(load="fails", log=tuple(f"line {n}" for n in range(40))))
    _, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert "line 20" not in err
    assert "line 21" in err


def test_keep_leaves_a_failed_service_and_names_it(
    cluster: Cluster, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """With the command that removes it, which does."""
    kserve.behave("qwen", Behaviour(load="fails"))
    code, _, err = typed(f"deploy {flags(namespace)} --keep", admin, tmp_path)
    assert code == 4
    assert f"Left behind: inferenceservice/qwen in namespace {namespace}" in err
    remover = re.search(r"Remove with: kvswarm (.*)", err)
    assert remover is not None
    assert "InferenceService/qwen" in left(cluster, namespace)
    code, _, err = typed(remover[1], admin, tmp_path)
    assert code == 0, err
    assert left(cluster, namespace) == []


def test_no_node_is_waited_for_and_then_given_up(
    cluster: Cluster, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """The scheduler's message is told at once, and again at the end of --schedule-timeout."""
    kserve.behave("qwen", Behaviour(schedule="unschedulable"))
    words = f"deploy {flags(namespace)} --schedule-timeout 2"
    code, _, err = typed(words, admin, tmp_path)
    assert code == 4
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert f"waits for a node: {message}" in err
    assert f"no node for its pod within 2 s (--schedule-timeout): {message}" in err
    assert left(cluster, namespace) == []


def test_a_node_that_comes_in_time_is_good(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """A cluster's autoscaler adds nodes after a pod found none."""
    kserve.behave("qwen", Behaviour(schedule="unschedulable"))
    with typing(f"deploy {flags(namespace)}", admin, tmp_path) as going:
        going.wait_for("waits for a node: 0/3")
        kserve.behave("qwen", Behaviour())
        code, _ = going.end()
    assert code == 0, going.err


def test_a_service_that_is_not_ready_in_time_is_given_up_with_what_is_known(
    cluster: Cluster, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Its conditions, and how far its pods are."""
    kserve.behave("qwen", Behaviour(load="never"))
    code, _, err = typed(f"deploy {flags(namespace)} --timeout 4", admin, tmp_path)
    assert code == 4
    assert "not ready within 4 s (--timeout): Deployment does not have minimum avail" in err
    assert re.search(r"pod qwen-predictor-\w+: runs, and loads the model \(kserve-container", err)
    assert left(cluster, namespace) == []


def test_without_a_controller_the_time_runs_out_and_says_so(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """KServe's definitions can be there while nobody acts on them."""
    code, _, err = typed(f"deploy {flags(namespace)} --timeout 1", admin, tmp_path)
    assert code == 4
    assert "KServe has said nothing about it: its controller may not run" in err
    assert left(cluster, namespace) == []


@pytest.mark.usefixtures("kserve")
def test_a_quota_that_is_exceeded_is_told(
    api: ApiServer, cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """The service is taken, and its pods are not: only an event of their owner tells."""
    set_quota(api, namespace, "0")
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 4
    assert re.search(r"no pod can be made: .*exceeded quota: pods[\s\S]*Ask for less", err), err
    assert left(cluster, namespace) == []


@pytest.mark.usefixtures("kserve")
def test_an_event_of_before_is_not_about_this_deployment(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """A quota may have been raised since; events stay for an hour."""
    about = {"kind": "ReplicaSet", "name": "qwen-predictor-7d9c6b5f4"}
    world = World(cluster=cluster, namespace=namespace, node="")
    world.tell(about, "FailedCreate", "Error creating: exceeded quota: pods", "Warning")
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 0, err


def set_quota(api: ApiServer, namespace: str, pods: str) -> None:
    """So many pods, and none is used yet: nobody here counts."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/pods"
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods", "namespace": namespace},
        "spec": {"hard": {"pods": pods}},
    }
    assert api.ask("PATCH", f"{path}?fieldManager=admin", quota, APPLY)[0] in {200, 201}
    status = {"status": {"hard": {"pods": pods}, "used": {"pods": "0"}}}
    code, answer = api.ask("PATCH", f"{path}/status", status, "application/merge-patch+json")
    assert code == 200, answer


def test_a_service_that_somebody_deletes_meanwhile_is_told(
    cluster: Cluster, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Nothing would ever become ready."""
    kserve.behave("qwen", Behaviour(load="never"))
    with typing(f"deploy {flags(namespace)}", admin, tmp_path) as going:
        going.wait_for("loads the model")
        cluster.delete(KINDS["InferenceService"], namespace, "qwen")
        code, _ = going.end()
    assert code == 4
    assert f"inferenceservice/qwen in namespace {namespace}: somebody deleted it" in going.err


def test_the_failures_of_an_earlier_life_are_not_those_of_this_one(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Events outlive what they are about by an hour."""
    kserve.behave("qwen", Behaviour(load="fails"))
    assert typed(f"deploy {flags(namespace)}", admin, tmp_path)[0] == 4
    kserve.behave("qwen", Behaviour())
    code, _, err = typed(f"deploy {flags(namespace)}", admin, tmp_path)
    assert code == 0, err


def test_deployment_json_counts_the_restarts_and_names_the_node(
    admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Of a pod that failed, too."""
    kserve.behave("qwen", Behaviour(load="fails"))
    typed(f"deploy {flags(namespace)}", admin, tmp_path)
    (pod,) = recorded(tmp_path)["pods"]
    assert pod["restarts"] >= 1
    assert pod["node"].startswith("stand-in-")
    assert json.dumps(pod["images"]).count("image_id") == 2
