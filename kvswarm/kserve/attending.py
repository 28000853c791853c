"""Be there for a run on the cluster: watch it to its end, and fetch its results.

In:  a run that is there.
Out: the run directory here; how the run ended, as its master said.
Not: what pods' states mean (`run_standing.py`), starting a run or taking it away (`placing.py`).

Whoever attends may leave and come back: all that is needed to go on is on the cluster, in the
master's Job and the run's Secret.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvswarm.archive import unpack
from kvswarm.errors import EXIT_INTERRUPTED, RunDirError
from kvswarm.kserve.collecting import Desk
from kvswarm.kserve.handing import State
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.on_cluster import MASTER, selector
from kvswarm.kserve.placing import LeftError, OfRun
from kvswarm.kserve.refusals import ClusterError, NotThereError, UnreachableError
from kvswarm.kserve.run_log import RunLog
from kvswarm.kserve.run_standing import Standing, Trouble, how_master_ended, master_pod, standing
from kvswarm.kserve.watching import Watched, Watching

ASK_EVERY_S: Final = 1.0
SCHEDULE_S: Final = 300.0
"""How long a pod may find no node: a cluster's autoscaler adds one within that."""
SILENCE_S: Final = 30.0
LOG_LINES: Final = 15

Say = Callable[[str], None]


class StoppedError(ClusterError):
    """A person stopped the run before its master could be told: there is nothing to keep."""

    exit_code = EXIT_INTERRUPTED


@dataclass(slots=True)
class Wishes:
    """What a person wants meanwhile; a signal's handler sets it."""

    stop: threading.Event = field(default_factory=threading.Event)
    can_stop: bool = True
    """Whether the run goes on, so that there is something to stop in order."""


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
        left = LeftError(
            f"the run has ended, but its results are not here: {why}",
            fix=f"They wait on the cluster: {of.fetch_command}\n"
            f"  Without them: {of.delete_command}",
        )
        if isinstance(error, KeyboardInterrupt):
            left.exit_code = EXIT_INTERRUPTED
        raise left from error
    partial.unlink()
    return state


def acknowledge(of: OfRun) -> None:
    """Tell the master that its results are here, so that it ends as the run did.

    Where that cannot be told, it is ended all the same, when its Job is deleted.
    """
    try:
        pods, _ = of.cluster.list_all(KINDS["Pod"], of.namespace, labels=selector(of.name))
        pod = master_pod(pods)
        if pod is not None:
            of.desk(pod).taken()
    except ClusterError:
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
        self._silent_s: float | None = None
        """Since when the master does not answer."""
        self._stop_told = False
        self._log: RunLog | None = None
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
            if state.phase == "starting":
                self._check_start(now)
            if now.master is None:
                self._check_master(now)
            elif time.monotonic() - asked_s >= ASK_EVERY_S:
                asked_s = time.monotonic()
                desk = self._of.desk(now.master)
                state = self._ask(desk) or state
                if state.phase == "ended":
                    return state, desk

    def _check_start(self, now: Standing) -> None:
        """Raise for what keeps the load from beginning. Later the run deals with what is lost."""
        trouble = now.trouble
        if now.unscheduled is None:
            self._unscheduled_s = None
        else:
            self._unscheduled_s = self._unscheduled_s or time.monotonic()
            if time.monotonic() - self._unscheduled_s > SCHEDULE_S:
                trouble = trouble or now.unscheduled
        if now.workers_ended:
            of = self._of
            trouble = trouble or Trouble(
                what=f"no worker is left before the load began: {now.text}",
                fix=f"See their logs: kubectl logs -n {of.namespace} -l {selector(of.name)}",
            )
        if trouble is not None:
            raise ClusterError(trouble.what, fix=trouble.fix)

    def _look(self) -> Standing:
        """Take the changes that have come, and tell where the run stands."""
        of = self._of
        change = self._watching.next(ASK_EVERY_S / 4)
        while change is not None:
            known = self._objects[change.kind.name]
            if change.deleted:
                known.pop(change.name, None)
            elif change.kind.name != "Event" or _is_of_a_job(change.document):
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
            self._log = RunLog(of, now.master, self._say)
            self._log.start()
        return now

    def _check_master(self, now: Standing) -> None:
        """Raise where there is nothing to wait for: ended without a word, or stopped before."""
        pods = list(self._objects["Pod"].values())
        if now.master_ended or (self._had_master and master_pod(pods) is None):
            raise self._ended_without_a_word(pods)
        if self._wishes.stop.is_set():
            raise StoppedError("stopped before the load began; nothing was measured.")

    def _ask(self, desk: Desk) -> State | None:
        """The master's state; None where it does not answer now. Passes on a wish to stop."""
        try:
            if self._wishes.stop.is_set() and not self._stop_told:
                desk.stop()
                self._stop_told = True
                self._say("The run is ending; its results come then.")
            state = desk.state()
        except (UnreachableError, NotThereError) as error:
            self._tell_silence(error)
            return None
        self._silent_s = None
        return state

    def _tell_silence(self, error: ClusterError) -> None:
        """Say why the master is not heard, once for each time that it is not."""
        if self._silent_s is None:
            self._silent_s = time.monotonic()
        elif time.monotonic() - self._silent_s > SILENCE_S:
            self._silent_s = math.inf
            self._say(
                f"The master has not answered for {SILENCE_S:.0f} s; waiting on: {error.message}"
            )

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


def _is_of_a_job(event: dict[str, Any]) -> bool:
    """Others are not looked at, and a namespace may have thousands."""
    return bool(event.get("involvedObject", {}).get("kind") == "Job")
