"""One replica over several nodes: the layers in parts, one part a node, each split over its GPUs.

In:  `Wanted` with `nodes` above 1.
Out: how the features spread the model, and for an InferenceService the fields of KServe's worker.

KServe starts a head and `nodes - 1` workers, which find each other by Ray, in a runtime of its own
(`kserve-huggingfaceserver-multinode`). Its script gives its arguments on unquoted, so none may hold
a blank. What it refuses, by its own rules, is refused here with the way out.
Source: inference_service_validation.go, predictor.go and config/runtimes of kserve/kserve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.machine import GPU, MIG, Machine, placement, resources
from kvswarm.kserve.wanted import Wanted
from kvswarm.serving.flags import spelled

RUNTIME: Final = "kserve-huggingfaceserver-multinode"
WORKER: Final = "worker-container"
SOURCES: Final = ("pvc", "oci")
KNOWN_RESOURCES: Final = frozenset({GPU, "amd.com/gpu", "intel.com/gpu", "habana.ai/gaudi"})
RESOURCES_ANNOTATION: Final = "serving.kserve.io/gpu-resource-types"
SIZES: Final = ("tensor_parallel_size", "pipeline_parallel_size")


def spread_over_nodes(
    machine: Machine, features: Mapping[str, Any], nodes: int
) -> tuple[int, dict[str, Any]]:
    """Say how many GPUs a node gives, and the features with the model spread over all nodes.

    Raises UsageError where what is given says otherwise, or a node gives no whole GPU.
    """
    given = {spelled(key): value for key, value in features.items() if value is not None}
    if machine.is_slice:
        raise UsageError(
            f"--nodes {nodes} and a slice of a GPU: a model cannot be spread over MIG slices",
            fix="Take whole GPUs, or one node.",
        )
    if given.get("data_parallel_size", 1) != 1:
        raise UsageError(
            f"--nodes {nodes} and vllm_features data_parallel_size "
            f"{given['data_parallel_size']}: nodes hold parts of one copy of the model",
            fix="For more copies give --min-replicas.",
        )
    gpus = machine.gpus if machine.gpus is not None else given.get(SIZES[0], 1)
    if gpus == 0:
        raise UsageError(
            f"--gpus 0 and --nodes {nodes}: a node has nothing to take a part with",
            fix="Give the GPUs of each node with --gpus.",
        )
    for key, size, flag in ((SIZES[0], gpus, "--gpus"), (SIZES[1], nodes, "--nodes")):
        if given.get(key, size) != size:
            raise UsageError(
                f"{flag} {size} and vllm_features {key} {given[key]}: they must be as many",
                fix=f"Give {flag} {given[key]}, or leave {key} out.",
            )
    return gpus, {**without_sizes(features), SIZES[0]: gpus, SIZES[1]: nodes}


def without_sizes(features: Mapping[str, Any]) -> dict[str, Any]:
    """The features but for how the model is spread, which KServe's runtime says by itself."""
    return {key: value for key, value in features.items() if spelled(key) not in SIZES}


def check_nodes(wanted: Wanted) -> None:
    """Refuse what KServe's several nodes do not go with. Raises UsageError."""
    nodes = f"--nodes {wanted.nodes}"
    if wanted.mode != "standard":
        raise UsageError(
            f"{nodes} and --mode {wanted.mode}: KServe spreads over nodes in Standard mode alone",
            fix="Add --mode standard.",
        )
    if wanted.backend != "vllm":
        raise UsageError(
            f"{nodes} and --backend {wanted.backend}: KServe has a runtime over several nodes for "
            "vllm alone",
            fix="Take --backend vllm, or --kind llm with it.",
        )
    if wanted.source.scheme not in SOURCES:
        raise UsageError(
            f"{nodes} and --model {wanted.source.uri}: KServe takes a model over several nodes "
            "from pvc:// or oci:// alone",
            fix="Put the model on a volume that many nodes may read, and give pvc://claim/path; "
            "or take --kind llm.",
        )
    if wanted.scaling.autoscaler not in {None, "none"} or wanted.scaling.min_replicas != 1:
        raise UsageError(
            f"{nodes} and --autoscaler or --min-replicas: KServe runs one head and its workers, "
            "and no autoscaler over them",
            fix="Leave them out, or take --kind llm, which has replicas.",
        )
    if wanted.canary is not None:
        raise UsageError(
            f"{nodes} and --canary-percent: KServe's canary is a single Deployment",
            fix="Deploy the new one as a service of its own.",
        )


def node_annotations(machine: Machine) -> dict[str, str]:
    """The annotation without which KServe refuses a device that it does not know."""
    if machine.gpu_resource in KNOWN_RESOURCES or MIG.fullmatch(machine.gpu_resource):
        return {}
    return {RESOURCES_ANNOTATION: json.dumps([machine.gpu_resource])}


def worker_spec(wanted: Wanted, gpus: int, shared_memory: Mapping[str, Any]) -> dict[str, Any]:
    """The predictor's `workerSpec`. `shared_memory`: the volume that the head has, too."""
    container: dict[str, Any] = {
        "name": WORKER,
        "resources": resources(wanted.machine, gpus),
        "volumeMounts": [{"name": shared_memory["name"], "mountPath": "/dev/shm"}],  # noqa: S108 - in a pod
    }
    if wanted.image is not None:
        container["image"] = wanted.image
    return {
        "pipelineParallelSize": wanted.nodes,
        "tensorParallelSize": gpus,
        **placement(wanted.machine, gpus, defaults=True),
        "containers": [container],
        "volumes": [dict(shared_memory)],
    }


def unquoted(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Write arguments so that a shell which divides them at blanks leaves them whole.

    JSON loses its blanks. Raises UsageError for any other argument that holds one.
    """
    return tuple(_without_blanks(argument) for argument in arguments)


def _without_blanks(argument: str) -> str:
    if not any(character.isspace() for character in argument):
        return argument
    try:
        dense = json.dumps(json.loads(argument), separators=(",", ":"))
    except ValueError:
        dense = argument
    if any(character.isspace() for character in dense):
        raise UsageError(
            f"--nodes and {argument!r}: KServe's runtime over several nodes divides arguments at "
            "blanks",
            fix="Write the value without blanks, or take --kind llm.",
        )
    return dense
