"""When a deployment reached its phases: scheduled, initialized, pulled, started, ready.

In:  pods and events as the API server has them, and when this process saw what they do not tell.
Out: `PodTimes`, seconds since the deployment was applied; None: it was not reached, or not seen.

Pods tell by the cluster's clock, in whole seconds. The deployment's beginning is told by the same
clock, as the service's creation, where the service was made; so a difference is good to a second.
What they do not tell is the moment at which this process saw it, less the moment at which it
applied, by this machine's clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.kserve.pod_steps import STORAGE, condition, happened
from kvswarm.kserve.progress import events_about

PHASES: Final = ("scheduled", "initialized", "pulled", "started", "ready")
NS: Final = 1e9
SERVERS: Final = frozenset({"kserve-container", "main"})
"""The container that serves, in an InferenceService and in an LLMInferenceService."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When the deployment was applied."""

    seen_ns: int
    """By this machine's clock."""
    cluster_s: float | None
    """By the cluster's, since the epoch; None: the service was there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTimes:
    """One pod's phases, in seconds since the deployment was applied, and where each comes from."""

    scheduled_s: float | None = None
    initialized_s: float | None = None
    pulled_s: float | None = None
    started_s: float | None = None
    ready_s: float | None = None
    source: Mapping[str, str]
    """By phase: `pod` (its own, whole seconds), `event` (likewise), `seen` (by this process)."""


def pod_times(
    pod: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    seen_ns: Mapping[str, int],
    start: Start,
) -> PodTimes:
    """Put a pod's phases together. `seen_ns`: by phase, when it was first seen to be reached."""
    own: dict[str, tuple[str, str | None]] = {
        "scheduled": ("pod", _since(pod, "PodScheduled")),
        "initialized": ("pod", _since(pod, "Initialized")),
        "pulled": ("event", _pulled(pod, events)),
        "started": ("pod", _started(pod)),
        "ready": ("pod", _since(pod, "Ready")),
    }
    times: dict[str, float] = {}
    source: dict[str, str] = {}
    for phase, (place, text) in own.items():
        if text is not None and start.cluster_s is not None:
            times[phase], source[phase] = max(0.0, seconds(text) - start.cluster_s), place
        elif phase in seen_ns:
            times[phase], source[phase] = (seen_ns[phase] - start.seen_ns) / NS, "seen"
    return PodTimes(source=source, **{f"{phase}_s": value for phase, value in times.items()})


def reached(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The phases that a pod has behind it."""
    found = {
        phase
        for phase, kind in (
            ("scheduled", "PodScheduled"),
            ("initialized", "Initialized"),
            ("ready", "Ready"),
        )
        if _since(pod, kind) is not None
    }
    if _pulled(pod, events) is not None:
        found.add("pulled")
    if _server(pod, "running") is not None:
        found |= {"pulled", "started"}
    return frozenset(found)


def last_of(times: Iterable[PodTimes]) -> dict[str, float | None]:
    """When the last of the pods reached each phase; None: not all of them did, or there is none."""
    every = list(times)
    latest: dict[str, float | None] = {}
    for phase in PHASES:
        values = [getattr(each, f"{phase}_s") for each in every]
        known = [value for value in values if value is not None]
        latest[f"{phase}_s"] = max(known) if known and len(known) == len(values) else None
    return latest


def seconds(text: str) -> float:
    """Seconds since the epoch of a moment as Kubernetes writes it."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _since(pod: Mapping[str, Any], kind: str) -> str | None:
    found = condition(pod, kind)
    if found is None or found["status"] != "True":
        return None
    return found.get("lastTransitionTime")


def _server(pod: Mapping[str, Any], state: str) -> Mapping[str, Any] | None:
    """The state of the container that serves, whatever runs beside it."""
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        if container["name"] in SERVERS:
            found: Mapping[str, Any] | None = (container.get("state") or {}).get(state)
            return found
    return None


def _started(pod: Mapping[str, Any]) -> str | None:
    running = _server(pod, "running")
    return None if running is None else running.get("startedAt")


def _pulled(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str | None:
    """When the last image of its containers, but for the model's loader, was there."""
    moments = [
        happened(event)
        for event in events_about(pod, events)
        if event.get("reason") == "Pulled"
        and STORAGE not in str(event["involvedObject"].get("fieldPath", ""))
    ]
    return max(moments, default="") or None
