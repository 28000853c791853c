"""Where the pods of a run stand, from objects as an API server has them."""

from __future__ import annotations

from typing import Any

import pytest

from kvswarm.kserve.run_standing import how_master_ended, standing

NAME = "kvswarm-3f2a91"


def pod(part: str, number: int = 0, phase: str = "Pending", **status: Any) -> dict[str, Any]:
    name = f"{NAME}-master-0" if part == "master" else f"{NAME}-workers-{number}"
    return {
        "metadata": {"name": name, "labels": {"kvswarm.io/part": part}},
        "spec": {"containers": [{"image": "registry/kvswarm:1"}]},
        "status": {"phase": phase, **status},
    }


def container(part: str, **state: Any) -> list[dict[str, Any]]:
    """Its own container after one that a mesh has added."""
    return [
        {"name": "istio-proxy", "state": {"running": {}}},
        {"name": part, "state": state},
    ]


def running(part: str, number: int = 0) -> dict[str, Any]:
    return pod(part, number, "Running", containerStatuses=container(part, running={}))


def waiting(part: str, reason: str, message: str = "") -> dict[str, Any]:
    state = {"reason": reason, "message": message}
    return pod(part, containerStatuses=container(part, waiting=state))


def ended(part: str, code: int, reason: str = "Error") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason}
    phase = "Failed" if code else "Succeeded"
    return pod(part, 0, phase, containerStatuses=container(part, terminated=state))


def unscheduled(part: str) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    return pod(part, conditions=[condition])


def failed_create(job: str, message: str, kind: str = "Job") -> dict[str, Any]:
    about = {"kind": kind, "name": job}
    return {"reason": "FailedCreate", "message": message, "involvedObject": about}


def test_a_master_counts_once_its_container_runs() -> None:
    """A pod can be Running while its container is not."""
    assert standing(NAME, 2, [running("master")], [], []).master == f"{NAME}-master-0"
    starting = pod("master", phase="Running", containerStatuses=container("master", waiting={}))
    assert standing(NAME, 2, [starting], [], []).master is None
    assert standing(NAME, 2, [running("worker")], [], []).master is None


def test_one_line_says_where_all_pods_stand() -> None:
    """Pods that wait for the same are counted, not listed: there may be a hundred."""
    pods = [running("master"), running("worker", 0)]
    pods += [
        {**waiting("worker", "ContainerCreating"), "metadata": pod("worker", n)["metadata"]}
        for n in (1, 2)
    ]
    assert standing(NAME, 4, pods, [], []).text == (
        "master: running; workers: 1 of 4 running, 2 ContainerCreating"
    )
    assert standing(NAME, 4, [], [], []).text == "master: no pod yet; workers: 0 of 4 running"
    lost = standing(NAME, 1, [running("master"), ended("worker", 137, "OOMKilled")], [], [])
    assert lost.text.endswith(f"{NAME}-workers-0 ended with code 137 (OOMKilled)")
    assert lost.workers_ended
    assert lost.trouble is None


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled_is_trouble(reason: str) -> None:
    """With the image, what the kubelet says, and the flags to look at."""
    trouble = standing(NAME, 1, [waiting("worker", reason, "not found")], [], []).trouble
    assert trouble is not None
    assert f"{NAME}-workers-0: the image registry/kvswarm:1 cannot be pulled" in trouble.what
    assert "not found" in trouble.what
    assert "--image-pull-secret" in trouble.fix


@pytest.mark.parametrize("reason", ["ErrImagePull", "ContainerCreating", "PodInitializing"])
def test_what_may_mend_itself_is_no_trouble(reason: str) -> None:
    """The first failed pull is followed by others."""
    assert standing(NAME, 1, [waiting("worker", reason)], [], []).trouble is None


def test_a_secret_that_is_not_there_is_trouble() -> None:
    """The kubelet would wait for it for ever."""
    pods = [waiting("worker", "CreateContainerConfigError", 'secret "keys" not found')]
    trouble = standing(NAME, 1, pods, [], []).trouble
    assert trouble is not None
    assert 'secret "keys" not found' in trouble.what
    assert "--secret-env" in trouble.fix


def test_a_pod_that_no_node_takes_is_told_apart_from_trouble() -> None:
    """A cluster's autoscaler may bring a node."""
    now = standing(NAME, 1, [unscheduled("worker")], [], [])
    assert now.trouble is None
    assert now.unscheduled is not None
    assert "0/3 nodes are available" in now.unscheduled.what
    assert "not scheduled: 0/3 nodes" in now.text


def test_a_job_that_cannot_make_pods_is_trouble_and_other_jobs_are_not_ours() -> None:
    """A quota has a way out of its own."""
    quota = failed_create(f"{NAME}-workers", "exceeded quota: few")
    trouble = standing(NAME, 1, [], [], [quota]).trouble
    assert trouble is not None
    assert "exceeded quota: few" in trouble.what
    assert "kubectl describe quota" in trouble.fix
    policy = failed_create(f"{NAME}-master", "violates PodSecurity")
    assert "violates PodSecurity" in str(standing(NAME, 1, [], [], [policy]).trouble)
    others = [
        failed_create("kvswarm-aaaaaa-master", "exceeded quota"),
        failed_create(f"{NAME}-workers", "exceeded quota", kind="ReplicaSet"),
        {**quota, "reason": "SuccessfulCreate"},
    ]
    assert standing(NAME, 1, [], [], others).trouble is None


def test_a_job_past_its_deadline_is_trouble_and_one_that_failed_otherwise_is_not() -> None:
    """How a pod ended is told by the pod."""
    for reason, found in (("DeadlineExceeded", True), ("BackoffLimitExceeded", False)):
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": "long"}
        job = {"metadata": {"name": f"{NAME}-master"}, "status": {"conditions": [condition]}}
        assert (standing(NAME, 1, [], [job], []).trouble is not None) is found


def test_how_the_master_ended_is_told_also_of_an_evicted_or_deleted_one() -> None:
    """A pod that was evicted has no container's state."""
    assert (
        how_master_ended([ended("master", 137, "OOMKilled")]) == "ended with code 137 (OOMKilled)"
    )
    evicted = pod("master", phase="Failed", reason="Evicted", message="low on memory")
    assert how_master_ended([evicted]) == "ended: Evicted: low on memory"
    assert how_master_ended([]) == "is gone: deleted"
    assert standing(NAME, 1, [evicted], [], []).master_ended
