"""What a run is paid for: flags, files of prices, run.json and the clusters' lists, put together.

In:  a run directory, and what was asked for.
Out: `cost.json` in it, for the analysis asks neither clusters nor people.

What a person says goes before what was found: flags, then --prices, then what earlier calls were
given, then `cost` of the profile, then the pods of the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.analysis.cost_basis import CostBasis, read_basis, write_basis
from kvswarm.commands.cost_options import CostAsked
from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.load import cluster_names, load_cluster
from kvswarm.kserve.clusters.model import Cluster, Gpu, Node, Price
from kvswarm.kserve.clusters.place import Place, node_for, place_of
from kvswarm.rundir import PodInfo, RunDir, RunInfo
from kvswarm.serving.gpus import find_gpu
from kvswarm.serving.prices import Costs, costs_of, read_prices
from kvswarm.serving.problems import nearest

PRODUCTS: Final = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")
INSTANCE: Final = "node.kubernetes.io/instance-type"
REGION: Final = "topology.kubernetes.io/region"
PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"
CAPACITY: Final = (
    "cloud.google.com/gke-spot", "eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type",
    "kubernetes.azure.com/scalesetpriority",
)  # fmt: skip
SPOT: Final = frozenset({"true", "spot"})
SLICE: Final = re.compile(r"mig-(\d+g\.\d+gb[\w.]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """What the pods of the service tell of a replica."""

    costs: Costs
    replicas: int | None = None
    instance_type: str | None = None
    region: str | None = None
    notes: tuple[str, ...] = ()


NOTHING: Final = Found(Costs())


def check_costs(asked: CostAsked, profile_cost: Mapping[str, Any]) -> None:
    """Refuse what cannot be read or is not known, before anybody measures. Raises UsageError."""
    known = _flags(asked).over(costs_of(profile_cost))
    _listed(known, NOTHING)


def keep_costs(run: RunDir, asked: CostAsked) -> None:
    """Write cost.json, unless nothing is known. Raises RunDirError; UsageError for the flags.

    What of the profile and of the pods is not understood is noted: the run has been made.
    """
    info = run.read_info()
    check_costs(asked, {})
    before = read_basis(run)
    given = _flags(asked) if before is None else _flags(asked).over(before.given)
    found = _found(info)
    said = given.over(costs_of(info.profile.get("cost") or {}, "the profile"))
    known = said.over(found.costs)
    if known == Costs() and not found.notes:
        return
    write_basis(run, _basis(known, said, given, found))


def _flags(asked: CostAsked) -> Costs:
    flags = Costs(
        cloud=asked.cloud,
        gpu=asked.gpu,
        gpus=asked.gpus,
        replicas=asked.replicas,
        idle_w_per_gpu=asked.idle_watts,
    )
    return flags if asked.prices is None else flags.over(read_prices(asked.prices, asked.cloud))


def _basis(known: Costs, said: Costs, given: Costs, found: Found) -> CostBasis:
    notes = [*found.notes]
    own_price = None if known.gpu_hour_usd is None else known.gpu_price(known.gpu or "")
    listed = None
    if own_price is None and known.gpus != 0:
        try:
            listed = _listed(known, found)
        except UsageError as error:
            notes.append(error.message)
    price = None if listed is None else listed.price
    whole_machine = price is not None and bool(known.cpu_core_hour_usd or known.memory_gib_hour_usd)
    if whole_machine:
        notes.append(
            "the GPU's price is that of its node, CPU and memory included: theirs are left out."
        )
    if price is not None and found.region and price.region and found.region != price.region:
        notes.append(f"the nodes are in {found.region}, the price is that of {price.region}.")
    return CostBasis(
        gpu=(known.gpu or "").strip("/") or None if listed is None else listed.product,
        gpus_per_replica=known.gpus,
        cpus_per_replica=known.cpus,
        memory_gib_per_replica=known.memory_gib,
        replicas=found.replicas if said.replicas is None else said.replicas,
        replicas_given=said.replicas is not None,
        gpu_hour_usd=own_price if listed is None else listed.usd,
        cpu_core_hour_usd=None if whole_machine else known.cpu_core_hour_usd,
        memory_gib_hour_usd=None if whole_machine else known.memory_gib_hour_usd,
        overhead_share=known.overhead_share or 0.0,
        idle_w_per_gpu=known.idle_w_per_gpu,
        price_source=price.source if price is not None else known.source,
        price_as_of=None if price is None else price.as_of.isoformat(),
        price_region=None if price is None else price.region,
        notes=notes,
        given=given,
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """The price of a GPU, or of a slice of one, in a cluster's list."""

    product: str
    price: Price
    per_gpu: int

    @property
    def usd(self) -> float:
        """For an hour."""
        return self.price.price_per_hour_usd / self.per_gpu


def _listed(known: Costs, found: Found) -> Listed | None:
    """The price that kvswarm's own lists have; None where they have none.

    Raises UsageError for a cloud that there is not, and a GPU that it does not have.
    """
    by_type = None if known.cloud is not None else _by_instance_type(found.instance_type)
    if by_type is not None:
        name, cluster = by_type
        _, _, part = (known.gpu or "").partition("/")
        place = place_of(cluster, f"{name}/{part}" if part else name)
    elif known.cloud is None:
        return None
    else:
        cluster = _cluster(known.cloud)
        if not (known.gpu or "").partition("/")[0]:
            return None
        place = _place(cluster, known.gpu or "")
    node = _node(place, found.instance_type, known.gpus or 1)
    if node.price is None:
        return None
    slice_name = place.name.partition("/")[2]
    product = f"{place.gpu.product} {slice_name}".rstrip()
    return Listed(product, node.price, 1 if place.part is None else place.part.per_gpu)


def _cluster(name: str) -> Cluster:
    """A cluster, whose error names the flag that is meant here. Raises UsageError."""
    try:
        return load_cluster(name)
    except UsageError as error:
        told = error.message.replace("--cluster", "--cloud")
        raise UsageError(told, fix=error.fix) from error


def _nodes() -> Iterator[tuple[Cluster, str, Gpu, Node]]:
    for cluster_name in cluster_names():
        cluster = load_cluster(cluster_name)
        for name, gpu in cluster.gpus.items():
            for node in gpu.nodes:
                yield cluster, name, gpu, node


def _by_instance_type(instance_type: str | None) -> tuple[str, Cluster] | None:
    """The GPU and the cluster of a type of machine: each has names of its own for them."""
    if instance_type is None:
        return None
    for cluster, name, _, node in _nodes():
        if node.instance_type == instance_type and node.price is not None:
            return name, cluster
    return None


def _place(cluster: Cluster, gpu: str) -> Place:
    """The GPU of a cluster, by its name there or any other. Raises UsageError."""
    whole, slash, part = gpu.partition("/")
    if whole not in cluster.gpus:
        wanted = find_gpu(whole)
        same = [
            name
            for name, each in cluster.gpus.items()
            if wanted is not None and wanted in (find_gpu(name), find_gpu(each.product))
        ]
        if not same:
            raise UsageError(
                f"--gpu {whole}: cluster {cluster.name} has no price of it."
                f"{nearest(whole, cluster.gpus)}",
                fix=f"It has {', '.join(cluster.gpus)}; or give gpu_hour_usd in --prices.",
            )
        whole = same[0]
    return place_of(cluster, f"{whole}{slash}{part}")


def _node(place: Place, instance_type: str | None, gpus: int) -> Node:
    """That very type of machine; where it is not known, the smallest with room. UsageError."""
    same = [n for n in place.gpu.nodes if instance_type and n.instance_type == instance_type]
    return same[0] if same else node_for(place, gpus)


# -- what the pods tell ----------------------------------------------------------------------


def _found(info: RunInfo) -> Found:
    """What the pods of the service ask for, or would; where they differ, no replica is known."""
    service = info.target.service
    there = [] if service is None else [p for p in service.pods or () if p.gpus is not None]
    pods = there or ([service.replica] if service is not None and service.replica else [])
    if not pods:
        return NOTHING
    kinds = {(pod.gpus, _gpu_of(pod), pod.cpus, pod.memory_gib) for pod in pods}
    if len(kinds) > 1:
        return Found(
            Costs(), len(pods), notes=("the pods are not alike, so no replica is known of them.",)
        )
    ((gpus, gpu, cpus, memory_gib),) = kinds
    labels = pods[0].labels
    types = {pod.labels.get(INSTANCE) for pod in pods}
    spot = any(str(labels.get(name, "")).lower() in SPOT for name in CAPACITY)
    return Found(
        Costs(gpu=gpu, gpus=gpus, cpus=cpus, memory_gib=memory_gib, cloud=_cloud_of(pods[0])),
        replicas=len(there) or None,
        instance_type=labels.get(INSTANCE) if len(types) == 1 else None,
        region=labels.get(REGION),
        notes=("the nodes are spot instances: prices on demand are too high for them.",)
        if spot
        else (),
    )


def _gpu_of(pod: PodInfo) -> str | None:
    """The product, and the slice of it after a slash; None: its node does not say.

    `/1g.10gb`: a slice of a GPU whose product is not told.
    """
    if not pod.gpus:
        return None
    product = next((pod.labels[name] for name in PRODUCTS if name in pod.labels), "")
    whole, _, cut = product.partition("-MIG-")
    named = SLICE.search(pod.gpu_resource or "")
    part = named[1] if named else cut or pod.labels.get(PARTITION, "")
    return f"{whole}/{part}" if part else whole or None


def _cloud_of(pod: PodInfo) -> str | None:
    return "gke" if PRODUCTS[1] in pod.labels else None
