"""A deployment that cannot become ready, as an error: why, the end of the log that tells, a remedy.

In:  a `Failure`, and the cluster that has the log.
Out: `FailedError`.
"""

from __future__ import annotations

from typing import Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.pod_steps import Failure
from kvswarm.kserve.refusals import ClusterError
from kvswarm.kserve.teardown import Made

LOG_LINES: Final = 20
LOGGED: Final = frozenset({"load", "storage", "crash"})
"""Failures of a container that ran: its log tells more."""
FIXES: Final = {
    "load": "Mend what its log names: a smaller model, more memory (--memory, --gpus), other "
    "features of the profile (--set vllm_features.KEY=VALUE).",
    "spec": "Mend what it names; `kvswarm manifest` shows what was applied.",
    "storage": "Check --model, and that --secret or --service-account may read it.",
    "crash": "Mend what its log names; `kvswarm manifest` shows the server's arguments.",
    "image": "Check the image's name (--image), and that the nodes may pull it.",
    "container": "Check the secrets, claims and config maps that the manifests name.",
    "quota": "Ask for less (--cpu, --memory, --gpus, --min-replicas), or have the quota raised.",
    "deleted": "Deploy again, once nobody deletes it.",
}


class FailedError(ClusterError):
    """The cluster took the manifests, and the service cannot become ready, or not in time."""


def failed(cluster: Cluster, service: Made, failure: Failure) -> FailedError:
    """Why it cannot be, with the end of the log that tells."""
    lines = _log_of(cluster, service.namespace, failure)
    shown = f"; the end of its log:{''.join(lines)}" if lines else ""
    return FailedError(f"{service.words}: {failure.what}{shown}", fix=FIXES[failure.kind])


def _log_of(cluster: Cluster, namespace: str, failure: Failure) -> list[str]:
    """Of the instance that failed; of the one that came after it where that log is gone."""
    if failure.kind not in LOGGED or failure.pod is None or failure.container is None:
        return []
    told = ""
    for previous in (True, False) if failure.restarted else (False,):
        try:
            lines = cluster.logs(
                namespace,
                failure.pod,
                failure.container,
                tail_lines=LOG_LINES,
                previous=previous,
            )
        except ClusterError as error:
            told = f"\n    (not to be read: {error.message})"
        else:
            return [f"\n    {line}" for line in lines]
    return [told]
