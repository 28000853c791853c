"""Cold start and scaling: what the service's pods did, beside the requests of that time.

In:  cluster.jsonl and the rows of a run.
Out: the summary's `replicas`, None where the run has no cluster.jsonl; docs/metrics.md defines it.

All requests of the run count here, those of warm-up too: a warm-up that hides a cold start is what
is to be seen. Moments are in seconds since the first request was intended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.effects import unpaired_effect
from kvswarm.analysis.pods import POD_STEPS, Pod, Told, told_by
from kvswarm.analysis.rows import Flags, Floats, Rows
from kvswarm.analysis.scale_ups import (
    SLO_WINDOW_NS,
    ScaleUp,
    first_ready_ns,
    load_rises_s,
    recovered_ns,
    scale_ups,
)
from kvswarm.analysis.slos import meets_all_slos
from kvswarm.clusterlog import read_log
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir, RunInfo

GOODPUT_TARGET: Final = 0.95
"""Share of requests that must meet the SLOs, where the profile has no gate for it."""
SETS: Final = ("cold", "scaling", "warm")
LATENCIES: Final = ("ttft_ms", "ttft_from_intended_ms", "e2e_ms")
KEPT: Final = ("intended_ns", *LATENCIES)


@dataclass
class Replicas:
    """Gathers the rows of a run, then gives the section. Raises RunDirError for a foreign log."""

    run: RunDir
    info: RunInfo
    profile: Profile
    told: Told | None = field(init=False)
    _parts: dict[str, list[Floats]] = field(default_factory=lambda: {name: [] for name in KEPT})
    _flags: dict[str, list[Flags]] = field(
        default_factory=lambda: {"ok": [], "met": [], "cancelled": []}
    )

    def __post_init__(self) -> None:
        log = read_log(self.run.cluster_log)
        self.told = None if log is None else told_by(log)

    def add(self, rows: Rows) -> None:
        """Take some rows."""
        if self.told is None:
            return
        for name, parts in self._parts.items():
            parts.append(rows[name])
        self._flags["ok"].append(rows.ok)
        self._flags["met"].append(meets_all_slos(rows, self.profile.slo))
        self._flags["cancelled"].append(rows.texts["error_kind"] == "cancelled")

    def section(self) -> dict[str, Any] | None:
        """The summary's `replicas`, once all rows are there."""
        if self.told is None:
            return None
        numbers = {
            name: np.concatenate(parts or [np.empty(0)]) for name, parts in self._parts.items()
        }
        flags = {
            name: np.concatenate(parts or [np.empty(0, dtype=bool)])
            for name, parts in self._flags.items()
        }
        order = np.argsort(numbers["intended_ns"], kind="stable")
        requests = _Requests(
            numbers={name: values[order] for name, values in numbers.items()},
            **{name: values[order] for name, values in flags.items()},
        )
        return _section(self.told, requests, self.info, self.profile)


@dataclass(frozen=True)
class _Requests:
    """All requests of a run, by when they were intended; shapes (requests,)."""

    numbers: dict[str, Floats]
    ok: Flags
    met: Flags
    cancelled: Flags

    @property
    def intended_ns(self) -> Floats:
        return self.numbers["intended_ns"]


@dataclass(frozen=True)
class _Story:
    """What the figures are made of."""

    told: Told
    requests: _Requests
    origin_ns: int
    rises_ns: list[int]
    """When the load rises; the first is the origin."""
    scale_ups: list[ScaleUp]

    def since(self, moment_ns: float | None, from_ns: float | None = None) -> float | None:
        """Seconds from the origin, or from another moment."""
        if moment_ns is None:
            return None
        return float(moment_ns - (self.origin_ns if from_ns is None else from_ns)) / 1e9

    def rise_of(self, scale_up: ScaleUp) -> int:
        """The rise of the load that a scale-up answers: the last before it, or the first."""
        return max((r for r in self.rises_ns if r <= scale_up.began_ns), default=self.origin_ns)

    def recovered_ns(self, rise_ns: int, target_share: float) -> int | None:
        """When the SLOs were met again after a rise of the load, before the next."""
        judged = ~self.requests.cancelled
        next_ns = min((r for r in self.rises_ns if r > rise_ns), default=math.inf)
        return recovered_ns(
            self.requests.intended_ns[judged],
            self.requests.met[judged],
            (rise_ns, next_ns),
            target_share,
        )


def _section(told: Told, requests: _Requests, info: RunInfo, profile: Profile) -> dict[str, Any]:
    story = _story(told, requests, info, profile)
    known = told.service.pods_known
    target = profile.gate.get("goodput_share", GOODPUT_TARGET) if profile.slo else None
    sets = _sets(story) if known else {}
    rises = [_rise(story, rise_ns, target) for rise_ns in story.rises_ns]
    ups = [_scale_up(story, each, target) for each in story.scale_ups]
    answered = [up["slo_recovered_s"] for up in ups] or [rises[0]["slo_recovered_s"]]
    return {
        "namespace": told.service.namespace,
        "service": told.service.service,
        "clock": None
        if told.clock is None
        else {
            "ahead_least_ms": told.clock.least_ns / 1e6,
            "ahead_most_ms": told.clock.most_ns / 1e6,
        },
        "time_to_first_ready_s": story.since(first_ready_ns(told.ready, story.origin_ns))
        if known
        else None,
        "slo_target_share": target,
        "slo_window_s": SLO_WINDOW_NS / 1e9,
        "slo_recovered_s": answered[0],
        "scale_ups": ups,
        "rises": rises,
        "requests": {name: _figures(requests, sets[name]) for name in SETS} if known else None,
        "cold_multiplier": _multiplier(requests, sets, "cold"),
        "scaling_multiplier": _multiplier(requests, sets, "scaling"),
        "series": _series(story) if known else [],
        "pods": [_pod(story, pod) for pod in told.pods],
        "notes": told.notes,
    }


def _story(told: Told, requests: _Requests, info: RunInfo, profile: Profile) -> _Story:
    begun_ns = info.load_started_ns or info.started_ns or 0  # only imported runs have neither
    times = requests.intended_ns
    origin_ns = int(times[0]) if len(times) else begun_ns
    last_ns = int(times[-1]) if len(times) else begun_ns
    later = [
        begun_ns + round(s * 1e9) for s in load_rises_s(profile.load, (last_ns - begun_ns) / 1e9)
    ]
    ups = [up for up in scale_ups(told) if up.ended_ns is None or up.ended_ns > origin_ns]
    return _Story(
        told, requests, origin_ns, [origin_ns, *later], ups if told.service.pods_known else []
    )


def _sets(story: _Story) -> dict[str, Flags]:
    """Which requests came when nobody was ready, while the service grew, and else."""
    times = story.requests.intended_ns
    cold: Flags = story.told.ready.at_all(times) == 0
    scaling: Flags = np.zeros(len(times), dtype=bool)
    for each in story.scale_ups:
        scaling |= each.holds(times, story.rise_of(each))
    scaling &= ~cold
    return {"cold": cold, "scaling": scaling, "warm": ~(cold | scaling)}


def _figures(requests: _Requests, chosen: Flags) -> dict[str, Any]:
    ok = chosen & requests.ok
    judged = int((chosen & ~requests.cancelled).sum())
    figures: dict[str, Any] = {
        "sent": int(chosen.sum()),
        "ok": int(ok.sum()),
        "error_share": (judged - int(ok.sum())) / judged if judged else None,
        "slo_share": int((chosen & requests.met).sum()) / judged if judged else None,
    }
    for name in LATENCIES:
        values = requests.numbers[name][ok]
        tally = Tally()
        tally.add(values[~np.isnan(values)] * 1e3)
        figures[name] = tally.latency()
    return figures


def _multiplier(requests: _Requests, sets: dict[str, Flags], name: str) -> dict[str, Any] | None:
    """Median TTFT of a set by that of the warm ones, by the difference of medians of logarithms."""
    if not sets:
        return None
    ttft_ms = np.maximum(requests.numbers["ttft_ms"], 1e-3)  # 0 has no logarithm
    ones, others = (np.log(ttft_ms[sets[each] & requests.ok]) for each in (name, "warm"))
    effect = unpaired_effect(ones, others)
    if effect is None:
        return None
    low, high = effect.low, effect.high
    return {
        "ratio": math.exp(effect.difference),
        "low": None if low is None else math.exp(low),
        "high": None if high is None else math.exp(high),
        "count": effect.count,
    }


def _rise(story: _Story, rise_ns: int, target: float | None) -> dict[str, Any]:
    recovered = None if target is None else story.recovered_ns(rise_ns, target)
    return {"at_s": story.since(rise_ns), "slo_recovered_s": story.since(recovered, rise_ns)}


def _scale_up(story: _Story, up: ScaleUp, target: float | None) -> dict[str, Any]:
    rise_ns = story.rise_of(up)
    reached = {f"{step}_s": story.since(up.reached_ns.get(step), rise_ns) for step in POD_STEPS}
    return {
        "rise_s": story.since(rise_ns),
        "from_replicas": up.from_replicas,
        "to_replicas": up.to_replicas,
        "wanted_s": story.since(up.began_ns, rise_ns),
        **reached,
        "all_ready_s": story.since(up.ended_ns, rise_ns) if up.all_ready else None,
        "slo_recovered_s": _rise(story, rise_ns, target)["slo_recovered_s"],
    }


def _series(story: _Story) -> list[dict[str, Any]]:
    """How many were wanted, there and ready, from each change on."""
    wanted, there, ready = story.told.wanted, story.told.there, story.told.ready
    moments = np.union1d(there.times_ns, ready.times_ns)
    if wanted is not None:
        moments = np.union1d(moments, wanted.times_ns)
    return [
        {
            "at_s": story.since(moment),
            "wanted": None if wanted is None else wanted.at(moment),
            "there": there.at(moment),
            "ready": ready.at(moment),
        }
        for moment in moments.tolist()
    ]


def _pod(story: _Story, pod: Pod) -> dict[str, Any]:
    moments = pod.reached
    return {
        "pod": pod.last.pod,
        "node": pod.last.node,
        "phase": pod.last.phase,
        "reason": pod.last.reason,
        "restarts": pod.last.restarts,
        **{
            f"{step}_s": story.since(moments[step].ns) if step in moments else None
            for step in POD_STEPS
        },
        "deleted_s": story.since(pod.deleted_ns),
        "stamped": [step for step in POD_STEPS if step in moments and moments[step].stamped],
    }
