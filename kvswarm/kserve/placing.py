"""Put a run on a cluster, find one that is there, and take it away.

In:  a `Cluster`, a run's documents or its name.
Out: `OfRun`, by which its master can be talked to.
Not: waiting for it, see `attending.py`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.collecting import Desk
from kvswarm.kserve.kinds import KINDS, kind_of
from kvswarm.kserve.on_cluster import (
    DIRECTORY_ANNOTATION,
    MASTER,
    PORT_ANNOTATION,
    TOKEN_KEY,
    WORKER,
    job_name,
    selector,
)
from kvswarm.kserve.refusals import (
    ClusterError,
    NotThereError,
    RefusedError,
    UnreachableError,
)

SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,200}")


class LeftError(ClusterError):
    """A run, or its results, are still on the cluster: the message says how to get at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfRun:
    """A run on a cluster, and what is needed to talk to its master."""

    cluster: Cluster
    namespace: str
    name: str
    directory: str
    port: int
    token: str
    workers: int

    def desk(self, pod: str) -> Desk:
        """Where the master in a pod hands its results over."""
        return Desk(self.cluster, self.namespace, pod, self.port, self.token)

    @property
    def fetch_command(self) -> str:
        """What fetches the results, or goes on with it."""
        return f"kvswarm fetch --namespace {self.namespace} --run {self.name}"

    @property
    def delete_command(self) -> str:
        """What takes all of it away."""
        kinds = "job,service,networkpolicy,configmap,secret,serviceaccount,role,rolebinding"
        return f"kubectl delete -n {self.namespace} {kinds} -l {selector(self.name)}"


def start(of: OfRun, documents: Sequence[dict[str, Any]]) -> None:
    """Apply the documents of a run, and give all of them to the master's Job.

    What the Job owns goes when the Job goes: also when nobody is left to delete it. On an error
    what was made is deleted. Raises ClusterError.
    """
    made: list[dict[str, Any]] = []
    try:
        for document in documents:
            try:
                applied = of.cluster.apply(document)
            except (UnreachableError, KeyboardInterrupt):
                made.append(document)  # it may be there
                raise
            made.append(document)
        owner = {
            "apiVersion": applied["apiVersion"],
            "kind": applied["kind"],
            "name": applied["metadata"]["name"],
            "uid": applied["metadata"]["uid"],
        }
        for document in documents[:-1]:
            metadata = {**document["metadata"], "ownerReferences": [owner]}
            of.cluster.apply({**document, "metadata": metadata})
    except (ClusterError, KeyboardInterrupt) as error:
        try:
            remove(of.cluster, made)
        except ClusterError as left:
            raise LeftError(
                f"{error}\n  What was made of the run could not be deleted: {left.message}",
                fix=f"Delete it: {of.delete_command}",
            ) from error
        raise


def remove(cluster: Cluster, documents: Sequence[dict[str, Any]]) -> None:
    """Delete the documents' objects, the Jobs first: all that can be. Raises ClusterError."""
    failures = []
    for document in reversed(documents):
        metadata = document["metadata"]
        try:
            cluster.delete(kind_of(document), metadata["namespace"], metadata["name"])
        except ClusterError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def remove_run(of: OfRun) -> None:
    """Delete the Jobs of a run that others started; what they own goes with them."""
    for part in (WORKER, MASTER):
        of.cluster.delete(KINDS["Job"], of.namespace, job_name(of.name, part))


def find_run(cluster: Cluster, namespace: str, name: str) -> OfRun:
    """A run that is on the cluster. Raises ClusterError where it is not, or hands nothing over."""
    job = cluster.get(KINDS["Job"], namespace, job_name(name, MASTER))
    if job is None:
        raise NotThereError(
            f"--run {name}: there is none of that name in namespace {namespace}",
            fix="List them: kubectl get jobs -l app.kubernetes.io/managed-by=kvswarm "
            f"-n {namespace}. Jobs that have ended are deleted after a while.",
        )
    notes = job["metadata"].get("annotations", {})
    secret = cluster.get(KINDS["Secret"], namespace, name) or {}
    token = secret.get("data", {}).get(TOKEN_KEY)
    directory = notes.get(DIRECTORY_ANNOTATION, "")
    if token is None or PORT_ANNOTATION not in notes or not SAFE_NAME.fullmatch(directory):
        raise RefusedError(
            f"--run {name}: hands no results over: its Job or Secret does not say how",
            fix="Its results are on the claim that it mounts at /runs, if it has one.",
        )
    workers = cluster.get(KINDS["Job"], namespace, job_name(name, WORKER)) or {}
    return OfRun(
        cluster=cluster,
        namespace=namespace,
        name=name,
        directory=directory,
        port=int(notes[PORT_ANNOTATION]),
        token=base64.b64decode(token).decode(),
        workers=int(workers.get("spec", {}).get("completions", 1)),
    )
