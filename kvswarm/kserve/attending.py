"""Be there for a run on the cluster: start it, watch it, fetch its results, take it away.

In:  a `Cluster`, the run's documents or its name.
Out: the run directory here; how the run ended, as its master said.
Not: deciding the manifests (`on_cluster.py`), what pods' states mean (`run_standing.py`).

Whoever attends may leave and come back: all that is needed to go on is on the cluster, in the
master's Job and the run's Secret.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvswarm.archive import unpack
from kvswarm.errors import EXIT_INTERRUPTED, RunDirError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.collecting import Desk
from kvswarm.kserve.handing import State
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
    NotAllowedError,
    NotThereError,
    RefusedError,
    UnreachableError,
)
from kvswarm.kserve.run_standing import Standing, Trouble, how_master_ended, master_pod, standing
from kvswarm.kserve.watching import Watched, Watching

ASK_EVERY_S: Final = 1.0
SCHEDULE_S: Final = 300.0
"""How long a pod may find no node: a cluster's autoscaler adds one within that."""
LOG_LINES: Final = 15
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,200}")

Say = Callable[[str], None]


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


class StoppedError(ClusterError):
    """A person stopped the run before its master could be told: there is nothing to keep."""

    exit_code = EXIT_INTERRUPTED


@dataclass(slots=True)
class Wishes:
    """What a person wants meanwhile; a signal's handler sets it."""

    stop: threading.Event = field(default_factory=threading.Event)
    can_stop: bool = True
    """Whether the run goes on, so that there is something to stop in order."""


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


def collect(of: OfRun, target: Path, wishes: Wishes, say: Say) -> State:
    """Wait for the run's end, and make `target`, its run directory, where it left one.

    The master has not been told yet that its results were taken: see `acknowledge`. Raises
    ClusterError where the run cannot start, ended without a word, or its results cannot be had.
    """
    with _Attendance(of, wishes, say) as attendance:
        state, desk = attendance.until_ended()
    wishes.can_stop = False
    if state.archive_bytes is None:
        return state
    partial = target.with_name(f".{target.name}.tar.gz")
    partial.parent.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {state.archive_bytes / 1e6:.1f} MB of results.")
    try:
        desk.fetch(state, partial, lambda: time.sleep(ASK_EVERY_S))
        unpack(partial, target)
    except (ClusterError, RunDirError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        raise LeftError(
            f"the run has ended, but its results are not here: {why}",
            fix=f"They wait on the cluster: {of.fetch_command}\n"
            f"  Without them: {of.delete_command}",
        ) from error
    partial.unlink()
    return state


def acknowledge(of: OfRun) -> None:
    """Tell the master that its results are here; where it is gone by now, all the better."""
    pods, _ = of.cluster.list_all(KINDS["Pod"], of.namespace, labels=selector(of.name))
    pod = master_pod(pods)
    if pod is None:
        return
    try:
        of.desk(pod).taken()
    except (UnreachableError, NotThereError):
        return


class _Attendance:
    """Watches of one run until it has ended."""

    def __init__(self, of: OfRun, wishes: Wishes, say: Say) -> None:
        self._of, self._wishes, self._say = of, wishes, say
        events = Watched(kind=KINDS["Event"], namespace=of.namespace)
        own = [
            Watched(kind=KINDS[kind], namespace=of.namespace, labels=selector(of.name))
            for kind in ("Pod", "Job")
        ]
        self._watching = Watching(of.cluster, [*own, events])
        self._objects: dict[str, dict[str, dict[str, Any]]] = {"Pod": {}, "Job": {}, "Event": {}}
        self._told = ""
        self._unscheduled_s: float | None = None
        self._stop_told = False
        self._log: _Log | None = None
        self._had_master = False

    def __enter__(self) -> _Attendance:
        self._watching.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.__exit__()
        if self._log is not None:
            self._log.close()

    def until_ended(self) -> tuple[State, Desk]:
        """Wait until the master says that the run has ended. Raises ClusterError."""
        asked_s = 0.0
        state = State()
        while True:
            now = self._look()
            if now.trouble is not None:
                raise _error(now.trouble)
            if now.master is None:
                self._check_pending(now)
            elif time.monotonic() - asked_s >= ASK_EVERY_S:
                asked_s = time.monotonic()
                desk = self._of.desk(now.master)
                state = self._ask(desk) or state
                if state.phase == "ended":
                    return state, desk
                if now.workers_ended and state.phase == "starting":
                    raise _error(
                        Trouble(
                            what=f"no worker is left before the load began: {now.text}",
                            fix=f"Its log: kubectl logs -n {self._of.namespace} "
                            f"-l {selector(self._of.name)} --prefix",
                        )
                    )

    def _look(self) -> Standing:
        """Take the changes that have come, and tell where the run stands."""
        of = self._of
        change = self._watching.next(ASK_EVERY_S / 4)
        while change is not None:
            known = self._objects[change.kind.name]
            if change.deleted:
                known.pop(change.name, None)
            else:
                known[change.name] = change.document
            change = self._watching.next(0)
        now = standing(
            of.name,
            of.workers,
            list(self._objects["Pod"].values()),
            list(self._objects["Job"].values()),
            self._objects["Event"].values(),
        )
        if now.text != self._told:
            self._told = now.text
            self._say(now.text)
        if now.master is not None and self._log is None:
            self._had_master = True
            self._log = _Log(of, now.master, self._say)
            self._log.start()
        return now

    def _check_pending(self, now: Standing) -> None:
        """Raise where there is nothing to wait for: ended without a word, or stopped before."""
        pods = list(self._objects["Pod"].values())
        if now.master_ended or (self._had_master and master_pod(pods) is None):
            raise self._ended_without_a_word(pods)
        if self._wishes.stop.is_set():
            raise StoppedError("stopped before the load began; nothing was measured.")
        if now.unscheduled is None:
            self._unscheduled_s = None
            return
        self._unscheduled_s = self._unscheduled_s or time.monotonic()
        if time.monotonic() - self._unscheduled_s > SCHEDULE_S:
            raise _error(now.unscheduled)

    def _ask(self, desk: Desk) -> State | None:
        """The master's state; None where it does not answer now. Passes on a wish to stop."""
        try:
            if self._wishes.stop.is_set() and not self._stop_told:
                desk.stop()
                self._stop_told = True
                self._say("The run is ending; its results come then.")
            return desk.state()
        except (UnreachableError, NotThereError):
            return None

    def _ended_without_a_word(self, pods: Sequence[dict[str, Any]]) -> ClusterError:
        of = self._of
        lines: list[str] = []
        pod = master_pod(pods)
        if pod is not None:
            try:
                lines = of.cluster.logs(of.namespace, pod, MASTER, tail_lines=LOG_LINES)
            except ClusterError as error:
                lines = [f"(no log: {error.message})"]
        told = "".join(f"\n    {line}" for line in lines)
        return ClusterError(
            f"the master {how_master_ended(pods)} before its results were fetched{told}",
            fix="Where it ran out of memory, give it more with --master-memory. With "
            "--results-claim the results outlive the pod.",
        )


class _Log(threading.Thread):
    """Passes on the master's log as it is written."""

    def __init__(self, of: OfRun, pod: str, say: Say) -> None:
        super().__init__(daemon=True, name=f"log of {pod}")
        self._of, self._pod, self._say = of, pod, say
        self._over = threading.Event()
        self._since = ""

    def run(self) -> None:
        """Follow it through cuts."""
        while not self._over.is_set():
            try:
                self._follow()
            except UnreachableError:
                self._over.wait(ASK_EVERY_S)
            except ClusterError as error:
                hint = " It can do without." if isinstance(error, NotAllowedError) else ""
                return self._say(f"The master's log cannot be shown: {error.message}{hint}")
            else:
                self._over.wait(ASK_EVERY_S)
        return None

    def close(self) -> None:
        """Say no more."""
        self._over.set()

    def _follow(self) -> None:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        since = f"{self._since[:19]}Z" if self._since else None
        of = self._of
        with of.cluster.open_log(of.namespace, self._pod, MASTER, since=since) as response:
            rest = b""
            try:
                for piece in response.stream(amt=None):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._tell(line)
            except (HTTPError, OSError):
                return

    def _tell(self, line: bytes) -> None:
        stamp, _, text = line.decode(errors="replace").partition(" ")
        if self._over.is_set() or (self._since and _moment(stamp) <= _moment(self._since)):
            return
        self._since = stamp
        self._say(f"  | {text}")


def _error(trouble: Trouble) -> ClusterError:
    return ClusterError(trouble.what, fix=trouble.fix)


def _moment(stamp: str) -> tuple[str, str]:
    """A timestamp's second and its fraction: kubelets leave out zeros at the end."""
    second, _, fraction = stamp.removesuffix("Z").partition(".")
    return second, fraction.ljust(9, "0")
