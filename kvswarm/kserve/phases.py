"""When a deployment reached its phases: scheduled, initialized, pulled, started, ready.

In:  pods and events as the API server has them, and when this process saw what they do not tell.
Out: `PodTimes`, seconds since the deployment was applied; None: it was not reached, or not seen.

Pods tell by the cluster's clock, in whole seconds, and so does the service, whose creation is the
beginning. What this process saw is finer: from applying to seeing, by its own clock, with a watch's
delay. It is taken where the pod's own word agrees with it within `AGREE_S`, or says nothing; else
the pod's own is, as after a cut of the watch.
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
AGREE_S: Final = 1.5
"""Two stamps cut to whole seconds are up to one apart; the rest is for the watch's delay."""
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
    """By phase: `pod` and `event` (the cluster's whole seconds), `seen` (by this process)."""


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
        told_s = seen_s = None
        if text is not None and start.cluster_s is not None:
            told_s = max(0.0, seconds(text) - start.cluster_s)
        if phase in seen_ns:
            seen_s = (seen_ns[phase] - start.seen_ns) / NS
        if seen_s is not None and (told_s is None or abs(seen_s - told_s) <= AGREE_S):
            times[phase], source[phase] = max(0.0, seen_s), "seen"
        elif told_s is not None:
            times[phase], source[phase] = told_s, place
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
