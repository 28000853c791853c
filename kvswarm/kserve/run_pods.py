"""The pods of a run on the cluster: what master and workers share, and what keeps them restricted.

In:  `Pods`: the image, the machine's share, where they may stand.
Out: the pod template of a Job.

They meet Kubernetes' restricted policy, with a read-only root file system. Requests equal limits,
in whole CPUs: the kernel stops a process at its limit for parts of every 0.1 s, which would read
as late arrivals, and the static CPU manager gives whole CPUs to one pod alone.
Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

USER: Final = 10001
"""As the image's."""
GPU_NODES: Final = "nvidia.com/gpu.present"
"""Label that NVIDIA's GPU feature discovery gives to nodes with a GPU."""
SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
HOST: Final = "kubernetes.io/hostname"
GRACE_S: Final = 120
"""A stopped run keeps its rows and makes its figures, which takes up to a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one pod has of its node: whole CPUs, and a quantity of memory."""

    cpus: int = 2
    memory: str = "2Gi"

    def resources(self) -> dict[str, Any]:
        """Requests equal to limits."""
        share = {"cpu": str(self.cpus), "memory": self.memory}
        return {"limits": dict(share), "requests": dict(share)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """What all pods of a run have in common."""

    image: str
    pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    away_from_gpus: bool = False
    """True: only nodes without a GPU. False: they are preferred."""
    service: str | None = None
    """The InferenceService beside whose pods none should stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one of master and workers has for itself."""

    name: str
    arguments: Sequence[str]
    share: Share
    labels: Mapping[str, str]
    environment: Sequence[Mapping[str, Any]]
    volumes: Sequence[Mapping[str, Any]]
    mounts: Sequence[Mapping[str, Any]]
    ports: Mapping[str, int] = field(default_factory=dict)
    account: str | None = None
    """The service account whose token it gets; None: it gets none."""


def template(pods: Pods, role: Role) -> dict[str, Any]:
    """The pod template of a Job, without `metadata.name`."""
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": role.account is not None,
        # Each Service of the namespace would be several variables, some of them named KVSWARM_.
        "enableServiceLinks": False,
        # Else the first process of a container is init, for which a signal has no default.
        "shareProcessNamespace": True,
    }
    if role.account is not None:
        spec["serviceAccountName"] = role.account
    if pods.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pods.pull_secrets]
    if pods.node_selector:
        spec["nodeSelector"] = dict(pods.node_selector)
    if pods.tolerations:
        spec["tolerations"] = [dict(each) for each in pods.tolerations]
    spec["affinity"] = _affinity(pods)
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": HOST,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(role.labels)},
        }
    ]
    spec["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec["containers"] = [_container(pods, role)]
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}, *map(dict, role.volumes)]
    return {"metadata": {"labels": dict(role.labels)}, "spec": spec}


def _container(pods: Pods, role: Role) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": role.name,
        "image": pods.image,
        # Kubernetes reads $(NAME) as a variable.
        "command": ["kvswarm"],
        "args": [word.replace("$(", "$$(") for word in role.arguments],
    }
    if role.ports:
        container["ports"] = [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in role.ports.items()
        ]
    if role.environment:
        container["env"] = [dict(each) for each in role.environment]
    container["resources"] = role.share.resources()
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container["volumeMounts"] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in a pod
        *map(dict, role.mounts),
    ]
    return container


def _affinity(pods: Pods) -> dict[str, Any]:
    """Away from GPU nodes, and from the server: its neighbour's load would be measured, too."""
    no_gpu: dict[str, Any] = {
        "matchExpressions": [{"key": GPU_NODES, "operator": "NotIn", "values": ["true"]}],
    }
    node: dict[str, Any]
    if pods.away_from_gpus:
        node = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [no_gpu]},
        }
    else:
        node = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "preference": no_gpu}
            ]
        }
    affinity: dict[str, Any] = {"nodeAffinity": node}
    if pods.service is not None:
        selector = {"matchLabels": {SERVICE_LABEL: pods.service}}
        affinity["podAntiAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "podAffinityTerm": {"topologyKey": HOST, "labelSelector": selector},
                }
            ]
        }
    return affinity
