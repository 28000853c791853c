"""The pods of a service over time, of what cluster.jsonl tells.

In:  the log of a run (`kvswarm.clusterlog`).
Out: `Told`: for each pod when it reached each step, and how many pods were wanted, there and ready.

A step that was seen to come about has the moment at which this machine saw it: exact to the delay
of the watch, on the clock that requests have, too. One that was found done (at the start of the
log, or when the API server had been away) has the pod's own stamp, moved by what the API server's
clock was ahead. Stamps are cut to whole seconds: half of one is added, so they are off by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.analysis.steps import Steps, total
from kvswarm.clusterlog import (
    AwayEntry,
    ClockEntry,
    Log,
    NoteEntry,
    PodEntry,
    ServiceEntry,
    WantedEntry,
)

POD_STEPS: Final = ("created", "scheduled", "initialized", "started", "ready")
HALF_SECOND_NS: Final = 500_000_000
RESUMED_NS: Final = 6_000_000_000
"""How long after an absence of the API server a watch may take to go on."""
OVER: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Moment:
    """When something came about, ns of this machine's clock."""

    ns: int
    stamped: bool
    """It is the pod's own stamp; False: it was seen."""


@dataclass(frozen=True)
class Pod:
    """One pod."""

    last: PodEntry
    """Its last state."""
    reached: dict[str, Moment]
    """When it first reached each of `POD_STEPS`, as far as it did."""
    deleted_ns: int | None
    there: Steps
    """1 while it exists and was not told to end."""
    ready: Steps
    """1 while it is ready."""


@dataclass(frozen=True)
class Told:
    """What a log tells."""

    service: ServiceEntry
    pods: list[Pod]
    """By when they were created."""
    wanted: Steps | None
    """Of all deployments together; None where that was not told."""
    clock: ClockEntry | None
    notes: list[str]

    @property
    def there(self) -> Steps:
        """Pods that exist."""
        return total([pod.there for pod in self.pods])

    @property
    def ready(self) -> Steps:
        """Pods that are ready."""
        return total([pod.ready for pod in self.pods])


def told_by(log: Log) -> Told | None:
    """Make sense of a log; None where nothing was written to it."""
    services = [entry for entry in log.entries if isinstance(entry, ServiceEntry)]
    if not services:
        return None
    service = services[-1]  # once more, where something could not be followed to the end
    clocks = [entry for entry in log.entries if isinstance(entry, ClockEntry)]
    aways = [entry for entry in log.entries if isinstance(entry, AwayEntry)]
    clock = clocks[-1] if clocks else None
    ahead_ns = 0 if clock is None else (clock.least_ns + clock.most_ns) // 2
    dating = _Dating(aways, ahead_ns)
    states: dict[str, list[PodEntry]] = {}
    wanted: dict[str, list[tuple[int, int]]] = {}
    for entry in log.entries:
        if isinstance(entry, PodEntry):
            states.setdefault(entry.uid, []).append(entry)
        elif isinstance(entry, WantedEntry):
            wanted.setdefault(entry.deployment, []).append((entry.time_ns, entry.replicas or 0))
    pods = [_pod(of_one, dating) for of_one in states.values()]
    return Told(
        service=service,
        pods=sorted(pods, key=lambda pod: (pod.reached["created"].ns, pod.last.pod)),
        wanted=total([Steps.of(changes) for changes in wanted.values()])
        if wanted and service.wanted_known
        else None,
        clock=clock,
        notes=_notes(log, clock, aways),
    )


@dataclass(frozen=True)
class _Dating:
    """When a change came about that a line tells."""

    aways: Sequence[AwayEntry]
    ahead_ns: int

    def moment(self, entry: PodEntry, stamp_ns: int | None) -> Moment:
        """The moment of a change with the pod's own stamp, where it has one."""
        late = entry.listed or any(
            away.since_ns <= entry.time_ns <= away.time_ns + RESUMED_NS for away in self.aways
        )
        if not late or stamp_ns is None:
            return Moment(entry.time_ns, stamped=False)
        local_ns = stamp_ns + HALF_SECOND_NS - self.ahead_ns
        return Moment(min(entry.time_ns, local_ns), stamped=True)


def _pod(states: Sequence[PodEntry], dating: _Dating) -> Pod:
    reached: dict[str, Moment] = {}
    ready: list[tuple[int, int]] = []
    deleted_ns = None
    for entry in states:
        stamps = {
            "created": entry.created_ns,
            "scheduled": entry.scheduled_ns,
            "initialized": entry.initialized_ns,
            "started": entry.started_ns,
            "ready": entry.ready_ns if entry.ready else None,
        }
        for name, stamp_ns in stamps.items():
            if stamp_ns is not None and name not in reached:
                reached[name] = dating.moment(entry, stamp_ns)
        if entry.ready and "ready" not in reached:
            reached["ready"] = dating.moment(entry, None)
        now = int(entry.ready and not _ending(entry))
        if now != (ready[-1][1] if ready else 0):
            stamp_ns = entry.ready_ns if now else None
            ready.append((dating.moment(entry, stamp_ns).ns, now))
        if entry.deleted:
            deleted_ns = entry.time_ns
    there = [(reached["created"].ns, 1)]
    there += [(entry.time_ns, 0) for entry in states if _ending(entry)][:1]
    return Pod(
        last=states[-1],
        reached=reached,
        deleted_ns=deleted_ns,
        there=Steps.of(_ascending(there)),
        ready=Steps.of(_ascending(ready)),
    )


def _ending(entry: PodEntry) -> bool:
    return entry.deleting or entry.deleted or entry.phase in OVER


def _ascending(changes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A stamp may lie before a change that was seen earlier: the order of the lines is kept."""
    kept: list[tuple[int, int]] = []
    for time_ns, value in changes:
        kept.append((max(time_ns, kept[-1][0]) if kept else time_ns, value))
    return kept


def _notes(log: Log, clock: ClockEntry | None, aways: Sequence[AwayEntry]) -> list[str]:
    notes = list(dict.fromkeys(e.text for e in log.entries if isinstance(e, NoteEntry)))
    if clock is None:
        notes.append("the API server's clock is not known: stamps of pods are taken as they are")
    if aways:
        away_s = sum(away.time_ns - away.since_ns for away in aways) / 1e9
        notes.append(
            f"the API server did not answer for {away_s:.1f} s in all: what changed then has the "
            "stamps of the pods"
        )
    if log.damaged_lines:
        notes.append(f"cluster.jsonl: {log.damaged_lines} lines cannot be read and are left out")
    return notes
