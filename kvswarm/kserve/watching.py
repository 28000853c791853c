"""Watch objects of several kinds at once, through cuts of the connection and a restarted server.

In:  `Watched`s.
Out: `Change`s in one queue, in the order in which they came: for each object its newest state.

Each kind has a thread with one watch. A watch that ends goes on from the last version that it saw;
where the API server no longer knows that version, all is listed again, and what is gone meanwhile
is told as deleted. An API server that does not answer is asked again until `patience_s` is over.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.kserve.cluster import Cluster, selectors
from kvswarm.kserve.kinds import Kind
from kvswarm.kserve.refusals import (
    GONE,
    Asked,
    ClusterError,
    ExpiredError,
    UnreachableError,
    refusal,
)

WATCH_S: Final = 300
PATIENCE_S: Final = 60.0
"""As long as an API server may take to be restarted."""
PAUSE_S: Final = 0.2
MOST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Objects of a kind, by labels or by name."""

    kind: Kind
    namespace: str | None
    labels: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An object's newest state; `deleted`: its last one. `time_ns` is when this process had it.

    `listed`: it was found so by listing, and came about at any time before.
    """

    kind: Kind
    document: dict[str, Any]
    deleted: bool
    time_ns: int
    listed: bool = False

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.document["metadata"]["name"])


class Watching:
    """Watches until it is left. Use as a context manager."""

    def __init__(
        self, cluster: Cluster, watched: Sequence[Watched], patience_s: float = PATIENCE_S
    ) -> None:
        self._changes: queue.SimpleQueue[Change | ClusterError] = queue.SimpleQueue()
        self._over = threading.Event()
        self._watches = [
            _Watch(cluster, each, self._changes, self._over, patience_s) for each in watched
        ]

    def __enter__(self) -> Watching:
        """Begin."""
        for watch in self._watches:
            watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all watches; waits for none that hangs."""
        self._over.set()
        for watch in self._watches:
            watch.cut()

    def next(self, timeout_s: float) -> Change | None:
        """The next change; None: there was none in time. Raises ClusterError that ended a watch."""
        try:
            change = self._changes.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(change, ClusterError):
            raise change
        return change


class _Watch(threading.Thread):
    """One watch."""

    def __init__(
        self,
        cluster: Cluster,
        watched: Watched,
        changes: queue.SimpleQueue[Change | ClusterError],
        over: threading.Event,
        patience_s: float,
    ) -> None:
        super().__init__(daemon=True, name=f"watch of {watched.kind.plural}")
        self._cluster, self._watched = cluster, watched
        self._changes, self._over, self._patience_s = changes, over, patience_s
        self._known: dict[str, dict[str, Any]] = {}
        self._version: str | None = None
        self._response: Any = None
        self._heard_s = time.monotonic()
        self._pause_s = PAUSE_S

    def run(self) -> None:
        """See the module."""
        while not self._over.is_set():
            try:
                if self._version is None:
                    self._list()
                self._follow()
            except ExpiredError:
                self._version = None
            except UnreachableError as error:
                if time.monotonic() - self._heard_s > self._patience_s:
                    return self._changes.put(error)
                self._over.wait(self._pause_s)
                self._pause_s = min(MOST_PAUSE_S, 2 * self._pause_s)
            except ClusterError as error:
                return self._changes.put(error)
            else:
                self._over.wait(PAUSE_S)  # a server may end each watch at once
        return None

    def cut(self) -> None:
        """End a wait for the next line."""
        if self._response is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self._response.shutdown()

    def _list(self) -> None:
        watched = self._watched
        items, self._version = self._cluster.list_all(
            watched.kind, watched.namespace, labels=watched.labels, name=watched.name
        )
        self._heard()
        there = {str(item["metadata"]["uid"]): item for item in items}
        for uid, document in list(self._known.items()):
            if uid not in there:
                self._tell(document, deleted=True, listed=True)
        for document in there.values():
            self._tell(document, deleted=False, listed=True)

    def _follow(self) -> None:
        """Tell each change until the watch ends. Raises ClusterError."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        watched = self._watched
        query = {
            **selectors(watched.labels, watched.name),
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(WATCH_S),
        }
        response = self._cluster.open_watch(watched.kind, watched.namespace, query)
        self._response = response
        self._heard()
        try:
            if self._over.is_set():
                return  # left before `cut` could see this response
            for line in response:
                if self._over.is_set():
                    return
                self._take(json.loads(line))
        except (HTTPError, OSError, ValueError):
            return  # cut: go on from the last version
        finally:
            response.close()

    def _take(self, event: dict[str, Any]) -> None:
        document = event["object"]
        if event["type"] == "ERROR":
            status = int(document.get("code") or GONE)
            asked = Asked(verb="watch", kind=self._watched.kind, namespace=self._watched.namespace)
            raise refusal(asked, status, json.dumps(document).encode())
        self._heard()
        self._version = str(document["metadata"]["resourceVersion"])
        if event["type"] != "BOOKMARK":
            self._tell(document, deleted=event["type"] == "DELETED")

    def _tell(self, document: dict[str, Any], *, deleted: bool, listed: bool = False) -> None:
        uid = str(document["metadata"]["uid"])
        known = self._known.get(uid)
        version = document["metadata"]["resourceVersion"]
        if not deleted and known is not None and known["metadata"]["resourceVersion"] == version:
            return
        if deleted:
            self._known.pop(uid, None)
        else:
            self._known[uid] = document
        self._changes.put(
            Change(
                kind=self._watched.kind,
                document=document,
                deleted=deleted,
                time_ns=time.time_ns(),
                listed=listed,
            )
        )

    def _heard(self) -> None:
        self._heard_s = time.monotonic()
        self._pause_s = PAUSE_S
