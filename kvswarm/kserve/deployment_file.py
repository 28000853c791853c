"""`deployment.json`: what was deployed, how long each phase took, and how it ended.

In:  `Recorded`.
Out: one JSON file, written whole or not at all; its JSON Schema is `deployment.schema.json`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kvswarm
from kvswarm.errors import RunDirError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.phases import NS, PHASES, PodTimes, Start, last_of
from kvswarm.kserve.refusals import ClusterError
from kvswarm.kserve.teardown import Made

SCHEMA_VERSION: Final = 1
SCHEMA_PATH: Final = Path(__file__).parent / "deployment.schema.json"
NAME: Final = "deployment.json"
MODE: Final = "serving.kserve.io/deploymentMode"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPod:
    """One pod of a deployment."""

    name: str
    node: str | None
    restarts: int
    """Of all its containers."""
    images: tuple[tuple[str, str, str | None], ...]
    """Container, image, and the image's digest as the node has it."""
    times: PodTimes

    @classmethod
    def of(cls, pod: Mapping[str, Any], times: PodTimes) -> ServedPod:
        """Read it from the pod."""
        status = pod.get("status") or {}
        containers = [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]
        return cls(
            name=pod["metadata"]["name"],
            node=pod["spec"].get("nodeName"),
            restarts=sum(each.get("restartCount") or 0 for each in containers),
            images=tuple(
                (each["name"], each["image"], each.get("imageID") or None) for each in containers
            ),
            times=times,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """All that the file says."""

    service: Made
    server: str
    """The API server's URL."""
    version: str | None
    manifests: Manifests
    flags: Mapping[str, Any]
    start: Start
    pods: tuple[ServedPod, ...]
    ended: str
    """`started`, `ready`, `failed`, `interrupted`."""
    url: str | None
    ready_s: float | None
    error: str | None

    @property
    def phases(self) -> dict[str, float | None]:
        """Of the last of the pods; `ready_s` is the service's."""
        return {**last_of(pod.times for pod in self.pods), "ready_s": self.ready_s}


def new_directory(directory: Path) -> None:
    """Make the directory of a deployment. Raises RunDirError where it holds something."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise RunDirError(
                f"{directory}: is not empty", fix="Choose another directory with --out."
            )
    except OSError as error:
        raise RunDirError(
            f"{directory}: cannot be made: {error}", fix="Choose another directory with --out."
        ) from error


def default_directory(service: str) -> Path:
    """`deployments/<UTC>-<service>`."""
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return Path("deployments") / f"{moment}-{service}"


def write_deployment(directory: Path, recorded: Recorded) -> Path:
    """Write the file, in place of the one before. Raises RunDirError."""
    path = directory / NAME
    half = directory / f".{NAME}"
    try:
        half.write_text(json.dumps(_plain(recorded), indent=1) + "\n", "utf-8")
        half.replace(path)
    except OSError as error:
        raise RunDirError(f"{path}: cannot be written: {error}", fix="Free some space.") from error
    return path


def _plain(recorded: Recorded) -> dict[str, Any]:
    service = next(
        each for each in recorded.manifests.documents if each["kind"] == recorded.service.kind.name
    )
    applied = dt.datetime.fromtimestamp(recorded.start.seen_ns / NS, dt.UTC)
    return {
        "schema_version": SCHEMA_VERSION,
        "kvswarm": kvswarm.__version__,
        "kind": recorded.service.kind.name,
        "namespace": recorded.service.namespace,
        "service": recorded.service.name,
        "backend": recorded.flags.get("backend"),
        "mode": (service["metadata"].get("annotations") or {}).get(MODE),
        "flags": dict(recorded.flags),
        "cluster": {"server": recorded.server, "version": recorded.version},
        "applied_at": applied.isoformat(),
        "ended": recorded.ended,
        "error": recorded.error,
        "url": recorded.url,
        "phases": recorded.phases,
        "pods": [_plain_pod(pod) for pod in recorded.pods],
        "notes": list(recorded.manifests.notes),
        "manifests": list(recorded.manifests.documents),
    }


def _plain_pod(pod: ServedPod) -> dict[str, Any]:
    return {
        "name": pod.name,
        "node": pod.node,
        "restarts": pod.restarts,
        "images": [
            {"container": container, "image": image, "image_id": digest}
            for container, image, digest in pod.images
        ],
        "phases": {f"{phase}_s": getattr(pod.times, f"{phase}_s") for phase in PHASES},
        "sources": dict(pod.times.source),
    }


def version_of(cluster: Cluster) -> str | None:
    """The API server's; None: it does not say, or is away."""
    try:
        return ".".join(str(number) for number in cluster.version())
    except ClusterError:
        return None
