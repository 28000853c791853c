"""Times of phases: whose clock, what is missing, and the last of several pods."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.kserve.phases import PHASES, PodTimes, Start, last_of, pod_times, reached, seconds

BEGIN_S = 1_767_225_600
SEEN_NS = 5_000_000_000_000
CLUSTER = Start(seen_ns=SEEN_NS, cluster_s=float(BEGIN_S))
OFFSETS = st.none() | st.integers(0, 3600)


def written(offset_s: int) -> str:
    """As Kubernetes writes it."""
    return dt.datetime.fromtimestamp(BEGIN_S + offset_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def truth(planted: dict[str, int | None]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A pod and its events that had these phases; None: not reached."""
    kinds = {"scheduled": "PodScheduled", "initialized": "Initialized", "ready": "Ready"}
    conditions = [
        {
            "type": kind,
            "status": "False" if planted[phase] is None else "True",
            "lastTransitionTime": written(planted[phase] or 0),
        }
        for phase, kind in kinds.items()
    ]
    started = planted["started"]
    state = {"waiting": {}} if started is None else {"running": {"startedAt": written(started)}}
    pod = {
        "metadata": {"name": "qwen-1", "uid": "u1"},
        "spec": {},
        "status": {
            "conditions": conditions,
            "containerStatuses": [
                {"name": "istio-proxy", "state": {"running": {"startedAt": written(9999)}}},
                {"name": "kserve-container", "state": state},
            ],
        },
    }
    events = [
        {
            "metadata": {"uid": uid},
            "involvedObject": {"uid": of, "fieldPath": f"spec.{container}"},
            "reason": "Pulled",
            "lastTimestamp": written(at),
        }
        for uid, of, container, at in (
            ("e1", "u1", "initContainers{storage-initializer}", 9999),
            ("e2", "another", "containers{kserve-container}", 9999),
            ("e3", "u1", "containers{kserve-container}", planted["pulled"] or 0),
        )
        if uid != "e3" or planted["pulled"] is not None
    ]
    return pod, events


@given(planted=st.fixed_dictionaries(dict.fromkeys(PHASES, OFFSETS)))
def test_planted_times_are_found_and_missing_ones_stay_missing(
    planted: dict[str, int | None],
) -> None:
    """By the cluster's clock alone: events of other pods and of the model's loader say nothing."""
    pod, events = truth(planted)
    times = pod_times(pod, events, {}, CLUSTER)
    assert {phase: getattr(times, f"{phase}_s") for phase in PHASES} == planted
    assert set(times.source) == {phase for phase in PHASES if planted[phase] is not None}
    assert times.source.get("pulled", "event") == "event"


@given(
    planted=st.fixed_dictionaries(dict.fromkeys(PHASES, OFFSETS)),
    seen=st.dictionaries(st.sampled_from(PHASES), st.integers(0, 10**12)),
)
def test_what_a_changed_service_reached_is_when_it_was_seen(
    planted: dict[str, int | None], seen: dict[str, int]
) -> None:
    """Its creation was long ago, so the cluster's clock has no beginning to count from."""
    pod, events = truth(planted)
    start = Start(seen_ns=SEEN_NS, cluster_s=None)
    times = pod_times(pod, events, {name: SEEN_NS + ns for name, ns in seen.items()}, start)
    for phase in PHASES:
        expected = seen[phase] / 1e9 if phase in seen else None
        assert getattr(times, f"{phase}_s") == expected
    assert set(times.source.values()) <= {"seen"}


def test_a_phase_that_only_this_process_saw_says_so() -> None:
    """An image that was there before has no event that says when it was pulled."""
    pod, events = truth(dict.fromkeys(PHASES, 4) | {"pulled": None})
    times = pod_times(pod, events, {"pulled": SEEN_NS + 3_500_000_000}, CLUSTER)
    assert (times.pulled_s, times.source["pulled"]) == (3.5, "seen")
    assert "pulled" in reached(pod, events)


@pytest.mark.parametrize(
    ("seen_s", "found_s", "source"),
    [(4.9, 4.9, "seen"), (3.0, 3.0, "seen"), (5.6, 4.0, "pod"), (60.0, 4.0, "pod")],
)
def test_what_was_seen_is_finer_where_the_pod_agrees_with_it(
    seen_s: float, found_s: float, source: str
) -> None:
    """After a cut of the watch all is seen late, and the pod knows better."""
    pod, events = truth(dict.fromkeys(PHASES, 4))
    times = pod_times(pod, events, {"started": SEEN_NS + int(seen_s * 1e9)}, CLUSTER)
    assert times.started_s == found_s
    assert times.source["started"] == source
    assert times.source["ready"] == "pod"


def test_a_clock_that_is_a_second_behind_makes_no_negative_time() -> None:
    """Whole seconds of two writers can differ by one."""
    pod, events = truth(dict.fromkeys(PHASES, -1))
    assert pod_times(pod, events, {}, CLUSTER).scheduled_s == 0.0


def test_reached_is_what_is_true_now() -> None:
    """A condition that is false was not reached, whenever it became so."""
    none, events = truth(dict.fromkeys(PHASES))
    assert reached(none, events) == frozenset()
    every, events = truth(dict.fromkeys(PHASES, 1))
    assert reached(every, events) == set(PHASES)


def times(**values: float | None) -> PodTimes:
    return PodTimes(source={}, **values)


def test_of_several_pods_the_last_counts_and_only_where_all_are_there() -> None:
    """A service of two replicas is not started while one is not. Of none, nothing is known."""
    latest = last_of([times(scheduled_s=1.0, started_s=9.0), times(scheduled_s=4.0)])
    assert latest["scheduled_s"] == 4.0
    assert latest["started_s"] is None
    assert set(last_of([]).values()) == {None}


def test_moments_may_have_fractions() -> None:
    """Events of newer Kubernetes have microseconds."""
    assert seconds("2026-01-01T00:00:00.250000Z") - seconds("2026-01-01T00:00:00Z") == 0.25
