"""Pods of a service, as they are now.

In:  documents of pods.  Out: `FoundPod`s, by name.
Pods tell where their metrics are by KServe's annotations, which a runtime hands on to them; where
there are none, it is `/metrics` at the port that the server's container names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.clusters.place import BYTES_PER_GIB, number
from kvswarm.kserve.found import CONTAINERS, FoundPod, main_container, words_of
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.node_labels import kept

PORT: Final = 8080
PORT_NOTE: Final = "prometheus.kserve.io/port"
PATH_NOTE: Final = "prometheus.kserve.io/path"
DEVICE: Final = re.compile(r"/(gpu|mig-|gaudi|i915|xe)")
"""Names of resources that are GPUs, or slices of them."""
ROLE: Final = "llm-d.ai/role"


def pods_of(
    cluster: Cluster, namespace: str, selector: str, *, cached: bool = False
) -> tuple[FoundPod, ...]:
    """List the pods that have these labels. Raises ClusterError."""
    documents, _ = cluster.list_all(KINDS["Pod"], namespace, labels=selector, cached=cached)
    return tuple(sorted((read_pod(each) for each in documents), key=_name))


def _name(pod: FoundPod) -> str:
    return pod.name


def read_pod(document: Mapping[str, Any]) -> FoundPod:
    """Read one."""
    metadata, spec, status = (document.get(part) or {} for part in ("metadata", "spec", "status"))
    container = main_container(spec)
    annotations = metadata.get("annotations") or {}
    stated = _status_of(status, container.get("name"))
    port = annotations.get(PORT_NOTE, "")
    return FoundPod(
        name=str(metadata["name"]),
        uid=str(metadata.get("uid", "")),
        ip=status.get("podIP"),
        node=spec.get("nodeName"),
        image=container.get("image"),
        port=int(port) if port.isdigit() else _container_port(container),
        path="/" + str(annotations.get(PATH_NOTE, "/metrics")).lstrip("/"),
        scheme=_scheme(container),
        running=status.get("phase") == "Running" and "running" in (stated.get("state") or {}),
        ready=any(
            each.get("type") == "Ready" and each.get("status") == "True"
            for each in status.get("conditions") or []
        ),
        leaving="deletionTimestamp" in metadata,
        restarts=int(stated.get("restartCount") or 0),
        counts=container.get("name") in CONTAINERS
        and (metadata.get("labels") or {}).get(ROLE) != "prefill",
        words=words_of(container),
        labels=kept(spec.get("nodeSelector") or {}),
        **machine_of(container.get("resources") or {}),
    )


def machine_of(resources: Mapping[str, Any]) -> dict[str, Any]:
    """GPUs, CPU and memory that a container asks for, by the names of `FoundPod`.

    What has a limit alone asks for that.
    """
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    devices = {name: number(str(text)) for name, text in asked.items() if DEVICE.search(name)}
    resource = next((name for name, count in devices.items() if count), None)
    memory_bytes = number(str(asked.get("memory", "")))
    return {
        "gpus": 0 if resource is None else round(devices[resource] or 0),
        "gpu_resource": resource,
        "cpus": number(str(asked.get("cpu", ""))),
        "memory_gib": None if memory_bytes is None else memory_bytes / BYTES_PER_GIB,
    }


def _status_of(status: Mapping[str, Any], container: str | None) -> dict[str, Any]:
    for each in status.get("containerStatuses") or []:
        if each.get("name") == container:
            return dict(each)
    return {}


def _container_port(container: Mapping[str, Any]) -> int:
    ports = container.get("ports") or []
    return int(ports[0]["containerPort"]) if ports else PORT


def _scheme(container: Mapping[str, Any]) -> str:
    """As the kubelet asks whether the container is ready: http, unless a probe says https."""
    probes = [container.get(f"{name}Probe") or {} for name in ("readiness", "liveness", "startup")]
    schemes = [(probe.get("httpGet") or {}).get("scheme") for probe in probes]
    return "https" if "HTTPS" in schemes else "http"
