"""A cluster as it was read: its GPUs, the nodes that have them, and what an hour of one costs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from kvswarm.kserve.machine import GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one GPU costs on demand, of which list, and when that list was read."""

    price_per_hour_usd: float
    as_of: datetime.date
    region: str | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A size of node that has the GPU. None: not known."""

    instance_type: str | None
    gpus: int | None
    cpus: int | None
    memory_gib: float | None
    price: Price | None
    node_selector: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people call it."""
        return self.instance_type or "a node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A MIG slice: by a resource of its own, or by a label of nodes whose GPUs are cut so."""

    per_gpu: int
    gpu_resource: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A product of which the cluster may have nodes; the smallest node first."""

    product: str
    memory_gib: float
    nodes: tuple[Node, ...]
    gpu_resource: str = GPU
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    slices: Mapping[str, Slice] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A kind of cluster, or one of your own. Storage is what a person is told, not written."""

    name: str
    title: str
    block_class: str | None
    shared_class: str | None
    model_cache: str | None
    gpus: Mapping[str, Gpu]
