"""A part of the traffic for something new: KServe's canary, of which each mode has its own.

Knative keeps the revision before this one, and sends the new one its share: the manifest is the new
one. Standard has both in one manifest: the service as it is, and beside it a canary that differs in
its model or its image; KServe runs the canary's replicas out of the service's own number.
Source: CanarySpec and canaryTrafficPercent of KServe v0.20.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.wanted import Canary, Wanted

NAME: Final = "canary"
CONTAINER: Final = "kserve-container"
FIRST_REVISION: Final = (
    "Knative's canary shares with the revision before it: a service that is not there yet gets all "
    "of the traffic, whatever --canary-percent says."
)
OF_THE_STABLE: Final = frozenset({"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"})
"""Fields of the predictor that a canary must not have: its number of replicas is fixed."""


def check_canary(wanted: Wanted, canary: Canary) -> None:
    """Refuse a canary that cannot be. Raises UsageError."""
    percent = f"--canary-percent {canary.traffic_percent}"
    new = [
        flag
        for flag, value in (("--canary-model", canary.model), ("--canary-image", canary.image))
        if value is not None
    ]
    if wanted.mode == "knative":
        if new:
            raise UsageError(
                f"{new[0]} and --mode knative: the manifest is the new revision, and Knative has "
                "the one before it",
                fix="Give what is new with --model or --image.",
            )
        return
    if not new:
        raise UsageError(
            f"{percent} and --mode standard: nothing says what is new about the canary",
            fix="Give --canary-model, --canary-image, or both.",
        )
    if wanted.scaling.autoscaler not in {None, "none"}:
        raise UsageError(
            f"{percent} and --autoscaler {wanted.scaling.autoscaler}: KServe takes a canary's "
            "replicas out of a fixed number",
            fix="Leave --autoscaler out, and give --min-replicas.",
        )
    if wanted.scaling.min_replicas < 2:  # noqa: PLR2004 - one for each of the two
        raise UsageError(
            f"{percent} and --min-replicas {wanted.scaling.min_replicas}: KServe takes a canary's "
            "replicas out of the service's, and none would be left",
            fix="Give --min-replicas 2 or more.",
        )


def canary_entry(wanted: Wanted, canary: Canary, predictor: dict[str, Any]) -> dict[str, Any]:
    """The entry of `spec.canary` in Standard mode, from the predictor that it stands beside."""
    replicas = wanted.scaling.min_replicas
    its_own = round(replicas * canary.traffic_percent / 100)
    fields = {key: value for key, value in predictor.items() if key not in OF_THE_STABLE}
    # The definition wants a container's name here, which it does not want in the predictor.
    model = {"name": CONTAINER, **copy.deepcopy(fields.pop("model"))}
    if canary.model is not None:
        model["storageUri"] = canary.model.uri
    if canary.image is not None:
        model["image"] = canary.image
    return {
        "trafficPercent": canary.traffic_percent,
        "predictor": {
            "name": NAME,
            "minReplicas": min(max(its_own, 1), replicas - 1),
            **copy.deepcopy(fields),
            "model": model,
        },
    }
