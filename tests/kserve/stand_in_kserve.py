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
import secrets
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from stand_in_network import Kubelet, machine_address
from stand_in_pods import Behaviour, World
from stand_in_service import LLM_SERVICE, StandInService

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.watching import Watched, Watching

SERVICE, POD = KINDS["InferenceService"], KINDS["Pod"]


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
        self._services: dict[str, StandInService] = {}
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
                    self._services[change.name] = StandInService(
                        self, self._world, change.kind, change.document
                    )

    def _on_pod(self, document: dict[str, Any]) -> None:
        """A pod that somebody deletes ends as its kubelet ends it."""
        if "deletionTimestamp" not in document["metadata"]:
            return
        for service in self._services.values():
            service.lose(document["metadata"]["name"])


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
