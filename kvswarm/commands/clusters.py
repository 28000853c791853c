"""The table of `--list-clusters`: every cluster, its GPUs, their nodes and prices."""

from __future__ import annotations

from collections.abc import Iterator

from kvswarm.kserve.clusters.load import cluster_names, load_cluster
from kvswarm.kserve.clusters.model import Cluster, Gpu, Node


def clusters_table() -> str:
    """All clusters as text. What is not known is a dash; prices are of one GPU for an hour."""
    return "\n\n".join(_cluster(load_cluster(name)) for name in cluster_names())


def _cluster(cluster: Cluster) -> str:
    lines = [f"{cluster.name}: {cluster.title}"]
    claims = [
        f"{word} {name}"
        for word, name in (
            ("storage class", cluster.block_class),
            ("for many readers", cluster.shared_class),
        )
        if name is not None
    ]
    if claims:
        lines.append(f"  {', '.join(claims)}")
    if cluster.model_cache is not None:
        lines.append(f"  {cluster.model_cache}")
    rows = [
        ("GPU", "GiB", "slices", "node", "GPUs", "CPUs", "GiB", "$/GPU h", "as of"),
        *(row for name, gpu in cluster.gpus.items() for row in _rows(name, gpu)),
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    sources = {
        node.price.source: None
        for gpu in cluster.gpus.values()
        for node in gpu.nodes
        if node.price is not None
    }
    return "\n".join([*lines, *(f"  Prices: {source}" for source in sources)])


def _rows(name: str, gpu: Gpu) -> Iterator[tuple[str, ...]]:
    for place, node in enumerate(gpu.nodes):
        first = (name, f"{gpu.memory_gib}", " ".join(gpu.slices)) if place == 0 else ("", "", "")
        yield (*first, *_node(node))


def _node(node: Node) -> tuple[str, ...]:
    price, as_of = "-", "-"
    if node.price is not None:
        price = f"{node.price.price_per_hour_usd:.2f}"
        as_of = f"{node.price.as_of} {node.price.region or ''}".rstrip()
    known = (node.instance_type, node.gpus, node.cpus, node.memory_gib)
    return (*("-" if each is None else f"{each}" for each in known), price, as_of)
