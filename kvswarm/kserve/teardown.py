"""Remove what kvswarm made for a service, and wait until its pods are gone.

In:  a namespace and a service's name.
Out: what was removed, by its names. Objects that kvswarm does not manage stay, unless forced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.kserve.backends import BACKENDS
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS, Kind, full_name
from kvswarm.kserve.manifests import LABELS
from kvswarm.kserve.progress import pod_labels
from kvswarm.kserve.refusals import ClusterError, ConflictError, NotThereError
from kvswarm.kserve.watching import PATIENCE_S, Watched, Watching

TIMEOUT_S: Final = 300.0
"""A server may take its time to end, and a node to say so."""
ASK_EVERY_S: Final = 1.0
SERVICES: Final = ("InferenceService", "LLMInferenceService")
PARTS: Final = ("ServingRuntime", "ConfigMap")
POD: Final = KINDS["Pod"]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An object, as it is deleted."""

    kind: Kind
    namespace: str
    name: str

    @property
    def words(self) -> str:
        """`inferenceservice/qwen in namespace llm`."""
        return full_name(self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeardownOptions:
    """How thoroughly, and how long."""

    force: bool = False
    """Also what kvswarm does not manage."""
    timeout_s: float = TIMEOUT_S
    patience_s: float = PATIENCE_S
    """How long an API server may be away."""


def is_managed(document: dict[str, Any]) -> bool:
    """Whether kvswarm says of itself that it manages an object."""
    labels = document["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in LABELS.items())


def teardown(
    cluster: Cluster, namespace: str, service: str, options: TeardownOptions, say: Say
) -> tuple[str, ...]:
    """Delete a service and what was made for it; the names of what was there.

    Raises ConflictError for a service that kvswarm does not manage, another ClusterError where the
    cluster says no, or where the pods are not gone in time.
    """
    found = _found(cluster, namespace, service, force=options.force)
    removed = remove(cluster, found, options, say)
    return tuple(each.words for each in removed)


def remove(
    cluster: Cluster, made: Sequence[Made], options: TeardownOptions, say: Say
) -> list[Made]:
    """Delete objects, the last first, and wait for the end of the services' pods: `teardown`."""
    removed = []
    for each in reversed(made):
        if cluster.delete(each.kind, each.namespace, each.name):
            say(f"removed {each.words}")
            removed.append(each)
    for each in made:
        if each.kind.name in SERVICES:
            _wait_until_gone(cluster, each, options, say)
    return removed


def _found(cluster: Cluster, namespace: str, service: str, *, force: bool) -> list[Made]:
    """What is there of it, in the order in which it is applied."""
    services = [
        Made(kind=KINDS[name], namespace=namespace, name=service)
        for name in SERVICES
        if _is_there(cluster, KINDS[name], namespace, service, force=force)
    ]
    parts = []
    for name in PARTS:
        for backend in BACKENDS:
            document = _get(cluster, KINDS[name], namespace, f"{service}-{backend}")
            if document is not None and is_managed(document):
                part = Made(kind=KINDS[name], namespace=namespace, name=f"{service}-{backend}")
                parts.append(part)
    return [*parts, *services]


def _is_there(cluster: Cluster, kind: Kind, namespace: str, name: str, *, force: bool) -> bool:
    document = _get(cluster, kind, namespace, name)
    if document is None:
        return False
    if not force and not is_managed(document):
        raise ConflictError(
            f"{full_name(kind, namespace, name)} is not kvswarm's: it has no label "
            + ", ".join(f"{key}={value}" for key, value in LABELS.items()),
            fix="Check that it is the one you mean; --force removes it all the same.",
        )
    return True


def _get(cluster: Cluster, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
    """An object; None also where the cluster does not have its kind, such as an older KServe."""
    try:
        return cluster.get(kind, namespace, name)
    except NotThereError:
        return None


def _wait_until_gone(cluster: Cluster, service: Made, options: TeardownOptions, say: Say) -> None:
    """Until neither the service nor any of its pods is there, so that its GPUs are free."""
    labels = pod_labels(service.kind, service.name)
    watched = [
        Watched(kind=service.kind, namespace=service.namespace, name=service.name),
        Watched(kind=POD, namespace=service.namespace, labels=labels),
    ]
    give_up_s = time.monotonic() + options.timeout_s
    with Watching(cluster, watched, options.patience_s) as watching:
        left = _left(cluster, service, labels)
        if left:
            say(f"waiting for the end of {', '.join(sorted(left))}")
        while left:
            change = watching.next(ASK_EVERY_S)
            if change is None:
                # What went between the two lists is told by no watch.
                left = _left(cluster, service, labels)
            else:
                name = full_name(change.kind, None, change.name)
                left = left - {name} if change.deleted else left | {name}
            if left and time.monotonic() > give_up_s:
                raise ClusterError(
                    f"{service.words}: after {options.timeout_s:g} s there is still "
                    + ", ".join(sorted(left)),
                    fix=f"See what holds it: kubectl describe -n {service.namespace} {min(left)}",
                )


def _left(cluster: Cluster, service: Made, labels: str) -> frozenset[str]:
    pods, _ = cluster.list_all(POD, service.namespace, labels=labels)
    left = {full_name(POD, None, each["metadata"]["name"]) for each in pods}
    if cluster.get(service.kind, service.namespace, service.name) is not None:
        left.add(full_name(service.kind, None, service.name))
    return frozenset(left)
