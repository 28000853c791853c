"""Deploy manifests, wait until the service is ready, and leave nothing behind where it never is.

In:  a cluster, `Manifests`, `DeployOptions`.
Out: `Deployment`, and `deployment.json` in a directory of its own; lines for a person as it goes.
Not: what the objects say (`progress.py`), the file (`deployment_file.py`), removal (`teardown.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
from kvswarm.kserve.failing import FailedError, failed
from kvswarm.kserve.kinds import full_name
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.phases import NS, Start, seconds
from kvswarm.kserve.pod_steps import Failure
from kvswarm.kserve.progress import Progress, progress, why_not_ready
from kvswarm.kserve.refusals import ClusterError, UnreachableError
from kvswarm.kserve.sightings import Sightings
from kvswarm.kserve.teardown import TeardownOptions, remove
from kvswarm.kserve.watching import PATIENCE_S, Watching

TIMEOUT_S: Final = 1800.0
SCHEDULE_TIMEOUT_S: Final = 300.0
"""A cluster's autoscaler may need minutes to add a node."""
LOOK_EVERY_S: Final = 1.0
SETTLED_S: Final = 15.0
"""A change of a service that is there shows by then in its status, where it does at all."""
Say = Callable[[str], None]


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
        self._applied = Applied()
        self._start = Start(seen_ns=time.time_ns(), cluster_s=None)
        self._begun_s = time.monotonic()
        self._unschedulable_since_s: float | None = None
        self._sightings = Sightings(self._service)
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
        self._sightings.begin(self._cluster)
        apply_all(
            self._cluster, self._manifests.documents, self._applied, force=self._options.force
        )
        for made in self._applied.words:
            self._say(made)
        self._begun_s = time.monotonic()
        service = self._applied.service
        if self._is_changed:
            self._sightings.change_of(service)
        elif self._applied.is_same:
            self._sightings.same()
        created = service["metadata"]["creationTimestamp"] if self._applied.is_new else None
        self._start = Start(
            seen_ns=time.time_ns(), cluster_s=None if created is None else seconds(created)
        )

    @property
    def _is_changed(self) -> bool:
        """The service was there, and is not as it was."""
        return not (self._applied.is_new or self._applied.is_same)

    def _wait(self) -> Progress:
        watched = self._sightings.watched
        with Watching(self._cluster, watched, self._options.patience_s) as watching:
            while True:
                change = watching.next(LOOK_EVERY_S)
                if change is not None:
                    self._sightings.take(change)
                settled = time.monotonic() - self._begun_s > SETTLED_S
                if settled:
                    self._sightings.settle()
                now = progress(self._sightings.seen)
                self._tell(now)
                if now.failure is not None:
                    raise failed(self._cluster, self._service, self._whole(now.failure))
                if now.ready and (not self._is_changed or self._sightings.is_replaced(settled)):
                    return now
                self._check_time(now)

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
                f"(--timeout): {why_not_ready(self._sightings.seen)}",
                fix="Wait longer with --timeout, or see what holds it with --keep and: "
                f"kubectl describe -n {self._service.namespace} "
                f"{full_name(self._service.kind, None, self._service.name)}",
            )

    def _look_again(self) -> None:
        """A service may be told ready before its pods are."""
        self._sightings.look(self._cluster)
        self._tell(progress(self._sightings.seen))

    def _whole(self, failure: Failure) -> Failure:
        """The failure with its pod: KServe may be heard of before the pod that it speaks of is."""
        if failure.pod is None:
            with contextlib.suppress(ClusterError):
                self._look_again()
        return progress(self._sightings.seen).failure or failure

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
        pods = tuple(
            ServedPod.of(document, times)
            for document, times in self._sightings.timed_pods(self._start)
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
