"""Deploy manifests, wait until the service is ready, and leave nothing behind where it never is.

In:  a cluster, `Manifests`, `DeployOptions`.
Out: `Deployment`, and `deployment.json` in a directory of its own; lines for a person as it goes.
Not: what the objects say (`progress.py`), the file (`deployment_file.py`), removal (`teardown.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kvswarm.errors import RunDirError
from kvswarm.kserve.applying import Applied, apply_all, command_line, service_of
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deployment_file import (
    Recorded,
    ServedPod,
    version_of,
    write_deployment,
)
from kvswarm.kserve.kinds import KINDS, full_name
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.phases import NS, Start, pod_times, reached, seconds
from kvswarm.kserve.pod_steps import Failure, is_true
from kvswarm.kserve.progress import Progress, Seen, pod_labels, progress, why_not_ready
from kvswarm.kserve.refusals import ClusterError, UnreachableError
from kvswarm.kserve.teardown import TeardownOptions, remove
from kvswarm.kserve.watching import PATIENCE_S, Change, Watched, Watching

TIMEOUT_S: Final = 1800.0
SCHEDULE_TIMEOUT_S: Final = 300.0
"""A cluster's autoscaler may need minutes to add a node."""
LOOK_EVERY_S: Final = 1.0
SETTLED_S: Final = 15.0
"""A change of a service that is there shows by then in its status, where it does at all."""
LOG_LINES: Final = 20
POD: Final = KINDS["Pod"]
EVENT: Final = KINDS["Event"]
Say = Callable[[str], None]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """How a deployment is made, and what is left of it."""

    timeout_s: float = TIMEOUT_S
    """In all, until it is ready."""
    schedule_timeout_s: float = SCHEDULE_TIMEOUT_S
    """How long a pod may find no node."""
    keep: bool = False
    """Leave it, also where it fails or is interrupted."""
    force: bool = False
    """Also change what others manage."""
    directory: Path | None = None
    """Of `deployment.json`, new or empty; None: it is not written."""
    context: str | None = None
    """Of the kubeconfig, for command lines to paste."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, for `deployment.json`."""
    patience_s: float = PATIENCE_S
    """How long an API server may be away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A service that is ready."""

    kind: str
    namespace: str
    service: str
    url: str | None
    """None: the cluster does not say where it is reached."""
    phases: Mapping[str, float | None]
    """Seconds since it was applied: `scheduled_s`, `initialized_s`, `pulled_s`, `started_s` of the
    last of its pods, and `ready_s` of the service. None: not reached, or not told."""
    pods: tuple[ServedPod, ...]
    file: Path | None
    """`deployment.json`."""


@contextlib.contextmanager
def deployed(
    cluster: Cluster, manifests: Manifests, options: DeployOptions, say: Say
) -> Iterator[Deployment]:
    """Deploy, give the ready service, and remove it on leaving, however that is, unless it is kept.

    Raises ClusterError: see `deploy`; where it cannot be removed, with what was left behind.
    """
    going = _Going(cluster, manifests, options, say)
    deployment = going.run()
    try:
        yield deployment
    except BaseException as error:
        going.undo(error)
        raise
    else:
        if not options.keep:
            going.remove()


def deploy(cluster: Cluster, manifests: Manifests, options: DeployOptions, say: Say) -> Deployment:
    """Apply the manifests and wait until the service is ready.

    Raises ClusterError where the cluster refuses them, the service cannot become ready or does not
    in time, or the API server is away for too long; RunDirError where `deployment.json` cannot be
    written. Whatever ends it, KeyboardInterrupt too: what it made is removed, unless it is kept,
    and what is left behind is named.
    """
    return _Going(cluster, manifests, options, say).run()


class _Going:
    """One deployment, from its manifests to a ready service, or back to nothing."""

    def __init__(
        self, cluster: Cluster, manifests: Manifests, options: DeployOptions, say: Say
    ) -> None:
        self._cluster, self._manifests = cluster, manifests
        self._options, self._say = options, say
        self._service = service_of(manifests.documents)
        self._labels = pod_labels(self._service.kind, self._service.name)
        self._applied = Applied()
        self._start = Start(seen_ns=time.time_ns(), cluster_s=None)
        self._begun_s = time.monotonic()
        self._unschedulable_since_s: float | None = None
        self._seen = Seen()
        self._events: dict[str, dict[str, Any]] = {}
        self._pods: dict[str, dict[str, Any]] = {}
        self._seen_ns: dict[str, dict[str, int]] = {}
        self._told: dict[str, str] = {}
        self._version: str | None = None

    def run(self) -> Deployment:
        """See `deploy`."""
        self._version = version_of(self._cluster)
        self._record("started")
        try:
            self._apply()
            done = self._wait()
            self._look_again()
        except BaseException as error:
            self.undo(error)
            ended = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            try:
                self._record(ended, error=error)
            except RunDirError as unwritten:
                self._say(unwritten.message)
            raise
        ready_s = (time.time_ns() - self._start.seen_ns) / NS
        return self._record("ready", url=done.url, ready_s=ready_s)

    # -- forward -----------------------------------------------------------------------------

    def _apply(self) -> None:
        old_events, _ = self._cluster.list_all(EVENT, self._service.namespace)
        self._old_events = {_version(each) for each in old_events}
        old_pods, _ = self._cluster.list_all(POD, self._service.namespace, labels=self._labels)
        self._old_pods = {str(each["metadata"]["uid"]) for each in old_pods}
        apply_all(
            self._cluster, self._manifests.documents, self._applied, force=self._options.force
        )
        for made in self._applied.words:
            self._say(made)
        self._begun_s = time.monotonic()
        service = self._applied.service
        if not (self._applied.is_new or self._applied.is_same):
            old = (service.get("status") or {}).get("modelStatus")
            self._seen = replace(self._seen, old_model_status=old)
        created = service["metadata"]["creationTimestamp"] if self._applied.is_new else None
        self._start = Start(
            seen_ns=time.time_ns(), cluster_s=None if created is None else seconds(created)
        )

    def _wait(self) -> Progress:
        namespace = self._service.namespace
        watched = [
            Watched(kind=self._service.kind, namespace=namespace, name=self._service.name),
            Watched(kind=POD, namespace=namespace, labels=self._labels),
            Watched(kind=EVENT, namespace=namespace),
        ]
        with Watching(self._cluster, watched, self._options.patience_s) as watching:
            while True:
                change = watching.next(LOOK_EVERY_S)
                if change is not None:
                    self._take(change)
                if time.monotonic() - self._begun_s > SETTLED_S:
                    self._seen = replace(self._seen, old_model_status=None)
                now = progress(self._seen)
                self._tell(now)
                if now.failure is not None:
                    raise self._failed(self._whole(now.failure))
                if now.ready and self._is_settled():
                    return now
                self._check_time(now)

    def _is_settled(self) -> bool:
        """Whether Ready is about what was applied: a changed service is first as it was before."""
        if self._applied.is_new or self._applied.is_same:
            return True
        if self._pods:
            return all(is_true(pod, "Ready") for pod in self._pods.values())
        return time.monotonic() - self._begun_s > SETTLED_S

    def _take(self, change: Change) -> None:
        """Bring what is known up to date."""
        if change.kind is EVENT:
            about = str((change.document.get("involvedObject") or {}).get("name", ""))
            ours = about.startswith(self._service.name)
            if ours and _version(change.document) not in self._old_events:
                self._events[change.name] = change.document
        elif change.kind is POD:
            self._take_pod(change)
        elif change.deleted:
            what = f"somebody deleted {self._service.words}"
            raise self._failed(Failure(kind="deleted", what=what))
        else:
            self._seen = replace(self._seen, service=change.document)
        self._seen = replace(self._seen, pods=dict(self._pods), events=tuple(self._events.values()))

    def _take_pod(self, change: Change) -> None:
        if str(change.document["metadata"]["uid"]) in self._old_pods and not self._applied.is_same:
            return  # it serves what was there before
        if change.deleted:
            self._pods.pop(change.name, None)
            return
        self._pods[change.name] = change.document
        moments = self._seen_ns.setdefault(change.name, {})
        for phase in reached(change.document, list(self._events.values())):
            moments.setdefault(phase, change.time_ns)

    def _tell(self, now: Progress) -> None:
        """Say each line that is not as it was."""
        for line in now.lines:
            about, _, words = line.partition(": ")
            if self._told.get(about) != words:
                self._told[about] = words
                self._say(f"{time.monotonic() - self._begun_s:5.0f} s  {line}")

    def _check_time(self, now: Progress) -> None:
        moment_s = time.monotonic()
        if now.unschedulable is None:
            self._unschedulable_since_s = None
        elif self._unschedulable_since_s is None:
            self._unschedulable_since_s = moment_s
        elif moment_s - self._unschedulable_since_s > self._options.schedule_timeout_s:
            raise FailedError(
                f"{self._service.words}: no node for its pod within "
                f"{self._options.schedule_timeout_s:g} s (--schedule-timeout): {now.unschedulable}",
                fix="Ask for less (--gpus, --cpu, --memory) or for other nodes (--node-selector, "
                "--toleration, --gpu-resource), or wait longer.",
            )
        if moment_s - self._begun_s > self._options.timeout_s:
            raise FailedError(
                f"{self._service.words}: not ready within {self._options.timeout_s:g} s "
                f"(--timeout): {why_not_ready(self._seen)}",
                fix="Wait longer with --timeout, or see what holds it with --keep and: "
                f"kubectl describe -n {self._service.namespace} "
                f"{full_name(self._service.kind, None, self._service.name)}",
            )

    def _look_again(self) -> None:
        """A service may be told ready before its pods are."""
        namespace = self._service.namespace
        pods, _ = self._cluster.list_all(POD, namespace, labels=self._labels)
        for kind, documents in ((EVENT, self._cluster.list_all(EVENT, namespace)[0]), (POD, pods)):
            for document in documents:
                change = Change(kind=kind, document=document, deleted=False, time_ns=time.time_ns())
                self._take(change)
        self._tell(progress(self._seen))

    def _whole(self, failure: Failure) -> Failure:
        """The failure with its pod: KServe may be heard of before the pod that it speaks of is."""
        if failure.pod is None:
            with contextlib.suppress(ClusterError):
                self._look_again()
        return progress(self._seen).failure or failure

    def _failed(self, failure: Failure) -> FailedError:
        """Why it cannot be, with the end of the log that tells."""
        lines = self._log_of(failure)
        shown = f"; the end of its log:{''.join(lines)}" if lines else ""
        return FailedError(f"{self._service.words}: {failure.what}{shown}", fix=FIXES[failure.kind])

    def _log_of(self, failure: Failure) -> list[str]:
        if failure.kind not in LOGGED or failure.pod is None or failure.container is None:
            return []
        namespace = self._service.namespace
        for previous in (True, False) if failure.restarted else (False,):
            try:
                lines = self._cluster.logs(
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

    # -- back --------------------------------------------------------------------------------

    def remove(self) -> None:
        """Delete what was made, and wait until its pods are gone. Raises ClusterError."""
        options = TeardownOptions(patience_s=self._options.patience_s)
        try:
            remove(self._cluster, self._applied.made, options, self._say)
        except ClusterError as error:
            error.fix = f"{error.fix}\n  {self._left_behind()}".strip()
            raise

    def undo(self, error: BaseException) -> None:
        """Remove what was made, unless it is kept; where it is not removed, name it."""
        left = bool(self._applied.made or self._applied.changed)
        if self._applied.made and not self._options.keep:
            try:
                self.remove()
                left = bool(self._applied.changed)
            except ClusterError as again:
                if not isinstance(error, UnreachableError):
                    self._say(f"not removed: {again.message}")
            except KeyboardInterrupt:
                self._say("interrupted again: what is left stays")
        if not left:
            return
        if isinstance(error, ClusterError):
            error.fix = f"{error.fix}\n  {self._left_behind()}".strip()
        else:
            self._say(self._left_behind())

    def _left_behind(self) -> str:
        names = [each.words for each in (*self._applied.made, *self._applied.changed)]
        remover = command_line(
            "teardown", self._service.namespace, self._service.name, self._options.context
        )
        return f"Left behind: {', '.join(names)}. Remove with: {remover}"

    # -- what is kept ------------------------------------------------------------------------

    def _record(
        self,
        ended: str,
        *,
        url: str | None = None,
        ready_s: float | None = None,
        error: BaseException | None = None,
    ) -> Deployment:
        events = list(self._events.values())
        pods = tuple(
            ServedPod.of(
                document,
                pod_times(document, events, self._seen_ns.get(name, {}), self._start),
            )
            for name, document in sorted(self._pods.items())
        )
        recorded = Recorded(
            service=self._service,
            server=self._cluster.server,
            version=self._version,
            manifests=self._manifests,
            flags=self._options.flags,
            start=self._start,
            pods=pods,
            ended=ended,
            url=url,
            ready_s=ready_s,
            error=None if error is None else str(error) or type(error).__name__,
        )
        file = None
        if self._options.directory is not None:
            file = write_deployment(self._options.directory, recorded)
        return Deployment(
            kind=self._service.kind.name,
            namespace=self._service.namespace,
            service=self._service.name,
            url=url,
            phases=recorded.phases,
            pods=pods,
            file=file,
        )


def _version(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = document["metadata"]
    return str(metadata["uid"]), str(metadata["resourceVersion"])
