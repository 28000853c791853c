"""Documents of pods and deployments as the lines of cluster.jsonl have them."""

from __future__ import annotations

from typing import Any

import pytest

from kvswarm.kserve.pod_states import pod_entry, stamp_ns, wanted_entry

AT = "2026-01-31T12:00:0{}Z"
BASE_NS = 1_769_860_800 * 10**9


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A pod with a status."""
    named = {"name": "a", "uid": "u", "creationTimestamp": AT.format(1), **metadata}
    return {"metadata": named, "spec": {"nodeName": "n1"}, "status": status}


def condition(kind: str, second: int, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": AT.format(second), **more}


def test_stamps_are_ns_since_1970() -> None:
    """Some fields have microseconds."""
    assert stamp_ns(AT.format(3)) == BASE_NS + 3 * 10**9
    assert stamp_ns("2026-01-31T12:00:03.000004Z") == BASE_NS + 3 * 10**9 + 4000


def test_a_ready_pod_has_all_its_moments() -> None:
    """The server's start is that of its container, not of one beside it."""
    running = {"state": {"running": {"startedAt": AT.format(4)}}, "restartCount": 2}
    proxy = {"name": "queue-proxy", "state": {"running": {"startedAt": AT.format(2)}}}
    entry = pod_entry(
        pod(
            {
                "phase": "Running",
                "conditions": [
                    condition("PodScheduled", 2), condition("Initialized", 3), condition("Ready", 5),
                ],
                "containerStatuses": [proxy, {"name": "kserve-container", **running}],
            }
        ),
        7,
    )  # fmt: skip
    moments = (entry.created_ns, entry.scheduled_ns, entry.initialized_ns, entry.started_ns)
    assert (*moments, entry.ready_ns) == tuple(BASE_NS + k * 10**9 for k in range(1, 6))
    assert (entry.ready, entry.node, entry.restarts, entry.reason) == (True, "n1", 2, None)


def test_a_condition_that_is_not_true_gives_no_moment() -> None:
    """Its lastTransitionTime is when it became false."""
    entry = pod_entry(pod({"phase": "Pending", "conditions": [condition("Ready", 5, "False")]}), 7)
    assert (entry.ready, entry.ready_ns) == (False, None)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"reason": "Evicted"}, "Evicted"),
        (
            {"conditions": [condition("PodScheduled", 2, "False", reason="Unschedulable")]},
            "Unschedulable",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}, "ErrImagePull"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        (
            {"initContainerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]},
            "Error",
        ),
        (
            {
                "initContainerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
                ]
            },
            None,
        ),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for_is_its_reason(status: dict[str, Any], reason: str | None) -> None:
    """And nothing where all goes its way."""
    assert pod_entry(pod(status), 7).reason == reason


def test_a_deployment_wants_one_unless_it_says_how_many() -> None:
    """As Kubernetes has it; none is wanted of one that is gone."""
    named = {"metadata": {"name": "d"}, "spec": {}}
    assert wanted_entry(named, 7).replicas == 1
    assert wanted_entry({**named, "spec": {"replicas": 0}}, 7).replicas == 0
    assert wanted_entry(named, 7, deleted=True).replicas is None
