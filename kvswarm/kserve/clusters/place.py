"""What a cluster makes of the flags: which GPU on which node, and the machine that is asked for.

In:  a `Cluster`, the name of a GPU or of a slice of one (`h100-80gb`, `h100-80gb/1g.10gb`), and
     what the flags say, which beats the cluster's own.
Out: `Machine`, or a UsageError where what is asked for fits no node of that GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.model import Cluster, Gpu, Node, Slice
from kvswarm.kserve.machine import GPU, QUANTITY, Machine
from kvswarm.serving.problems import nearest

USABLE_SHARE: Final = 0.85
"""Of a node's CPU and memory: the system and the daemons of every node have the rest."""
DEFAULT_CPU: Final = "4"
DEFAULT_MEMORY: Final = "32Gi"
BYTES_PER_GIB: Final = 2**30
UNITS: Final = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    **{unit: 1e3 ** (power + 2) for power, unit in enumerate("MGTPE")},
    **{f"{unit}i": 1024.0 ** (power + 1) for power, unit in enumerate("KMGTPE")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A GPU of a cluster, or a slice of one."""

    cluster: Cluster
    name: str
    gpu: Gpu
    part: Slice | None = None

    @property
    def words(self) -> str:
        """As it is typed."""
        return f"--cluster {self.cluster.name}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the flags say of a machine. None: nothing."""

    gpus: int | None = None
    gpu_resource: str | None = None
    cpu: str | None = None
    memory: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()


def place_of(cluster: Cluster, name: str) -> Place:
    """Find a GPU, or a slice of one after a slash. Raises UsageError."""
    product, slash, part = name.partition("/")
    gpu = cluster.gpus.get(product)
    if gpu is None:
        raise UsageError(
            f"--gpu {product}: cluster {cluster.name} has none of that name."
            f"{nearest(product, cluster.gpus)}",
            fix=f"It has {', '.join(cluster.gpus)}.",
        )
    if not slash:
        return Place(cluster=cluster, name=name, gpu=gpu)
    if part not in gpu.slices:
        known = f"It has {', '.join(gpu.slices)}." if gpu.slices else "It is not cut into slices."
        raise UsageError(
            f"--gpu {name}: {gpu.product} has no slice {part}.{nearest(part, gpu.slices)}",
            fix=known,
        )
    return Place(cluster=cluster, name=name, gpu=gpu, part=gpu.slices[part])


def plain_machine(asked: Asked) -> Machine:
    """The machine on a cluster that nothing is known of."""
    return Machine(
        gpu_resource=asked.gpu_resource or GPU,
        gpus=asked.gpus,
        cpu=asked.cpu or DEFAULT_CPU,
        memory=asked.memory or DEFAULT_MEMORY,
        node_selector=asked.node_selector,
        tolerations=asked.tolerations,
    )


def machine_at(place: Place, asked: Asked, gpus: int) -> Machine:
    """The machine at a place, for so many GPUs. Raises UsageError where it fits no node.

    Unless the flags say otherwise, CPU and memory are the GPUs' share of the node's, so that the
    others on the node are not in each other's way.
    """
    node = node_for(place, gpus)
    share = _share(place, node, gpus)
    part = place.part
    resource = place.gpu.gpu_resource if part is None else part.gpu_resource
    cut = {} if part is None else part.node_selector
    machine = Machine(
        gpu_resource=asked.gpu_resource or resource or place.gpu.gpu_resource,
        gpus=asked.gpus,
        cpu=asked.cpu or _default_cpu(node, share),
        memory=asked.memory or _default_memory(node, share),
        node_selector={
            **place.gpu.node_selector,
            **node.node_selector,
            **cut,
            **asked.node_selector,
        },
        tolerations=asked.tolerations or place.gpu.tolerations,
        slice_by_label=part is not None and part.gpu_resource is None,
    )
    _check_fit(place, node, machine)
    return machine


def node_for(place: Place, gpus: int) -> Node:
    """The smallest node with room for them; a slice counts as one. Raises UsageError."""
    if gpus == 0:
        raise UsageError(
            f"--gpus 0 and {place.words}: a GPU is named, and none is asked for",
            fix="Leave --gpu out, or --gpus.",
        )
    per_gpu = 1 if place.part is None else place.part.per_gpu
    for node in place.gpu.nodes:
        if node.gpus is None or node.gpus * per_gpu >= gpus:
            return node
    largest = place.gpu.nodes[-1]
    raise UsageError(
        f"--gpus {gpus} and {place.words}: {largest.name} has {largest.gpus}, and no node has more",
        fix="Ask for fewer, or spread the model over several nodes with --nodes.",
    )


def price_per_hour_usd(place: Place, gpus: int) -> float | None:
    """What so many GPUs, or slices, cost for an hour on demand; None: no price is known."""
    price = node_for(place, gpus).price
    if price is None:
        return None
    per_gpu = 1 if place.part is None else place.part.per_gpu
    return price.price_per_hour_usd * gpus / per_gpu


def _share(place: Place, node: Node, gpus: int) -> float | None:
    """The GPUs' share of the node; None: not known."""
    if node.gpus is None:
        return None
    per_gpu = 1 if place.part is None else place.part.per_gpu
    return gpus / (node.gpus * per_gpu)


def _default_cpu(node: Node, share: float | None) -> str:
    if share is None or node.cpus is None:
        return DEFAULT_CPU
    return str(max(math.floor(node.cpus * USABLE_SHARE * share), 1))


def _default_memory(node: Node, share: float | None) -> str:
    if share is None or node.memory_gib is None:
        return DEFAULT_MEMORY
    return f"{max(math.floor(node.memory_gib * USABLE_SHARE * share), 1)}Gi"


def _check_fit(place: Place, node: Node, machine: Machine) -> None:
    memory_bytes = None if node.memory_gib is None else node.memory_gib * BYTES_PER_GIB
    for flag, quantity, has, shown in (
        ("--cpu", machine.cpu, node.cpus, f"{node.cpus} CPUs"),
        ("--memory", machine.memory, memory_bytes, f"{node.memory_gib} GiB"),
    ):
        asked = number(quantity)
        if has is not None and asked is not None and asked > has:
            raise UsageError(
                f"{flag} {quantity} and {place.words}: {node.name} has {shown}",
                fix=f"Ask for less, or leave {flag} out: it becomes the GPUs' share of the node.",
            )


def number(quantity: str) -> float | None:
    """Read a quantity of Kubernetes: `500m`, `32Gi`; None: it is none."""
    found = QUANTITY.fullmatch(quantity)
    if found is None:
        return None
    unit = quantity.lstrip("0123456789.")
    return float(quantity.removesuffix(unit)) * UNITS[unit]
