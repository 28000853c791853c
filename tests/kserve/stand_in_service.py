"""One service of a stand-in, as KServe's controller leads it: pods, a Deployment, a status, a URL.

In:  the service's document as it changes, and what a test says of it.
Out: what the API server shows; `address`, where connections reach its ready pods.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from typing import Any, Protocol

from kube_api_server import free_port
from stand_in_network import Front, machine_address
from stand_in_pods import STORAGE, Behaviour, GoneError, StandInPod, World, now

from kvswarm.kserve.cluster import MERGE
from kvswarm.kserve.kinds import KINDS, Kind
from kvswarm.kserve.refusals import Asked, ClusterError, NotThereError

LLM_SERVICE = KINDS["LLMInferenceService"]
METRICS = {"vllm": "/metrics", "tgi": "/metrics", "trtllm": "/prometheus/metrics"}
IMAGE = "kserve/huggingfaceserver:v0.20.0"


class Told(Protocol):
    """What a test said."""

    def behaviour_of(self, service: str) -> Behaviour:
        """How a service fares."""
        ...

    def scale_of(self, service: str) -> int | None:
        """How many pods it is to have; None: it was not said."""
        ...

    def scale(self, service: str, replicas: int) -> None:
        """Say how many."""
        ...


class StandInService:
    """One service, in a thread of its own."""

    def __init__(self, stand_in: Told, world: World, kind: Kind, document: dict[str, Any]) -> None:
        self._stand_in, self._world, self._kind = stand_in, world, kind
        self._document = document
        self._name: str = document["metadata"]["name"]
        self.pods: list[StandInPod] = []
        self._lost: set[str] = set()
        self._gone = False
        self._turn = itertools.count()
        self._quota_told = False
        self._moments: dict[str, tuple[bool, str]] = {}
        self._front = Front(self._choose)
        self.address = f"http://{machine_address()}:{self._front.port}"
        self._thread = threading.Thread(target=self._reconcile, daemon=True, name=self._name)
        self._thread.start()

    def take(self, document: dict[str, Any]) -> None:
        """Its newest state."""
        with self._world.moved:
            self._document = document
            self._world.moved.notify_all()

    def lose(self, pod: str) -> None:
        """Somebody deleted a pod."""
        with self._world.moved:
            self._lost.add(pod)
            self._world.moved.notify_all()

    def end(self) -> None:
        """Take away all that it owned; where the stand-in ends, only its processes."""
        with self._world.moved:
            self._gone = True
            self._world.moved.notify_all()
        self._thread.join()
        self._front.close()
        for pod in self.pods:
            pod.end()
        if self._world.over:
            return
        try:
            for pod in self.pods:
                pod.remove()
            world = self._world
            world.keep_asking(
                lambda: world.cluster.delete(KINDS["Deployment"], world.namespace, self._deployment)
            )
        except GoneError:
            return

    # -- what is wanted ----------------------------------------------------------------------

    @property
    def _llm(self) -> bool:
        return self._kind is LLM_SERVICE

    @property
    def _deployment(self) -> str:
        return f"{self._name}-kserve" if self._llm else f"{self._name}-predictor"

    @property
    def _behaviour(self) -> Behaviour:
        return self._stand_in.behaviour_of(self._name)

    @property
    def _wanted(self) -> int:
        told = self._stand_in.scale_of(self._name)
        if told is not None:
            return told
        if self._behaviour.replicas is not None:
            return self._behaviour.replicas
        spec = self._document["spec"]
        asked = spec.get("replicas") if self._llm else spec["predictor"].get("minReplicas")
        return 1 if asked is None else max(1, int(asked))

    @property
    def flavor(self) -> str:
        """Of the simulator, by the runtime."""
        if self._llm:
            return "vllm"
        model = self._document["spec"]["predictor"].get("model") or {}
        return {"tgi": "tgi", "tensorrt-llm": "trtllm"}.get(model["modelFormat"]["name"], "vllm")

    @property
    def _labels(self) -> dict[str, str]:
        if self._llm:
            return {
                "app.kubernetes.io/name": self._name,
                "app.kubernetes.io/part-of": "llminferenceservice",
                "app.kubernetes.io/component": "llminferenceservice-workload",
                "kserve.io/component": "workload",
            }
        return {
            "app": f"isvc.{self._deployment}",
            "component": "predictor",
            "serving.kserve.io/inferenceservice": self._name,
        }

    # -- the thread --------------------------------------------------------------------------

    def _reconcile(self) -> None:
        try:
            self._make_deployment()
            shown: dict[str, Any] = {}
            while not self._gone and not self._world.over:
                status = self._status()
                if status != shown:
                    self._world.set_status(self._kind, self._name, _without_old(status, shown))
                    shown = status
                if self._balance():
                    continue
                self._wait(shown)
        except (GoneError, NotThereError):
            return  # deleted meanwhile: `end` follows
        except ClusterError as error:
            raise AssertionError(f"stand-in: {error}") from error

    def _wait(self, shown: dict[str, Any]) -> None:
        """Until there is something to do."""
        with self._world.moved:
            self._world.moved.wait_for(
                lambda: (
                    self._gone or self._world.over or self._off_balance() or self._status() != shown
                )
            )

    @property
    def _newest(self) -> list[StandInPod]:
        """Pods of the service as it is now: a change of its spec replaces them."""
        return [pod for pod in self.pods if pod.generation == self._generation]

    @property
    def _generation(self) -> int:
        return int(self._document["metadata"]["generation"])

    def _surplus(self) -> list[StandInPod]:
        """Pods that somebody deleted, that are too many, or that newer ones have replaced."""
        newest = self._newest
        lost = [pod for pod in self.pods if pod.name in self._lost]
        replaced = sum(pod.ready for pod in newest) >= self._wanted
        old = [pod for pod in self.pods if pod not in newest] if replaced else []
        return [*lost, *newest[self._wanted :], *old]

    def _off_balance(self) -> bool:
        lacks = self._behaviour.spec == "ok" and len(self._newest) < self._wanted
        return lacks or self._untold() or bool(self._surplus())

    def _untold(self) -> bool:
        return not self._quota_told and any(pod.refused is not None for pod in self.pods)

    def _balance(self) -> bool:
        """Make or take away one pod; whether there was one."""
        quota = [pod for pod in self.pods if pod.refused is not None]
        if quota and not self._quota_told:
            self._quota_told = True
            self._world.tell(
                {
                    "kind": "ReplicaSet",
                    "name": f"{self._deployment}-7d9c6b5f4",
                    "apiVersion": "apps/v1",
                },
                "FailedCreate",
                f"Error creating: {quota[0].refused}",
                "Warning",
            )
        surplus = self._surplus()
        if self._behaviour.spec == "ok" and len(self._newest) < self._wanted:
            self._add()
        elif surplus:
            pod = surplus[0]
            with self._world.moved:
                self.pods.remove(pod)
                self._lost.discard(pod.name)
            pod.end()
            pod.remove()
        else:
            return False
        self._show_replicas()
        return True

    def _add(self) -> None:
        behaviour = self._behaviour
        port = free_port()
        words = ["--host", "0.0.0.0", "--port", str(port), "--flavor", self.flavor]  # noqa: S104
        base_path = self._base_path()
        if base_path:
            words += ["--base-path", base_path]
        if "--model" not in behaviour.simulator:
            words += ["--model", self._model_name()]
        words += behaviour.simulator
        generation = self._generation
        pod = StandInPod(self._world, self._pod(port), lambda: self._behaviour, tuple(words))
        pod.generation = generation
        with self._world.moved:
            self.pods.append(pod)
        pod.start()

    def _base_path(self) -> str:
        if self._llm:
            return f"/{self._world.namespace}/{self._name}"
        return "/openai" if self._format() == "huggingface" else ""

    def _format(self) -> str:
        model = self._document["spec"]["predictor"].get("model") or {}
        return str(model["modelFormat"]["name"])

    def _model_name(self) -> str:
        if self._llm:
            return str(self._document["spec"]["model"].get("name") or self._name)
        if self._format() == "tensorrt-llm":
            return "models"
        for argument in self._document["spec"]["predictor"]["model"].get("args", []):
            if argument.startswith("--model_name="):
                return str(argument.partition("=")[2])
        return self._name

    def _pod(self, port: int) -> dict[str, Any]:
        image, arguments = IMAGE, []
        resources: dict[str, Any] = {}
        if not self._llm:
            model = self._document["spec"]["predictor"]["model"]
            resources = model.get("resources", {})
            image, arguments = model.get("image", IMAGE), model.get("args", [])
            if "runtime" in model:
                runtime = self._world.keep_asking(
                    lambda: self._world.cluster.get(
                        KINDS["ServingRuntime"], self._world.namespace, model["runtime"]
                    )
                )
                if runtime is not None:
                    container = runtime["spec"]["containers"][0]
                    image = container["image"]
                    arguments = [*container.get("args", []), *arguments]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{self._deployment}-{secrets.token_hex(4)}",
                "namespace": self._world.namespace,
                "labels": self._labels,
                "annotations": {
                    "prometheus.kserve.io/port": str(port),
                    "prometheus.kserve.io/path": METRICS[self.flavor],
                },
            },
            "spec": {
                "initContainers": [
                    {"name": STORAGE, "image": "kserve/storage-initializer:v0.20.0"}
                ],
                "containers": [
                    {
                        "name": "main" if self._llm else "kserve-container",
                        "image": image,
                        "args": arguments,
                        "resources": resources,
                        "ports": [{"containerPort": port, "protocol": "TCP"}],
                    }
                ],
            },
        }

    def _make_deployment(self) -> None:
        pod = self._pod(8080)
        labels = {**self._labels, "kvswarm.test/of": self._deployment}
        self._world.keep_asking(
            lambda: self._world.cluster.create(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {
                        "name": self._deployment,
                        "namespace": self._world.namespace,
                        "labels": labels,
                    },
                    "spec": {
                        "replicas": self._wanted,
                        "selector": {"matchLabels": self._labels},
                        "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
                    },
                }
            )
        )

    def _show_replicas(self) -> None:
        kind, namespace = KINDS["Deployment"], self._world.namespace
        asked = Asked(verb="patch", kind=kind, namespace=namespace, name=self._deployment)
        body = {"spec": {"replicas": self._wanted}}
        self._world.keep_asking(
            lambda: self._world.cluster._json(
                asked,
                "PATCH",
                kind.path(namespace, self._deployment),
                body=body,
                content_type=MERGE,
            )
        )

    # -- what is shown -----------------------------------------------------------------------

    def _choose(self) -> int | None:
        """A ready pod's port; the first to ask makes a pod where there is none."""
        with self._world.moved:
            if self._wanted == 0:
                self._stand_in.scale(self._name, 1)
            self._world.moved.wait_for(
                lambda: self._gone or self._world.over or any(pod.ready for pod in self.pods)
            )
            ready = [pod for pod in self.pods if pod.ready]
            if self._gone or not ready:
                return None
            return ready[next(self._turn) % len(ready)].port

    def _status(self) -> dict[str, Any]:
        ready = self._behaviour.spec == "ok" and (
            self._wanted == 0 or any(pod.ready for pod in self._newest)
        )
        routed = ready and self._behaviour.ingress == "ok"
        host = self._behaviour.host
        path = self._base_path() if self._llm else ""
        url = f"http://{host}{path}" if host else f"{self.address}{path}"
        status: dict[str, Any] = {
            # KServe tells the Deployment's, but for an LLMInferenceService.
            "observedGeneration": self._generation if self._llm else 1,
            "conditions": self._conditions(ready=ready, routed=routed),
        }
        if routed:
            status["url"] = url
            status["address"] = {"url": f"{self.address}{path}"}
        if routed and self._llm:
            status["addresses"] = [{"url": url}]
        if not self._llm:
            status["modelStatus"] = self._model_status(ready=ready)
            mode = self._document["metadata"].get("annotations", {})
            status["deploymentMode"] = mode.get("serving.kserve.io/deploymentMode", "Standard")
        return status

    def _conditions(self, *, ready: bool, routed: bool) -> list[dict[str, str]]:
        if self._llm:
            states = {"PresetsCombined": True, "WorkloadsReady": ready, "RouterReady": routed}
        else:
            states = {"PredictorReady": ready, "IngressReady": routed}
        why = {"reason": "MinimumReplicasUnavailable",
               "message": "Deployment does not have minimum availability."}  # fmt: skip
        conditions = []
        for name, true in {**states, "Ready": ready and routed}.items():
            if self._moments.get(name, (None, ""))[0] != true:
                self._moments[name] = (true, now())
            status = {"status": "True" if true else "False"}
            moment = {"lastTransitionTime": self._moments[name][1]}
            conditions.append({"type": name, **status, **moment, **({} if true else why)})
        return conditions

    def _model_status(self, *, ready: bool) -> dict[str, Any]:
        failed = [pod.failure for pod in self.pods if pod.failure is not None]
        if self._behaviour.spec == "invalid":
            return {
                "transitionStatus": "InvalidSpec",
                "states": {"activeModelState": "Pending", "targetModelState": "FailedToLoad"},
                "lastFailureInfo": {
                    "reason": "NoSupportingRuntime",
                    "message": f"no runtime found to support predictor with model type: {self._format()}",
                },
                "copies": {"failedCopies": 0},
            }
        if failed:
            return {
                "transitionStatus": "BlockedByFailedLoad",
                "states": {"activeModelState": "Pending", "targetModelState": "FailedToLoad"},
                "lastFailureInfo": failed[0],
                "copies": {"failedCopies": len(failed), "totalCopies": len(self.pods)},
            }
        if not ready:
            begun = any(pod.uid for pod in self.pods)
            return {
                "transitionStatus": "InProgress",
                "states": {
                    "activeModelState": "Pending",
                    "targetModelState": "Loading" if begun else "Pending",
                },
                "copies": {"failedCopies": 0},
            }
        return {
            "transitionStatus": "UpToDate",
            "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
            "copies": {"failedCopies": 0, "totalCopies": len(self.pods)},
        }


def _without_old(status: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """The patch that also takes a failure away that is over."""
    model_status = status.get("modelStatus", {})
    if "lastFailureInfo" in shown.get("modelStatus", {}) and "lastFailureInfo" not in model_status:
        return {**status, "modelStatus": {**model_status, "lastFailureInfo": None}}
    return status
