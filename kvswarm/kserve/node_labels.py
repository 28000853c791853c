"""What the nodes of a service's pods say of their machine: product of the GPU, type, region.

In:  pods, and a cluster whose nodes the user may get, or may not.
Out: the same pods with these labels; without the right, with those that they want of a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.found import FoundPod
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.refusals import ClusterError

KEPT: Final = frozenset(
    {
        "nvidia.com/gpu.product",
        "cloud.google.com/gke-accelerator",
        "cloud.google.com/gke-gpu-partition-size",
        "cloud.google.com/gke-spot",
        "eks.amazonaws.com/capacityType",
        "karpenter.sh/capacity-type",
        "kubernetes.azure.com/scalesetpriority",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
    }
)
"""Labels that say what a machine is and what is paid for it."""


def kept(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of the labels that say so."""
    return {name: str(value) for name, value in labels.items() if name in KEPT}


def with_node_labels(cluster: Cluster, pods: Sequence[FoundPod]) -> tuple[FoundPod, ...]:
    """Ask for the node of each pod, until that is refused: who measures needs no right to them."""
    by_node: dict[str, dict[str, str]] = {}
    try:
        for node in dict.fromkeys(pod.node for pod in pods if pod.node is not None):
            found = cluster.get(KINDS["Node"], None, node) or {}
            by_node[node] = kept((found.get("metadata") or {}).get("labels") or {})
    except ClusterError:
        pass  # what a machine is can be said by flags, too
    return tuple(
        replace(pod, labels={**pod.labels, **by_node.get(pod.node or "", {})}) for pod in pods
    )
