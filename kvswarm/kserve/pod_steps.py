"""How far one pod of a service is, in words, and whether it can still become ready.

In:  a pod as the API server has it, and the events about it.
Out: `PodStep`.
Not: how far the service is, see `progress.py`; when each step was, see `phases.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

STORAGE: Final = "storage-initializer"
"""KServe's init container, which loads the model's files."""
NO_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
NO_CONTAINER: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
CRASHES: Final = "CrashLoopBackOff"
MOUNTS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
STARTS: Final = "starts its containers"
AGAIN: Final = "it is started again"
TRIES: Final = "; Kubernetes goes on trying"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a deployment cannot become ready, and where the log is that tells more."""

    kind: str
    """`load`, `spec`, `storage`, `crash`, `image`, `container`, `quota`, `deleted`."""
    what: str
    pod: str | None = None
    container: str | None = None
    restarted: bool = False
    """The log that tells is that of the instance before the last restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodStep:
    """How far a pod is."""

    words: str
    ready: bool = False
    unschedulable: str | None = None
    """The scheduler's message; more nodes can still make it untrue."""
    failure: Failure | None = None


def pod_step(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> PodStep:
    """Say how far a pod is. `events` are those about it, in any order."""
    status = pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"]:
        return PodStep(words="ends")
    if is_true(pod, "Ready"):
        return PodStep(words="ready", ready=True)
    for place in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(place) or []:
            failure = _container_failure(pod["metadata"]["name"], container)
            if failure is not None:
                return PodStep(words=failure.what, failure=failure)
    if status.get("phase") == "Failed":
        return _ended(pod["metadata"]["name"], status)
    if not is_true(pod, "PodScheduled"):
        return _unscheduled(pod, events)
    return PodStep(words=_working(pod, _newest(events)))


def condition(document: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """One condition of an object's status; None: it has none of that type."""
    conditions = (document.get("status") or {}).get("conditions") or []
    return next((dict(each) for each in conditions if each["type"] == kind), None)


def is_true(document: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and holds."""
    found = condition(document, kind)
    return found is not None and found["status"] == "True"


def happened(event: Mapping[str, Any]) -> str:
    """When an event was last seen, as Kubernetes writes it; empty where it does not say."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _newest(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return max(events, key=happened, default=None)


def _container_failure(pod: str, container: Mapping[str, Any]) -> Failure | None:
    """Why a container cannot run; None where it can, or may."""
    name = str(container["name"])
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason in NO_IMAGE:
        what = f"the image {container.get('image', '')} cannot be pulled: {reason}: {message}"
        return Failure(kind="image", what=what, pod=pod, container=name)
    if reason in NO_CONTAINER:
        what = f"container {name} cannot be started: {reason}: {message}"
        return Failure(kind="container", what=what, pod=pod, container=name)
    if reason != CRASHES:
        return None
    last = (container.get("lastState") or {}).get("terminated") or {}
    what = f"container {name} {_end(last)} again and again"
    kind = "storage" if name == STORAGE else "crash"
    if kind == "storage":
        what = f"the model's files cannot be loaded: {what}"
    return Failure(kind=kind, what=what, pod=pod, container=name, restarted=True)


def _end(terminated: Mapping[str, Any]) -> str:
    """`ends with code 137 (OOMKilled): message`."""
    code = terminated.get("exitCode")
    words = "ends" if code is None else f"ends with code {code}"
    reason, message = terminated.get("reason"), str(terminated.get("message") or "").strip()
    if reason and reason != "Error":
        words += f" ({reason})"
    return f"{words} ({message})" if message else words


def _ended(pod: str, status: Mapping[str, Any]) -> PodStep:
    """A pod that is over: evicted, or refused by its node."""
    what = f"pod {pod} failed: {status.get('reason', '')}: {status.get('message', '')}".rstrip(": ")
    return PodStep(words=what, failure=Failure(kind="crash", what=what, pod=pod))


def _unscheduled(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> PodStep:
    found = condition(pod, "PodScheduled") or {}
    message = str(found.get("message") or "")
    if found.get("reason") != "Unschedulable" or not message:
        failed = [event for event in events if event.get("reason") == "FailedScheduling"]
        newest = _newest(failed)
        if newest is None:
            return PodStep(words="waits for a node")
        message = str(newest.get("message") or "")
    return PodStep(words=f"waits for a node: {message}", unschedulable=message)


def _working(pod: Mapping[str, Any], newest: Mapping[str, Any] | None) -> str:
    """What a pod with a node does: from its containers' states, and the newest event about it."""
    if newest is not None and newest.get("reason") in MOUNTS:
        return f"{newest['reason']}: {newest.get('message', '')}{TRIES}"
    status = pod.get("status") or {}
    beside = {  # these go on for as long as the pod does
        each["name"]
        for each in pod["spec"].get("initContainers") or []
        if each.get("restartPolicy") == "Always"
    }
    for container in status.get("initContainerStatuses") or []:
        state = container.get("state") or {}
        if "running" in state and container["name"] in beside:
            continue
        if "running" in state:
            what = "loads the model's files" if container["name"] == STORAGE else "prepares"
            return f"{what} ({container['name']})"
        if not state.get("terminated"):
            return _waiting(newest, f"starts {container['name']}")
        if state["terminated"].get("exitCode"):
            return _again(container)
    servers = status.get("containerStatuses") or []
    return next((_serving(each, newest) for each in servers if not each.get("ready")), STARTS)


def _serving(container: Mapping[str, Any], newest: Mapping[str, Any] | None) -> str:
    """What a container that is not ready does."""
    state = container.get("state") or {}
    if "terminated" in state:
        return _again(container)
    if "running" not in state:
        return _waiting(newest, STARTS)
    times = container.get("restartCount") or 0
    again = f", started {times + 1} times" if times else ""
    return f"runs, and loads the model ({container['name']}{again})"


def _again(container: Mapping[str, Any]) -> str:
    return f"container {container['name']} {_end(container['state']['terminated'])}; {AGAIN}"


def _waiting(newest: Mapping[str, Any] | None, otherwise: str) -> str:
    if newest is not None and newest.get("reason") == "Pulling":
        message = str(newest.get("message", "")).replace("Pulling image", "pulls image")
        return message or "pulls an image"
    return otherwise
