"""How far a pod and a service are, from plain objects: tables of what the API server shows."""

from __future__ import annotations

from typing import Any

import pytest

from kvswarm.kserve.pod_steps import pod_step
from kvswarm.kserve.progress import Seen, progress, service_url, why_not_ready

IMAGE = "vllm/vllm-openai:v0.32.0"


def pod(name: str = "qwen-1", *, scheduled: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}
    ]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {},
        "status": {"phase": "Pending", "conditions": conditions if scheduled else [], **status},
    }


def container(
    state: dict[str, Any], name: str = "kserve-container", last: Any = None, restarts: int = 0
) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "state": state,
        "lastState": last or {},
        "ready": False,
        "restartCount": restarts,
    }


def event(reason: str, message: str, at: int = 1, of: str = "uid-qwen-1") -> dict[str, Any]:
    return {
        "metadata": {"name": f"e{at}", "uid": f"e{at}"},
        "involvedObject": {"kind": "Pod", "uid": of},
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-01-01T00:00:{at:02}Z",
    }


def waiting(reason: str, message: str = "why") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:09Z"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
LOADER = "storage-initializer"


def main(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return pod(
        initContainerStatuses=[container(DONE, LOADER)],
        containerStatuses=[container(state, **more)],
    )


@pytest.mark.parametrize(
    ("document", "events", "words"),
    [
        (pod(scheduled=False), [], "waits for a node"),
        (
            pod(scheduled=False),
            [event("FailedScheduling", "old", 1), event("FailedScheduling", "0/3 nodes", 2)],
            "waits for a node: 0/3 nodes",
        ),
        (pod(), [], "starts its containers"),
        (pod(initContainerStatuses=[container(RUNNING, LOADER)]), [], "loads the model's files"),
        (
            pod(initContainerStatuses=[container(waiting("PodInitializing"), LOADER)]),
            [event("Pulling", 'Pulling image "loader:1"')],
            'pulls image "loader:1"',
        ),
        (
            pod(initContainerStatuses=[container(KILLED, LOADER)]),
            [],
            "container storage-initializer ends with code 137 (OOMKilled); it is started again",
        ),
        (
            main(waiting("ContainerCreating")),
            [event("Pulled", "old", 1), event("Pulling", f'Pulling image "{IMAGE}"', 2)],
            f'pulls image "{IMAGE}"',
        ),
        (main(waiting("ContainerCreating")), [], "starts its containers"),
        (
            main(waiting("ContainerCreating")),
            [event("FailedMount", 'secret "hf" not found')],
            'FailedMount: secret "hf" not found; Kubernetes goes on trying',
        ),
        (main(RUNNING), [], "runs, and loads the model (kserve-container)"),
        (main(RUNNING, restarts=2), [], "(kserve-container, started 3 times)"),
        (main(KILLED), [], "kserve-container ends with code 137 (OOMKilled); it is started again"),
    ],
)
def test_a_pod_that_may_become_ready_says_what_it_does(
    document: dict[str, Any], events: list[dict[str, Any]], words: str
) -> None:
    """From the newest that is known, and it is no failure."""
    step = pod_step(document, events)
    assert words in step.words
    assert step.failure is None
    assert not step.ready


@pytest.mark.parametrize(
    ("document", "kind", "told"),
    [
        (main(waiting("ImagePullBackOff")), "image", f"the image {IMAGE} cannot be pulled: Image"),
        (main(waiting("ErrImagePull")), "image", "ErrImagePull: why"),
        (main(waiting("InvalidImageName")), "image", "InvalidImageName: why"),
        (
            pod(initContainerStatuses=[container(waiting("ErrImagePull"), LOADER)]),
            "image",
            "ErrImagePull",
        ),
        (main(waiting("CreateContainerConfigError", "secret")), "container", "Error: secret"),
        (
            main(waiting("CrashLoopBackOff"), last=KILLED),
            "crash",
            "container kserve-container ends with code 137 (OOMKilled) again and again",
        ),
        (main(waiting("CrashLoopBackOff")), "crash", "kserve-container ends again and again"),
        (
            pod(initContainerStatuses=[container(waiting("CrashLoopBackOff"), LOADER)]),
            "storage",
            "the model's files cannot be loaded: container storage-initializer ends",
        ),
        (
            pod(phase="Failed", reason="Evicted", message="disk pressure"),
            "crash",
            "pod qwen-1 failed: Evicted: disk pressure",
        ),
    ],
)
def test_a_pod_that_cannot_become_ready_says_why(
    document: dict[str, Any], kind: str, told: str
) -> None:
    """With the kind of failure, by which the remedy is chosen."""
    failure = pod_step(document, []).failure
    assert failure is not None
    assert failure.kind == kind
    assert told in failure.what
    assert failure.pod == "qwen-1"
    assert failure.restarted == ("again and again" in failure.what)


def test_a_container_that_runs_beside_the_server_is_not_waited_for() -> None:
    """A mesh's proxy is an init container that never ends."""
    document = pod(
        initContainerStatuses=[container(RUNNING, "istio-proxy"), container(RUNNING, "fetch")]
    )
    assert pod_step(document, []).words == "prepares (istio-proxy)"
    document["spec"]["initContainers"] = [{"name": "istio-proxy", "restartPolicy": "Always"}]
    assert pod_step(document, []).words == "prepares (fetch)"


def test_no_node_is_no_failure_yet() -> None:
    """An autoscaler may add one: who waits decides for how long."""
    document = pod(scheduled=False)
    document["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}
    ]
    step = pod_step(document, [])
    assert step.unschedulable == "0/3"
    assert step.failure is None


def test_a_pod_that_is_being_deleted_is_no_failure() -> None:
    """However its containers end."""
    document = main(waiting("CrashLoopBackOff"))
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_step(document, []).failure is None


def service(kind: str = "InferenceService", **status: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"name": "qwen", "uid": "uid-qwen", "generation": 3},
        "status": status,
    }


def conditions(**states: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": status} for kind, status in states.items()]


READY = conditions(PredictorReady="True", IngressReady="True", Ready="True")


@pytest.mark.parametrize(
    ("document", "ready"),
    [
        (service(), False),
        (service(conditions=conditions(PredictorReady="True")), False),
        (service(conditions=conditions(Ready="Unknown")), False),
        (service(conditions=READY), True),
        (service(conditions=READY, observedGeneration=1), True),
        (service("LLMInferenceService", conditions=READY, observedGeneration=2), False),
        (service("LLMInferenceService", conditions=READY, observedGeneration=3), True),
        (service("LLMInferenceService", conditions=READY), True),
    ],
)
def test_a_service_is_ready_when_it_says_so_of_what_was_applied(
    document: dict[str, Any], *, ready: bool
) -> None:
    """An InferenceService's observedGeneration is that of its Deployment, and says nothing."""
    assert progress(Seen(service=document)).ready is ready


def test_lines_say_the_conditions_the_model_and_the_pods() -> None:
    """What is not yet so comes with its reason."""
    told = conditions(PredictorReady="False", IngressReady="Unknown", Ready="False")
    told[0]["reason"] = "MinimumReplicasUnavailable"
    model = {"states": {"activeModelState": "", "targetModelState": "Loading"}}
    seen = Seen(
        service=service(conditions=told, modelStatus=model),
        pods={"qwen-2": main(RUNNING), "qwen-1": pod(scheduled=False)},
    )
    assert progress(seen).lines == (
        "service: IngressReady not known yet, PredictorReady no (MinimumReplicasUnavailable); "
        "model Loading",
        "pod qwen-1: waits for a node",
        "pod qwen-2: runs, and loads the model (kserve-container)",
    )


def blocked(transition: str, **info: Any) -> dict[str, Any]:
    return {"transitionStatus": transition, "lastFailureInfo": info, "states": {}}


FAILED = blocked("BlockedByFailedLoad", reason="ModelLoadFailed", exitCode=1, message="no memory")


def test_what_kserve_gives_up_on_is_a_failure_with_the_container_that_tells() -> None:
    """KServe gives up at the first end of the server, before it is started again."""
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    for last, restarted in ((main(ended), False), (main(RUNNING, last=ended), True)):
        seen = Seen(service=service(modelStatus=FAILED), pods={"qwen-1": last})
        failure = progress(seen).failure
        assert failure is not None
        assert failure.kind == "load"
        assert failure.what == "ModelLoadFailed, exit code 1: no memory"
        assert (failure.pod, failure.container) == ("qwen-1", "kserve-container")
        assert failure.restarted is restarted


def test_an_invalid_spec_goes_before_what_pods_say() -> None:
    """The pods are those of a spec before."""
    info = blocked("InvalidSpec", reason="NoSupportingRuntime", message="none for vLLM")
    seen = Seen(
        service=service(modelStatus=info), pods={"qwen-1": main(waiting("CrashLoopBackOff"))}
    )
    failure = progress(seen).failure
    assert failure is not None
    assert (failure.kind, failure.what) == ("spec", "NoSupportingRuntime: none for vLLM")


def test_a_blocked_service_without_a_reason_says_its_conditions_message() -> None:
    """Knative's mode, scaled down to nothing after a failure."""
    told = conditions(Ready="False")
    told[0]["message"] = "RevisionFailed: container exited"
    seen = Seen(service=service(modelStatus=blocked("BlockedByFailedLoad"), conditions=told))
    failure = progress(seen).failure
    assert failure is not None
    assert failure.what == "BlockedByFailedLoad: RevisionFailed: container exited"


def test_a_failed_load_of_before_a_change_is_none() -> None:
    """Until KServe says another."""
    seen = Seen(service=service(modelStatus=FAILED), old_model_status=FAILED)
    assert progress(seen).failure is None
    other = {**FAILED, "copies": {"failedCopies": 1}}
    assert progress(Seen(service=service(modelStatus=other), old_model_status=FAILED)).failure


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('pods "q" is forbidden: exceeded quota: gpus', "quota"),
        ('pods "q" is forbidden: violates PodSecurity "restricted"', "spec"),
        ("Internal error occurred: failed calling webhook", None),
    ],
)
def test_a_pod_that_is_refused_is_told_by_its_owners_event(message: str, kind: str | None) -> None:
    """There is no pod to say it. A webhook that does not answer may answer later."""
    refused = event("FailedCreate", message, of="uid-rs")
    refused["involvedObject"]["kind"] = "ReplicaSet"
    failure = progress(Seen(service=service(), events=[refused])).failure
    assert (failure and failure.kind) == kind


@pytest.mark.parametrize(
    ("status", "url"),
    [
        ({}, None),
        ({"url": "http://a", "address": {"url": "http://b"}}, "http://a"),
        ({"address": {"url": "http://b"}}, "http://b"),
        ({"addresses": [{"url": "http://c"}]}, "http://c"),
    ],
)
def test_the_url_is_the_services_own_or_its_first_address(
    status: dict[str, Any], url: str | None
) -> None:
    """An LLMInferenceService may have addresses alone."""
    assert service_url(service(**status)) == url


def test_what_was_given_up_tells_all_that_is_known() -> None:
    """Or that nobody has said anything."""
    assert "its controller may not run" in why_not_ready(Seen(service=service()))
    told = conditions(Ready="False")
    told[0]["message"] = "no route"
    seen = Seen(service=service(conditions=told), pods={"qwen-1": pod(scheduled=False)})
    assert why_not_ready(seen) == "no route; pod qwen-1: waits for a node"
