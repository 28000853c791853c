"""KServe's controller, a scheduler and a kubelet, played over a real API server, in threads.

For each InferenceService and LLMInferenceService of a namespace it makes a Deployment (an object
only), pods that walk through their phases, events, and the service's conditions, model status and
URL. The URL leads to real simulators, one for each pod, of the flavor of the service's runtime:
connections are spread over the ready pods, and held where there is none yet. Each pod's IP is this
machine's address and its container's port the simulator's, so the API server's pod proxy works
(/metrics of a pod), and so do logs. What a service owned goes with it.

    with StandIn(cluster_of(kubeconfig), "llm", Behaviour()) as kserve:
        kserve.behave("qwen", Behaviour(load="never"))   # for one service; at any time, also while
        ...                                              # its pods wait: they then go on
        kserve.behave("qwen", Behaviour())
        kserve.scale("qwen", 2)                          # pods wanted from now on
        kserve.url("qwen")                               # where the service really listens
        kserve.pods("qwen")                              # names of its ready pods

`Behaviour` (stand_in_pods.py) says what can go wrong. It also runs as a process of its own, for a
person who plays with `kvswarm deploy`:

    python tests/kserve/stand_in_kserve.py --kubeconfig FILE --namespace llm --load fails --pace-s 1
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from kube_api_server import free_port
from stand_in_network import Front, Kubelet, machine_address
from stand_in_pods import STORAGE, Behaviour, GoneError, StandInPod, World, now

from kvswarm.kserve.cluster import MERGE, Cluster
from kvswarm.kserve.kinds import KINDS, Kind
from kvswarm.kserve.refusals import Asked, ClusterError, NotThereError
from kvswarm.kserve.watching import Watched, Watching

SERVICE, LLM_SERVICE, POD = (
    KINDS[name] for name in ("InferenceService", "LLMInferenceService", "Pod")
)
METRICS = {"vllm": "/metrics", "tgi": "/metrics", "trtllm": "/prometheus/metrics"}
IMAGE = "kserve/huggingfaceserver:v0.20.0"


def cluster_of(kubeconfig: Path) -> Cluster:
    """The cluster of a file, whatever the environment names."""
    from kubernetes import config  # noqa: PLC0415 - a third of a second

    return Cluster(config.new_client_from_config(str(kubeconfig)))


class StandIn:
    """See the module. A context manager."""

    def __init__(
        self, cluster: Cluster, namespace: str, behaviour: Behaviour | None = None
    ) -> None:
        self._world = World(
            cluster=cluster, namespace=namespace, node=f"stand-in-{secrets.token_hex(4)}"
        )
        self._default = behaviour or Behaviour()
        self._behaviours: dict[str, Behaviour] = {}
        self._scales: dict[str, int] = {}
        self._services: dict[str, _Service] = {}
        self._kubelet = Kubelet(self._logs)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="stand-in")

    def __enter__(self) -> StandIn:
        """Begin."""
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._world.node},
        }
        self._world.cluster.create(node)
        world = World(cluster=self._world.cluster, namespace="", node="")
        world.set_status(
            KINDS["Node"],
            self._world.node,
            {
                "addresses": [{"type": "InternalIP", "address": machine_address()}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.port}},
            },
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all threads and simulators. The API server's objects stay as they are."""
        with self._world.moved:
            self._world.over = True
            self._world.moved.notify_all()
        self._thread.join()
        for service in self._services.values():
            service.end()
        self._kubelet.close()

    def behave(self, service: str, behaviour: Behaviour) -> None:
        """Say how a service fares, from now on."""
        with self._world.moved:
            self._behaviours[service] = behaviour
            self._scales.pop(service, None)
            self._world.moved.notify_all()

    def scale(self, service: str, replicas: int) -> None:
        """Say how many pods it has, from now on."""
        with self._world.moved:
            self._scales[service] = replicas
            self._world.moved.notify_all()

    def url(self, service: str) -> str:
        """Where it listens: the address of a gateway that leads to it alone."""
        return self._services[service].address

    def pods(self, service: str) -> list[str]:
        """Its ready pods."""
        with self._world.moved:
            return [pod.name for pod in self._services[service].pods if pod.ready]

    def behaviour_of(self, service: str) -> Behaviour:
        """As it was last said."""
        return self._behaviours.get(service, self._default)

    def scale_of(self, service: str) -> int | None:
        """As it was last said; None: it was not."""
        return self._scales.get(service)

    def _logs(self, pod: str, container: str, previous: bool) -> list[str] | None:  # noqa: FBT001
        for service in list(self._services.values()):
            for each in list(service.pods):
                if each.name == pod:
                    return each.logs.get((container, previous))
        return None

    def _watch(self) -> None:
        namespace = self._world.namespace
        watched = [Watched(kind=kind, namespace=namespace) for kind in (SERVICE, LLM_SERVICE, POD)]
        with Watching(self._world.cluster, watched) as watching:
            while not self._world.over:
                change = watching.next(0.05)
                if change is None:
                    continue
                if change.kind is POD:
                    self._on_pod(change.document)
                elif change.deleted:
                    gone = self._services.pop(change.name, None)
                    if gone is not None:
                        threading.Thread(target=gone.end, daemon=True).start()
                elif change.name in self._services:
                    self._services[change.name].take(change.document)
                else:
                    self._services[change.name] = _Service(
                        self, self._world, change.kind, change.document
                    )

    def _on_pod(self, document: dict[str, Any]) -> None:
        """A pod that somebody deletes ends as its kubelet ends it."""
        if "deletionTimestamp" not in document["metadata"]:
            return
        for service in self._services.values():
            service.lose(document["metadata"]["name"])


class _Service:
    """One service, in a thread of its own."""

    def __init__(
        self, stand_in: StandIn, world: World, kind: Kind, document: dict[str, Any]
    ) -> None:
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

    def _off_balance(self) -> bool:
        return (self._behaviour.spec == "ok" and len(self.pods) != self._wanted) or bool(
            self._lost & {pod.name for pod in self.pods}
        )

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
        lost = [pod for pod in self.pods if pod.name in self._lost]
        surplus = self.pods[self._wanted :]
        if self._behaviour.spec == "ok" and len(self.pods) < self._wanted:
            self._add()
        elif lost or surplus:
            pod = [*lost, *surplus][0]
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
        pod = StandInPod(self._world, self._pod(port), lambda: self._behaviour, tuple(words))
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
        if not self._llm:
            model = self._document["spec"]["predictor"]["model"]
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
            self._wanted == 0 or any(pod.ready for pod in self.pods)
        )
        routed = ready and self._behaviour.ingress == "ok"
        host = self._behaviour.host
        path = self._base_path() if self._llm else ""
        url = f"http://{host}{path}" if host else f"{self.address}{path}"
        status: dict[str, Any] = {
            "observedGeneration": self._document["metadata"]["generation"],
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


def main() -> None:
    """Play until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Plays KServe over an API server.")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    for name in ("schedule", "storage", "pull", "load", "spec", "ingress"):
        parser.add_argument(f"--{name}", default="ok")
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--pace-s", type=float, default=0.5)
    parser.add_argument("--host")
    given = vars(parser.parse_args())
    cluster = cluster_of(given.pop("kubeconfig"))
    with StandIn(cluster, given.pop("namespace"), Behaviour(**given)):
        sys.stdout.write("playing KServe; Ctrl-C ends it\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
