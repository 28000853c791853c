"""What one replica runs on: CPU, memory, GPUs or MIG slices, and which nodes.

In:  `Machine`, and the features that say over how many GPUs a model is spread.
Out: resources, node selector and tolerations as Kubernetes writes them; how many GPUs are meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.serving.flags import spelled

GPU: Final = "nvidia.com/gpu"
MIG: Final = re.compile(r"nvidia\.com/mig-\d+g\.\d+gb(\.[\w.]+)?")
RESOURCE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?")
QUANTITY: Final = re.compile(r"\d+(\.\d+)?(m|k|[MGTPE]|[KMGTPE]i)?")
PARALLEL_KEYS: Final = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
MIG_NODES: Final = {"nvidia.com/mig.capable": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One replica's share of a node. `cpu` and `memory` are quantities of Kubernetes."""

    gpu_resource: str = GPU
    gpus: int | None = None
    """None: as many as the features spread the model over, else 1. 0: none, for a CPU image."""
    cpu: str = "4"
    memory: str = "32Gi"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    slice_by_label: bool = False
    """The GPU is a slice of one, and a label of the node says so, not the resource's name."""

    @property
    def is_known(self) -> bool:
        """Whether KServe knows the resource as a GPU, and chooses its image accordingly."""
        return self.gpu_resource == GPU or self.is_mig

    @property
    def is_mig(self) -> bool:
        """Whether the resource's name says that a GPU is a slice of one."""
        return MIG.fullmatch(self.gpu_resource) is not None

    @property
    def is_slice(self) -> bool:
        """Whether a GPU is a slice of one, wherever that is said."""
        return self.is_mig or self.slice_by_label


def check_machine(machine: Machine) -> None:
    """Refuse quantities and resources that Kubernetes would. Raises UsageError."""
    for flag, value in (("--cpu", machine.cpu), ("--memory", machine.memory)):
        if not QUANTITY.fullmatch(value):
            raise UsageError(
                f"{flag} {value}: is no quantity", fix="Give one such as 4, 500m or 32Gi."
            )
    if not RESOURCE.fullmatch(machine.gpu_resource):
        raise UsageError(
            f"--gpu-resource {machine.gpu_resource}: is no resource of a device",
            fix=f"Give vendor/name, such as {GPU} or nvidia.com/mig-1g.10gb.",
        )


def spread(machine: Machine, features: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Say how many GPUs a replica has, and the features with the model spread over all of them.

    Raises UsageError where GPUs and features contradict each other, or MIG slices are asked to
    work as one: slices have no way to each other.
    """
    parallel = 1
    values = {spelled(key): value for key, value in features.items() if value is not None}
    given = {key: values[key] for key in PARALLEL_KEYS if key in values}
    for size in given.values():
        parallel *= size
    gpus = machine.gpus if machine.gpus is not None else parallel
    named = " x ".join(f"{key} {size}" for key, size in given.items())
    if machine.is_slice and gpus > 1:
        cause = f"--gpus {gpus}" if machine.gpus is not None else named
        what = f"--gpu-resource {machine.gpu_resource}" if machine.is_mig else "a slice of a GPU"
        raise UsageError(
            f"{cause} and {what}: a model cannot be spread over MIG slices",
            fix="Take one larger slice, or whole GPUs; for more throughput --min-replicas.",
        )
    if given and gpus != parallel and not (gpus == 0 and parallel == 1):
        raise UsageError(
            f"--gpus {gpus} and vllm_features {named}: they must be as many",
            fix=f"Give --gpus {parallel}, or --set vllm_features.{next(iter(given))}=N.",
        )
    if given or gpus <= 1:
        return gpus, dict(features)
    return gpus, {**features, "tensor_parallel_size": gpus}


def resources(machine: Machine, gpus: int) -> dict[str, dict[str, str]]:
    """Requests equal to limits, so that no neighbour's load shows in the figures."""
    share = {"cpu": machine.cpu, "memory": machine.memory}
    if gpus:
        share[machine.gpu_resource] = str(gpus)
    return {"limits": dict(share), "requests": dict(share)}


def placement(machine: Machine, gpus: int, *, defaults: bool) -> dict[str, Any]:
    """Node selector and tolerations; with `defaults` also those that GPU nodes usually need."""
    selector = dict(machine.node_selector)
    tolerations = [dict(each) for each in machine.tolerations]
    if defaults and gpus:
        if machine.is_mig:
            selector = {**MIG_NODES, **selector}
        if not tolerations:
            vendor = machine.gpu_resource.partition("/")[0]
            taint = {"key": f"{vendor}/gpu", "operator": "Exists", "effect": "NoSchedule"}
            tolerations = [taint]
    fields: dict[str, Any] = {}
    if selector:
        fields["nodeSelector"] = selector
    if tolerations:
        fields["tolerations"] = tolerations
    return fields
