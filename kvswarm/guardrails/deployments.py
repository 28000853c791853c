"""What is asked of KServe, as the rules look at it."""

from __future__ import annotations

from kvswarm.guardrails.facts import Deployment
from kvswarm.kserve.manifests import spread_of
from kvswarm.kserve.wanted import Wanted


def deployment_of(wanted: Wanted) -> Deployment:
    """Give the deployment that an InferenceService as wanted would be.

    `kvswarm manifest` mounts /dev/shm and sets the predictor's timeout, so those are known. Raises
    UsageError where GPUs and features contradict each other.
    """
    gpus, _ = spread_of(wanted)
    return Deployment(
        mode=wanted.mode,
        min_replicas=wanted.scaling.min_replicas,
        max_replicas=wanted.scaling.max_replicas,
        autoscaler=wanted.scaling.autoscaler,
        scale_metric=wanted.scaling.metric,
        gpus=gpus,
        gpu_resource=wanted.machine.gpu_resource,
        cpu=wanted.machine.cpu,
        memory=wanted.machine.memory,
        shared_memory=True,
        image=wanted.image,
        storage=wanted.source.scheme,
        timeout_s=wanted.timeout_s,
    )
