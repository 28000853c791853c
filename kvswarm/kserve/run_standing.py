"""Where the pods of a run on the cluster stand: from the objects to words, or to what is wrong.

In:  pods, Jobs and events as the API server has them.
Out: `Standing`: one line for a person; what keeps the run from starting, where that is certain.
Not: watching or waiting, see `attending.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.kserve.on_cluster import MASTER, PART_LABEL, WORKER, job_name

Document = Mapping[str, Any]

NEVER_PULLED: Final = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
"""The image was asked for more than once, or cannot be asked for."""
NEVER_STARTED: Final = frozenset({"CreateContainerConfigError", "RunContainerError"})
ENDED: Final = frozenset({"Succeeded", "Failed"})
RUNNING: Final = "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong, and what to do about it."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the pods stand."""

    text: str
    master: str | None = None
    """The master's pod, once its container runs."""
    master_ended: bool = False
    unscheduled: Trouble | None = None
    """A pod that no node takes now. One may come: whoever waits says for how long."""
    trouble: Trouble | None = None
    """What will not mend itself."""
    workers_ended: bool = False
    """All workers there should be have come and ended."""


def standing(
    name: str,
    workers: int,
    pods: Sequence[Document],
    jobs: Sequence[Document],
    events: Iterable[Document],
) -> Standing:
    """Decide. `pods`, `jobs`: those of the run called `name`. `events`: any of its namespace."""
    masters = _of(pods, MASTER)
    helpers = _of(pods, WORKER)
    running = [pod for pod in masters if _phase(pod) == RUNNING]
    master = next((pod for pod in running if _container(pod, "running") is not None), None)
    ended = next((pod for pod in masters if _phase(pod) in ENDED), None)
    up = sum(_phase(pod) == RUNNING for pod in helpers)
    down = [pod for pod in helpers if _phase(pod) == "Failed"]
    waiting = Counter(reason for pod in helpers if (reason := _waits(pod)))
    of_workers = [f"workers: {up} of {workers} running"]
    of_workers += [f"{count} {why}" for why, count in sorted(waiting.items())]
    words = [f"master: {_words(masters)}", ", ".join(of_workers)]
    words += [f"{_name(pod)} {_how_ended(pod)}" for pod in down]
    troubles = [each for pod in pods if (each := _pod_trouble(pod)) is not None]
    troubles += _job_troubles(name, jobs, events)
    return Standing(
        text="; ".join(words),
        master=None if master is None else _name(master),
        master_ended=ended is not None and master is None,
        unscheduled=next((each for pod in pods if (each := _unscheduled(pod)) is not None), None),
        trouble=troubles[0] if troubles else None,
        workers_ended=len(down) >= workers,
    )


def how_master_ended(pods: Sequence[Document]) -> str:
    """`ended with code 137 (OOMKilled)`, or that its pod is gone."""
    return next(
        (_how_ended(pod) for pod in _of(pods, MASTER) if _phase(pod) in ENDED), "is gone: deleted"
    )


def master_pod(pods: Sequence[Document]) -> str | None:
    """The name of the master's pod, running or not; None: there is none."""
    return next((_name(pod) for pod in _of(pods, MASTER)), None)


def _of(pods: Sequence[Document], part: str) -> list[Document]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(PART_LABEL) == part]


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _phase(pod: Document) -> str:
    return str(pod.get("status", {}).get("phase") or "Pending")


def _container(pod: Document, state: str) -> Document | None:
    """The state of the pod's own container, where it is that one; a mesh may add others."""
    part = pod["metadata"].get("labels", {}).get(PART_LABEL)
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status["name"] == part:
            found: Document | None = status.get("state", {}).get(state)
            return found
    return None


def _words(masters: Sequence[Document]) -> str:
    if not masters:
        return "no pod yet"
    (pod,) = masters[:1]
    return _waits(pod) or (_how_ended(pod) if _phase(pod) in ENDED else _phase(pod).lower())


def _waits(pod: Document) -> str:
    """What a pod waits for; empty: it waits for nothing."""
    if _phase(pod) in ENDED:
        return ""
    unscheduled = _condition(pod)
    if unscheduled is not None:
        return f"not scheduled: {unscheduled.get('message') or unscheduled.get('reason')}"
    waiting = _container(pod, "waiting")
    if waiting is None:
        return ""
    message = f": {waiting['message']}" if waiting.get("message") else ""
    return f"{waiting.get('reason') or 'waiting'}{message}"


def _condition(pod: Document) -> Document | None:
    for each in pod.get("status", {}).get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            condition: Document = each
            return condition
    return None


def _how_ended(pod: Document) -> str:
    status = pod.get("status", {})
    terminated = _container(pod, "terminated")
    if terminated is None:  # the kubelet never got to it: evicted, lost with its node
        reason = status.get("reason") or "unknown"
        return f"ended: {reason}" + (f": {status['message']}" if status.get("message") else "")
    reason = terminated.get("reason") or status.get("reason")
    return f"ended with code {terminated.get('exitCode')}" + (f" ({reason})" if reason else "")


def _unscheduled(pod: Document) -> Trouble | None:
    condition = _condition(pod)
    if condition is None or _phase(pod) in ENDED:
        return None
    why = condition.get("message") or condition.get("reason")
    return Trouble(
        what=f"no node takes pod {_name(pod)}: {why}",
        fix="Ask for less (--worker-cpus, --worker-memory, --workers), or for other nodes "
        "(--node-selector, --toleration, no --away-from-gpus).",
    )


def _pod_trouble(pod: Document) -> Trouble | None:
    waiting = _container(pod, "waiting") or {}
    reason = waiting.get("reason")
    message = waiting.get("message") or "no more is told"
    image = pod.get("spec", {}).get("containers", [{}])[0].get("image")
    if reason in NEVER_PULLED:
        return Trouble(
            what=f"pod {_name(pod)}: the image {image} cannot be pulled: {reason}: {message}",
            fix="Check --image, and name the secret of its registry with --image-pull-secret.",
        )
    if reason in NEVER_STARTED:
        return Trouble(
            what=f"pod {_name(pod)}: its container cannot be started: {reason}: {message}",
            fix="Check what it names: the Secret and key of --secret-env, the image.",
        )
    return None


def _job_troubles(name: str, jobs: Sequence[Document], events: Iterable[Document]) -> list[Trouble]:
    ours = {job_name(name, part) for part in (MASTER, WORKER)}
    troubles = []
    for event in events:
        about = event.get("involvedObject", {})
        if (
            event.get("reason") == "FailedCreate"
            and about.get("kind") == "Job"
            and about.get("name") in ours
        ):
            fix = "Mend what it names, or ask for less (--workers, --worker-cpus, --worker-memory)."
            if "exceeded quota" in str(event.get("message")):
                fix = (
                    "Ask for less (--workers, --worker-cpus, --worker-memory), or have the quota "
                    "raised: `kubectl describe quota`."
                )
            troubles.append(
                Trouble(
                    what=f"job {about['name']} cannot make its pods: {event.get('message')}",
                    fix=fix,
                )
            )
    troubles += [
        Trouble(
            what=f"job {_name(job)} ran past its deadline: {condition.get('message')}",
            fix="Give more time with --deadline.",
        )
        for job in jobs
        for condition in job.get("status", {}).get("conditions") or []
        if condition["type"] == "Failed"
        and condition["status"] == "True"
        and condition.get("reason") == "DeadlineExceeded"
    ]
    return troubles
