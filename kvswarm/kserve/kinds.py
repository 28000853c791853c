"""The kinds of Kubernetes and KServe that kvswarm reads or writes, and the API's paths to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `api_version` is the one that kvswarm writes and asks for."""

    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """`serving.kserve.io`; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def resource(self) -> str:
        """As `kubectl` and a Role's rules tell it apart: `inferenceservices.serving.kserve.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The path of the API for one object, or for all of a namespace, or of the cluster."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        return "/".join(parts)


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("InferenceService", "serving.kserve.io/v1beta1", "inferenceservices"),
        Kind("ServingRuntime", "serving.kserve.io/v1alpha1", "servingruntimes"),
        Kind(
            "ClusterServingRuntime",
            "serving.kserve.io/v1alpha1",
            "clusterservingruntimes",
            namespaced=False,
        ),
        Kind("LLMInferenceService", "serving.kserve.io/v1alpha2", "llminferenceservices"),
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("Event", "v1", "events"),
        Kind("Namespace", "v1", "namespaces", namespaced=False),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("Pod", "v1", "pods"),
        Kind("Secret", "v1", "secrets"),
        Kind("Service", "v1", "services"),
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        Kind("Role", "rbac.authorization.k8s.io/v1", "roles"),
        Kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings"),
    )
}


def kind_of(document: Mapping[str, Any]) -> Kind:
    """The kind of a document. Raises UsageError for one that kvswarm does not handle."""
    kind = KINDS.get(document.get("kind", ""))
    if kind is None or kind.api_version != document.get("apiVersion"):
        raise UsageError(
            f"a document is {document.get('apiVersion')} {document.get('kind')}, which kvswarm "
            "does not apply"
        )
    return kind


def full_name(kind: Kind, namespace: str | None, name: str) -> str:
    """As people read it and `kubectl` takes it: `inferenceservice/qwen in namespace llm`."""
    place = f" in namespace {namespace}" if namespace is not None and kind.namespaced else ""
    return f"{kind.name.lower()}/{name}{place}"
