"""Wait until a service has no pods, so that what comes next is a cold start.

In:  a cluster, the labels of the pods, how long to wait.
Out: nothing; raises TargetError where pods are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.errors import TargetError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.watching import Watched, Watching

POD = KINDS["Pod"]
LIST_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Whose pods are to be gone, and within what time."""

    namespace: str
    service: str
    labels: str
    timeout_s: float


def wait_until_asleep(cluster: Cluster, awaited: Awaited, say: Callable[[str], None]) -> None:
    """Return once no pod is there. `say`: tells a person that and for what it waits.

    Raises TargetError, which names the pods that are left in the end; ClusterError.
    """
    give_up_s = time.monotonic() + awaited.timeout_s
    watched = Watched(kind=POD, namespace=awaited.namespace, labels=awaited.labels)
    shown: list[str] = []
    with Watching(cluster, [watched], patience_s=awaited.timeout_s) as watching:
        # A watch says nothing of no pods, nor of one that went before it: a list decides.
        while left := _left(cluster, awaited):
            if left != shown:
                say(f"waiting until it is scaled to zero: {_names(left)}")
                shown = left
            if time.monotonic() > give_up_s:
                raise TargetError(
                    f"--cold: after {awaited.timeout_s:g} s {awaited.service} in namespace "
                    f"{awaited.namespace} still has {_names(left)}",
                    fix="Keep requests away from it; its autoscaler decides when it is idle. "
                    "--cold-timeout waits for longer.",
                )
            watching.next(min(LIST_EVERY_S, give_up_s - time.monotonic()))


def _left(cluster: Cluster, awaited: Awaited) -> list[str]:
    documents, _ = cluster.list_all(POD, awaited.namespace, labels=awaited.labels)
    return sorted(str(each["metadata"]["name"]) for each in documents)


def _names(pods: Sequence[str]) -> str:
    return ("pod " if len(pods) == 1 else "pods ") + ", ".join(pods)
