"""What the watches of one deployment have shown: the service, its pods, the events about them.

In:  `Change`s, and what was there before the deployment.
Out: `Seen`, for `progress`; each pod with its times.
Not: what earlier pods and events of the same name say, which are not this deployment's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.phases import PodTimes, Start, pod_times, reached
from kvswarm.kserve.pod_steps import is_true
from kvswarm.kserve.progress import Seen, pod_labels
from kvswarm.kserve.teardown import Made
from kvswarm.kserve.watching import Change, Watched

POD: Final = KINDS["Pod"]
EVENT: Final = KINDS["Event"]


class Sightings:
    """Of one deployment."""

    def __init__(self, service: Made) -> None:
        self._service = service
        self._labels = pod_labels(service.kind, service.name)
        self._old_events: set[tuple[str, str]] = set()
        self._old_pods: set[str] = set()
        self._events: dict[str, dict[str, Any]] = {}
        self._pods: dict[str, dict[str, Any]] = {}
        self._reached_ns: dict[str, dict[str, int]] = {}
        self.seen = Seen()

    @property
    def watched(self) -> list[Watched]:
        """What is to be watched."""
        namespace = self._service.namespace
        return [
            Watched(kind=self._service.kind, namespace=namespace, name=self._service.name),
            Watched(kind=POD, namespace=namespace, labels=self._labels),
            Watched(kind=EVENT, namespace=namespace),
        ]

    def begin(self, cluster: Cluster) -> None:
        """Note what is there before. Raises ClusterError."""
        events, _ = cluster.list_all(EVENT, self._service.namespace)
        self._old_events = {_version(each) for each in events}
        pods, _ = cluster.list_all(POD, self._service.namespace, labels=self._labels)
        self._old_pods = {str(each["metadata"]["uid"]) for each in pods}

    def same(self) -> None:
        """Nothing was changed: the pods that are there are this deployment's."""
        self._old_pods = set()

    def change_of(self, service: Mapping[str, Any]) -> None:
        """A service was changed that was there: what KServe says of its model is of before."""
        old = (service.get("status") or {}).get("modelStatus")
        self.seen = replace(self.seen, old_model_status=old)

    def settle(self) -> None:
        """KServe has had its time: what it still says is of now."""
        self.seen = replace(self.seen, old_model_status=None)

    def is_replaced(self, settled: bool) -> bool:  # noqa: FBT001 - a fact, not a switch
        """Whether the pods of a changed service are ready; without new ones, once it settled."""
        if self._pods:
            return all(is_true(pod, "Ready") for pod in self._pods.values())
        return settled

    def take(self, change: Change) -> None:
        """Bring what is known up to date."""
        if change.kind is EVENT:
            about = str((change.document.get("involvedObject") or {}).get("name", ""))
            ours = about.startswith(self._service.name)
            if ours and _version(change.document) not in self._old_events:
                self._events[change.name] = change.document
        elif change.kind is POD:
            self._take_pod(change)
        else:
            self.seen = replace(self.seen, service=change.document, is_deleted=change.deleted)
        events = tuple(self._events.values())
        self.seen = replace(self.seen, pods=dict(self._pods), events=events)

    def look(self, cluster: Cluster) -> None:
        """List the pods and events once more. Raises ClusterError."""
        namespace = self._service.namespace
        events, _ = cluster.list_all(EVENT, namespace)
        pods, _ = cluster.list_all(POD, namespace, labels=self._labels)
        for kind, documents in ((EVENT, events), (POD, pods)):
            for document in documents:
                now_ns = time.time_ns()
                self.take(Change(kind=kind, document=document, deleted=False, time_ns=now_ns))

    def timed_pods(self, start: Start) -> Iterator[tuple[dict[str, Any], PodTimes]]:
        """Each pod that is there, by its name, and its times."""
        events = list(self._events.values())
        for name, pod in sorted(self._pods.items()):
            yield pod, pod_times(pod, events, self._reached_ns.get(name, {}), start)

    def _take_pod(self, change: Change) -> None:
        if str(change.document["metadata"]["uid"]) in self._old_pods:
            return
        if change.deleted:
            self._pods.pop(change.name, None)
            return
        self._pods[change.name] = change.document
        moments = self._reached_ns.setdefault(change.name, {})
        for phase in reached(change.document, list(self._events.values())):
            moments.setdefault(phase, change.time_ns)


def _version(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = document["metadata"]
    return str(metadata["uid"]), str(metadata["resourceVersion"])
