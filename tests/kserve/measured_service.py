"""Services of KServe that are there to be measured, and `kvswarm run --service` as a person runs it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from kserve_manifests import ask
from kube_api_server import ApiServer
from running import Done, forgiving, run
from stand_in_kserve import StandIn

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS, Kind

LONG_S = 240.0


def inference_service(namespace: str, name: str = "qwen", **wanted: Any) -> list[dict[str, Any]]:
    """The documents of one, as `kvswarm manifest` writes them."""
    return list(ask(namespace=namespace, service=name, **wanted).documents)


def llm_service(namespace: str, name: str = "llama") -> dict[str, Any]:
    """One that KServe's own presets serve."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": "hf://meta-llama/Llama-3.1-8B", "name": "meta-llama/Llama-3.1-8B"},
            "replicas": 1,
        },
    }


def wait_until_ready(cluster: Cluster, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    """The service when its controller says that it is ready."""
    give_up_s = time.monotonic() + LONG_S
    while time.monotonic() < give_up_s:
        found = cluster.get(kind, namespace, name)
        conditions = ((found or {}).get("status") or {}).get("conditions") or []
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            assert found is not None
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} was not ready: {found}")


def wait_for_pods(kserve: StandIn, name: str, count: int) -> list[str]:
    """Names of its ready pods, when they are as many."""
    give_up_s = time.monotonic() + LONG_S
    while len(pods := kserve.pods(name)) != count:
        assert time.monotonic() < give_up_s, pods
        time.sleep(0.05)
    return pods


@dataclass(frozen=True)
class Person:
    """Somebody with a kubeconfig who runs kvswarm."""

    api: ApiServer
    folder: Path
    namespace: str
    user: str = "admin"

    def environment(self) -> dict[str, str]:
        """With the kubeconfig."""
        path = self.folder / f"{self.user}.kubeconfig"
        return {"KUBECONFIG": str(self.api.kubeconfig(path, user=self.user))}

    def arguments(self, service: str, *more: str | Path) -> list[str | Path]:
        """Of `kvswarm run`."""
        profile = self.folder / "mine.yaml"
        if not profile.exists():
            forgiving(self.folder)
        return ["--profile", profile, "--namespace", self.namespace, "--service", service, *more]

    def run(self, service: str, *more: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """`kvswarm run --service` to its end."""
        environment = {**self.environment(), **(env or {})}
        return run(self.folder / "run", *self.arguments(service, *more), env=environment)


SERVICE, LLM_SERVICE = KINDS["InferenceService"], KINDS["LLMInferenceService"]


def role_for(namespace: str, *, without: str | None = None) -> list[dict[str, Any]]:
    """The role that a run needs, less the rule for one resource, and `operator` bound to it."""
    path = Path(__file__).parents[2] / "deploy" / "kserve" / "role-run.yaml"
    role = yaml.safe_load(path.read_text("utf-8"))
    role["metadata"]["namespace"] = namespace
    role["rules"] = [rule for rule in role["rules"] if without not in rule["resources"]]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role["metadata"]["name"], "namespace": namespace},
        "subjects": [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {
            "kind": "Role",
            "name": role["metadata"]["name"],
            "apiGroup": "rbac.authorization.k8s.io",
        },
    }
    return [role, binding]
