"""Record what becomes of a service's pods and of its wanted replicas while it is measured.

In:  a cluster, and the labels of the service's pods and deployments.
Out: cluster.jsonl (`kvswarm.clusterlog`): a line for each change, as it comes.

Two threads: one writes what the watches tell, the other asks the API server for its time, and so
finds out when it is away. Nothing here ends a run: what cannot be followed is told by a note, and
an API server that is away is asked again until the run is over.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.clusterlog import (
    LogWriter,
    NoteEntry,
    PodEntry,
    ServiceEntry,
    WantedEntry,
)
from kvswarm.kserve.api_clock import FIRST_ANSWERS, ClockKeeper
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS, Kind
from kvswarm.kserve.pod_states import pod_entry, wanted_entry
from kvswarm.kserve.refusals import ClusterError
from kvswarm.kserve.watching import Change, Watched, Watching

POD, DEPLOYMENT = KINDS["Pod"], KINDS["Deployment"]
WAIT_S: Final = 0.5
"""How long the end of a run may have to wait for the threads to see it."""
FIRST_PAUSE_S: Final = 0.13
"""So that the first answers are spread over the parts of a second."""
PAUSE_S: Final = 2.0
ANSWER_S: Final = 5.0
"""An API server that takes longer is away."""
LAST_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Whose pods are followed: all that have these labels, as deployments have them, too."""

    namespace: str
    service: str
    labels: str


class Timeline:
    """Records until it is left. Use as a context manager; entering it lists what is there."""

    def __init__(
        self, cluster: Cluster, followed: Followed, path: Path, say: Callable[[str], None]
    ) -> None:
        """`say` tells a person what goes wrong. Raises OSError where `path` cannot be written."""
        self._cluster, self._followed, self._say = cluster, followed, say
        self._log = LogWriter(path, lambda error: say(f"{path}: {error.strerror}: not recorded"))
        self._over = threading.Event()
        self._kinds: tuple[Kind, ...] = ()
        self._last: dict[str, PodEntry | WantedEntry] = {}
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"timeline: {target.__name__}")
            for target in (self._follow, self._keep_time)
        ]

    def __enter__(self) -> Timeline:
        """Write down what is there, and begin; what may not be listed is not watched either."""
        found: dict[str, list[Change]] = {}
        notes = []
        for kind in (POD, DEPLOYMENT):
            try:
                found[kind.name] = self._listed(kind)
            except ClusterError as error:
                notes.append(f"the {kind.plural} of the service are not known: {error}")
        self._kinds = tuple(KINDS[name] for name in found)
        self._say_what_is_known()
        for text in notes:
            self._note(text)
        for change in (change for changes in found.values() for change in changes):
            self._take(change)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a thread that waits for an answer is left to itself."""
        self._over.set()
        for thread in self._threads:
            thread.join(LAST_S)
        self._log.close()

    def _say_what_is_known(self) -> None:
        followed = self._followed
        self._log.append(
            ServiceEntry(
                time_ns=time.time_ns(),
                namespace=followed.namespace,
                service=followed.service,
                pods_known=POD in self._kinds,
                wanted_known=DEPLOYMENT in self._kinds,
            )
        )

    def _lose(self, kind: Kind) -> None:
        """What may be listed and not watched stands still in the log, and must not be believed."""
        self._kinds = tuple(each for each in self._kinds if each is not kind)
        self._say_what_is_known()

    def _listed(self, kind: Kind) -> list[Change]:
        documents, _ = self._cluster.list_all(
            kind, self._followed.namespace, labels=self._followed.labels
        )
        now_ns = time.time_ns()
        return [
            Change(kind=kind, document=each, deleted=False, time_ns=now_ns, listed=True)
            for each in documents
        ]

    def _note(self, text: str) -> None:
        self._log.append(NoteEntry(time_ns=time.time_ns(), text=text))
        self._say(text)

    # -- pods and deployments ----------------------------------------------------------------

    def _follow(self) -> None:
        """Write each change, until the run is over."""
        watched = [
            Watched(kind=kind, namespace=self._followed.namespace, labels=self._followed.labels)
            for kind in self._kinds
        ]
        with Watching(self._cluster, watched, patience_s=math.inf) as watching:
            while not self._over.is_set():
                try:
                    change = watching.next(WAIT_S)
                except ClusterError as error:  # one watch has ended; the other goes on
                    self._note(f"the service is not followed any more: {error}")
                    self._lose(POD if DEPLOYMENT.plural not in error.message else DEPLOYMENT)
                    continue
                if change is not None:
                    self._take(change)

    def _take(self, change: Change) -> None:
        """Write a state, unless it is the one that is written already."""
        metadata = change.document["metadata"]
        entry: PodEntry | WantedEntry
        try:
            if change.kind is POD:
                entry = pod_entry(
                    change.document, change.time_ns, deleted=change.deleted, listed=change.listed
                )
            else:
                entry = wanted_entry(change.document, change.time_ns, deleted=change.deleted)
        except (KeyError, TypeError, ValueError) as error:
            self._note(f"{change.kind.name} {metadata.get('name')} makes no sense: {error!r}")
            return
        uid = str(metadata["uid"])
        before = self._last.get(uid)
        if before is None or _state(before) != _state(entry):
            self._last[uid] = entry
            self._log.append(entry)

    # -- the API server's clock --------------------------------------------------------------

    def _keep_time(self) -> None:
        """Ask for the API server's time, and write what that tells of its clock and absences."""
        keeper = ClockKeeper(time.time_ns())
        pause_s = 0.0
        while not self._over.wait(pause_s):
            try:
                answer = self._cluster.clock(ANSWER_S)
            except ClusterError as error:
                if keeper.missed():
                    self._say(f"{error.message}; the run goes on")
            else:
                for entry in keeper.answered(answer):
                    self._log.append(entry)
            pause_s = FIRST_PAUSE_S if keeper.answers < FIRST_ANSWERS else PAUSE_S
        for entry in keeper.ended(time.time_ns()):
            self._log.append(entry)


def _state(entry: PodEntry | WantedEntry) -> Any:
    """What an entry says, whenever it was seen."""
    if isinstance(entry, PodEntry):
        return msgspec.structs.replace(entry, time_ns=0, listed=False)
    return msgspec.structs.replace(entry, time_ns=0)
