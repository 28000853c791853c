"""A pod's and a deployment's document as the lines of cluster.jsonl have them. Pure functions.

In:  documents of the API server, and when this machine had them.
Out: `PodEntry`, `WantedEntry`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvswarm.clusterlog import PodEntry, WantedEntry
from kvswarm.kserve.found import CONTAINERS

STILL: Final = frozenset({"PodInitializing", "ContainerCreating"})
"""Reasons of containers that only wait for their turn."""


def pod_entry(
    document: Mapping[str, Any], time_ns: int, *, deleted: bool = False, listed: bool = False
) -> PodEntry:
    """The state of a pod. Its stamps have a resolution of one second."""
    metadata, spec, status = (document.get(part) or {} for part in ("metadata", "spec", "status"))
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    ready = _is_true(conditions.get("Ready"))
    server = _server_of(status)
    return PodEntry(
        time_ns=time_ns,
        pod=str(metadata["name"]),
        uid=str(metadata["uid"]),
        phase=str(status.get("phase") or "Unknown"),
        created_ns=stamp_ns(metadata["creationTimestamp"]),
        scheduled_ns=_since_ns(conditions.get("PodScheduled")),
        initialized_ns=_since_ns(conditions.get("Initialized")),
        started_ns=_started_ns(server),
        ready=ready,
        ready_ns=_since_ns(conditions.get("Ready")),
        deleting="deletionTimestamp" in metadata,
        deleted=deleted,
        node=spec.get("nodeName"),
        reason=_reason(status, conditions),
        restarts=sum(int(each.get("restartCount") or 0) for each in _containers(status)),
        listed=listed,
    )


def wanted_entry(
    document: Mapping[str, Any], time_ns: int, *, deleted: bool = False
) -> WantedEntry:
    """How many replicas a deployment is to have; one where it does not say."""
    replicas = document["spec"].get("replicas")
    return WantedEntry(
        time_ns=time_ns,
        deployment=str(document["metadata"]["name"]),
        replicas=None if deleted else 1 if replicas is None else int(replicas),
    )


def stamp_ns(text: str) -> int:
    """A moment of the API server, `2026-01-31T12:00:00Z`, in ns since 1970."""
    moment = dt.datetime.fromisoformat(text)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _is_true(condition: Mapping[str, Any] | None) -> bool:
    return condition is not None and condition.get("status") == "True"


def _since_ns(condition: Mapping[str, Any] | None) -> int | None:
    """Since when a condition is true; None while it is not, or does not say."""
    if condition is None or not _is_true(condition):
        return None
    text = condition.get("lastTransitionTime")
    return None if text is None else stamp_ns(text)


def _server_of(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the server's container: by its name, else the first; empty: there is none."""
    found = {str(each.get("name")): each for each in status.get("containerStatuses") or []}
    for name in CONTAINERS:
        if name in found:
            return dict(found[name])
    return dict(next(iter(found.values()), {}))


def _started_ns(server: Mapping[str, Any]) -> int | None:
    running = (server.get("state") or {}).get("running") or {}
    text = running.get("startedAt")
    return None if text is None else stamp_ns(text)


def _containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for group in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(group) or []


def _reason(status: Mapping[str, Any], conditions: Mapping[str, Any]) -> str | None:
    """What a pod waits for or why it ended; None where all goes its way."""
    if status.get("reason"):
        return str(status["reason"])
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and not _is_true(scheduled):
        return str(scheduled["reason"]) if scheduled.get("reason") else None
    for each in _containers(status):
        state = each.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") and waiting["reason"] not in STILL:
            return str(waiting["reason"])
        if ended.get("exitCode"):
            return str(ended.get("reason") or "Error")
    return None
