"""How far a deployment is: from the service, its pods and the events about them.

In:  `Seen`, objects as the API server has them.
Out: `Progress`: lines for a person, whether it is ready, why it never will be.
Not: watching (`deploying.py`), what a single pod does (`pod_steps.py`), times (`phases.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.kserve.kinds import Kind
from kvswarm.kserve.pod_steps import Failure, PodStep, condition, is_true, pod_step

BLOCKED: Final = {"BlockedByFailedLoad": "load", "InvalidSpec": "spec"}
READY: Final = "Ready"
OWNERS: Final = frozenset({"ReplicaSet", "Deployment", "StatefulSet", "LeaderWorkerSet"})
NOT_MADE: Final = "FailedCreate"
FOREVER: Final = ("exceeded quota", "forbidden", "is invalid")
"""In the message of a pod that was refused: asking again gets the same answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a deployment. Objects of its name's earlier lives are not in it."""

    service: Mapping[str, Any] | None = None
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    is_deleted: bool = False
    """Somebody deleted the service."""
    old_model_status: Mapping[str, Any] | None = None
    """Of a service that was there before it was changed: until KServe says another, it is that
    one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a deployment is."""

    lines: tuple[str, ...]
    """What stands now, each with what it is about first."""
    ready: bool = False
    url: str | None = None
    unschedulable: str | None = None
    failure: Failure | None = None


def pod_labels(kind: Kind, service: str) -> str:
    """The selector of a service's pods, by the labels that KServe gives them."""
    if kind.name == "LLMInferenceService":
        return f"app.kubernetes.io/name={service},app.kubernetes.io/part-of=llminferenceservice"
    return f"serving.kserve.io/inferenceservice={service}"


def progress(seen: Seen) -> Progress:
    """Say how far it is."""
    pods = {
        name: pod_step(pod, events_about(pod, seen.events))
        for name, pod in sorted(seen.pods.items())
    }
    lines = [_service_line(seen.service)] if seen.service is not None else []
    lines += [f"pod {name}: {step.words}" for name, step in pods.items()]
    waiting = [step.unschedulable for step in pods.values() if step.unschedulable is not None]
    return Progress(
        lines=tuple(line for line in lines if line),
        ready=seen.service is not None
        and is_current(seen.service)
        and is_true(seen.service, READY),
        url=None if seen.service is None else service_url(seen.service),
        unschedulable=waiting[0] if waiting else None,
        failure=_failure(seen, pods),
    )


def service_url(service: Mapping[str, Any]) -> str | None:
    """Where a service is reached; None: it does not say yet."""
    status = service.get("status") or {}
    addresses = [*(status.get("addresses") or []), status.get("address") or {}]
    urls = [status.get("url"), *(each.get("url") for each in addresses)]
    return next((str(url) for url in urls if url), None)


def is_current(service: Mapping[str, Any]) -> bool:
    """Whether the status is about what was last applied, as far as it says.

    An InferenceService never says: its observedGeneration is that of the Deployment, or of
    Knative's Service, which it was made into. Source: PropagateRawStatus of kserve/kserve.
    """
    observed = (service.get("status") or {}).get("observedGeneration")
    if service.get("kind") != "LLMInferenceService" or observed is None:
        return True
    return bool(observed >= service["metadata"].get("generation", 0))


def events_about(
    document: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Those about one object, not about an earlier one of its name."""
    uid = document["metadata"]["uid"]
    return [each for each in events if (each.get("involvedObject") or {}).get("uid") == uid]


def _service_line(service: Mapping[str, Any]) -> str:
    """`inferenceservice: PredictorReady no (reason), IngressReady yes; model Loading`."""
    if not is_current(service):
        return ""
    status = service.get("status") or {}
    told = []
    for each in status.get("conditions") or []:
        if each["type"] == READY or each.get("severity") == "Info":
            continue
        answer = {"True": "yes", "False": "no"}.get(each["status"], "not known yet")
        why = f" ({each['reason']})" if each.get("reason") and each["status"] != "True" else ""
        told.append(f"{each['type']} {answer}{why}")
    states = (status.get("modelStatus") or {}).get("states") or {}
    model = states.get("targetModelState") or states.get("activeModelState")
    words = ", ".join(sorted(told)) + (f"; model {model}" if model else "")
    return f"service: {words.lstrip('; ')}" if words else ""


def _failure(seen: Seen, pods: Mapping[str, PodStep]) -> Failure | None:
    """The first that will not go away by itself; a pod's own words say what KServe's repeat."""
    if seen.is_deleted:
        return Failure(kind="deleted", what="somebody deleted it")
    of_pods = next((step.failure for step in pods.values() if step.failure is not None), None)
    told = _blocked(seen)
    if told is not None and told.kind == "spec":
        return told
    return of_pods or told or _not_made(seen)


def _blocked(seen: Seen) -> Failure | None:
    """What KServe itself gives up on: a load from the first time that the server ends."""
    model = ((seen.service or {}).get("status") or {}).get("modelStatus") or {}
    kind = BLOCKED.get(model.get("transitionStatus", ""))
    if seen.service is None or kind is None or model == seen.old_model_status:
        return None
    info = model.get("lastFailureInfo") or {}
    what = str(info.get("reason") or model["transitionStatus"])
    if info.get("exitCode") is not None:
        what += f", exit code {info['exitCode']}"
    message = info.get("message") or (condition(seen.service, READY) or {}).get("message")
    if message:
        what += f": {message}"
    pod, container, restarted = _culprit(seen) or (None, None, False)
    return Failure(kind=kind, what=what, pod=pod, container=container, restarted=restarted)


def _culprit(seen: Seen) -> tuple[str, str, bool] | None:
    """Pod and container that ended badly, and whether it was started again since."""
    for name, pod in sorted(seen.pods.items()):
        status = pod.get("status") or {}
        for place in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(place) or []:
                for state in ("state", "lastState"):
                    ended = (container.get(state) or {}).get("terminated") or {}
                    if ended.get("exitCode"):
                        return name, str(container["name"]), state == "lastState"
    return None


def _not_made(seen: Seen) -> Failure | None:
    """A pod that the API server refuses, which only an event of its owner tells."""
    for event in seen.events:
        about = event.get("involvedObject") or {}
        message = str(event.get("message") or "")
        owned = event.get("reason") == NOT_MADE and about.get("kind") in OWNERS
        if owned and any(words in message for words in FOREVER):
            kind = "quota" if "exceeded quota" in message else "spec"
            return Failure(kind=kind, what=f"no pod can be made: {message}")
    return None


def why_not_ready(seen: Seen) -> str:
    """The last that is known, for a deployment that was given up: one sentence per object."""
    told = progress(seen)
    found = condition(seen.service, READY) if seen.service is not None else None
    lines = list(told.lines)
    if found is not None and found.get("message"):
        lines.insert(0, str(found["message"]))
    return "; ".join(lines) or "KServe has said nothing about it: its controller may not run"
