"""One pod of a stand-in, as scheduler and kubelet lead it: phases, events, a real server, a log.

In:  the pod's document, and a `Behaviour` that may change while the pod waits for something.
Out: what the API server shows of it; `port`, where its simulator answers once it is ready.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from stand_in_network import machine_address

from kvswarm.kserve.cluster import MERGE, Cluster
from kvswarm.kserve.kinds import KINDS, Kind
from kvswarm.kserve.refusals import Asked, ClusterError, NotThereError, UnreachableError
from kvswarm.simulator.launch import Simulator, start_simulator

POD = KINDS["Pod"]
STORAGE = "storage-initializer"
ASK_AGAIN_S = 0.2
Given = TypeVar("Given")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a service fares. What fails or never ends goes on when the behaviour is changed."""

    schedule: Literal["ok", "unschedulable"] = "ok"
    storage: Literal["ok", "fails"] = "ok"
    pull: Literal["ok", "fails"] = "ok"
    load: Literal["ok", "fails", "never"] = "ok"
    spec: Literal["ok", "invalid"] = "ok"
    ingress: Literal["ok", "never"] = "ok"
    replicas: int | None = None
    """None: what the service asks for at least. 0: ready without a pod, as Knative and KEDA are;
    the first connection then makes one."""
    simulator: tuple[str, ...] = ("--step-ms", "2")
    """Options of `kvswarm simulate`; the flavor, port and base path are given."""
    host: str | None = None
    """Host of `status.url`, which then needs a gateway; None: an address that can be asked."""
    log: tuple[str, ...] = ("loading the model",)
    pace_s: float = 0.0
    """Pause before each step, for people who watch."""


UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
PULL_ERROR = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": not found'
)
LOAD_ERROR = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
STORAGE_ERROR = "RepositoryNotFoundError: 404 Client Error: Repository Not Found"


class GoneError(Exception):
    """The pod was deleted, or the stand-in has ended."""


@dataclass(kw_only=True)
class World:
    """What all of one stand-in share."""

    cluster: Cluster
    namespace: str
    node: str
    moved: threading.Condition = field(default_factory=threading.Condition)
    over: bool = False

    def keep_asking(self, ask: Callable[[], Given]) -> Given:
        """Ask until the API server answers, through its restarts."""
        while True:
            try:
                return ask()
            except UnreachableError:
                with self.moved:
                    if self.moved.wait_for(lambda: self.over, ASK_AGAIN_S):
                        raise GoneError from None

    def set_status(self, kind: Kind, name: str, status: dict[str, Any]) -> None:
        """Merge into the status of an object, as its controller does."""
        asked = Asked(verb="patch", kind=kind, namespace=self.namespace, name=name)
        path = f"{kind.path(self.namespace, name)}/status"
        try:
            self.keep_asking(
                lambda: self.cluster._json(
                    asked, "PATCH", path, body={"status": status}, content_type=MERGE
                )
            )
        except NotThereError:
            raise GoneError from None

    def tell(self, of: dict[str, Any], reason: str, message: str, kind: str = "Normal") -> None:
        """Write an Event about an object."""
        name = of["name"]
        moment = now()
        self.keep_asking(
            lambda: self.cluster.create(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {
                        "name": f"{name}.{secrets.token_hex(6)}",
                        "namespace": self.namespace,
                    },
                    "involvedObject": {**of, "namespace": self.namespace},
                    "reason": reason,
                    "message": message,
                    "type": kind,
                    "firstTimestamp": moment,
                    "lastTimestamp": moment,
                    "count": 1,
                    "source": {"component": "stand-in"},
                }
            )
        )


def now() -> str:
    """As Kubernetes writes it: whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class StandInPod:
    """One pod, in a thread of its own from its creation to its end."""

    def __init__(
        self,
        world: World,
        document: dict[str, Any],
        behaviour: Callable[[], Behaviour],
        simulator: tuple[str, ...],
    ) -> None:
        self._world, self._behaviour, self._simulator = world, behaviour, simulator
        self.document = document
        self.generation = 0
        """Of the service that it was made for."""
        self.name: str = document["metadata"]["name"]
        self.uid = ""
        self.container: str = document["spec"]["containers"][0]["name"]
        self.port: int = document["spec"]["containers"][0]["ports"][0]["containerPort"]
        self.ready = False
        self.failure: dict[str, Any] | None = None
        """As KServe's `lastFailureInfo`; None: nothing failed."""
        self.refused: str | None = None
        """Why the API server took no such pod."""
        self.gone = False
        self.logs: dict[tuple[str, bool], list[str]] = {}
        self._running: Simulator | None = None
        self._restarts = 0
        self._began: dict[str, Any] = {}
        self._status: dict[str, Any] = {"phase": "Pending", "conditions": [], "startTime": None}
        self._thread = threading.Thread(target=self._lead, daemon=True, name=self.name)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Delete it at once, and end its server."""
        with self._world.moved:
            self.gone = True
            self.ready = False
            self._world.moved.notify_all()
        self._thread.join()
        if self._running is not None:
            self._running.stop()

    def remove(self) -> None:
        """Take it from the API server, as a kubelet does when its containers have ended."""
        asked = Asked(verb="delete", kind=POD, namespace=self._world.namespace, name=self.name)
        path = POD.path(self._world.namespace, self.name)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        cluster = self._world.cluster
        try:
            self._world.keep_asking(lambda: cluster._json(asked, "DELETE", path, body=body))
        except NotThereError:
            return

    # -- its life ----------------------------------------------------------------------------

    def _lead(self) -> None:
        try:
            made = self._world.keep_asking(lambda: self._world.cluster.create(self.document))
            self.uid = made["metadata"]["uid"]
            self._schedule()
            self._store()
            self._pull()
            self._load()
        except GoneError:
            return
        except NotThereError:
            return  # deleted in mid-step
        except ClusterError as error:
            with self._world.moved:
                self.refused = error.message
                self._world.moved.notify_all()

    def _schedule(self) -> None:
        self._pause()
        if self._behaviour().schedule == "unschedulable":
            condition = {"reason": "Unschedulable", "message": UNSCHEDULABLE}
            self._condition("PodScheduled", "False", **condition)
            self._show()
            self._tell("FailedScheduling", UNSCHEDULABLE, "Warning")
            self._wait_for(lambda: self._behaviour().schedule == "ok")
        world = self._world
        asked = Asked(verb="create", kind=POD, namespace=world.namespace, name=self.name)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.name},
            "target": {"kind": "Node", "name": world.node},
        }
        path = f"{POD.path(world.namespace, self.name)}/binding"
        world.keep_asking(lambda: world.cluster._json(asked, "POST", path, body=binding))
        self._condition("PodScheduled", "True")
        self._status["startTime"] = now()
        self._tell("Scheduled", f"Successfully assigned {self.name} to {world.node}")
        for kind in ("Initialized", "ContainersReady", "Ready"):
            self._condition(kind, "False")
        waiting = {"waiting": {"reason": "PodInitializing"}}
        self._containers(STORAGE, waiting, "initContainerStatuses")
        self._containers(self.container, waiting)
        self._show()

    def _store(self) -> None:
        self._pause()
        self.logs[STORAGE, False] = ["Initializing, args: src_uri [0] dest_path [1]"]
        self._containers(STORAGE, {"running": {"startedAt": now()}}, "initContainerStatuses")
        self._show()
        if self._behaviour().storage == "fails":
            self.logs[STORAGE, True] = [*self.logs[STORAGE, False], STORAGE_ERROR]
            self._crash(STORAGE, STORAGE_ERROR, "initContainerStatuses")
            self._wait_for(lambda: self._behaviour().storage == "ok")
            self.failure = None
        self._pause()
        ended = {"exitCode": 0, "reason": "Completed", "finishedAt": now()}
        self._containers(STORAGE, {"terminated": ended}, "initContainerStatuses", ready=True)
        self._condition("Initialized", "True")
        self._show()

    def _pull(self) -> None:
        image = self.document["spec"]["containers"][0]["image"]
        self._pause()
        self._tell("Pulling", f'Pulling image "{image}"')
        self._containers(self.container, {"waiting": {"reason": "ContainerCreating"}})
        self._show()
        if self._behaviour().pull == "fails":
            message = PULL_ERROR.format(image=image)
            self._tell("Failed", f'Failed to pull image "{image}": {message}', "Warning")
            waiting = {"reason": "ErrImagePull", "message": message}
            self._containers(self.container, {"waiting": waiting})
            self._show()
            backing = {
                "reason": "ImagePullBackOff",
                "message": f'Back-off pulling image "{image}": ErrImagePull: {message}',
            }
            self._containers(self.container, {"waiting": backing})
            self._show()
            self._wait_for(lambda: self._behaviour().pull == "ok")
        self._pause()
        self._tell("Pulled", f'Successfully pulled image "{image}" in 1.5s')

    def _load(self) -> None:
        self._status["phase"] = "Running"
        self._status["podIP"] = machine_address()
        self._status["podIPs"] = [{"ip": machine_address()}]
        self._begin_container()
        self._pause()
        if self._behaviour().load == "fails":
            self.logs[self.container, True] = [*self.logs[self.container, False], LOAD_ERROR]
            self._crash(self.container, LOAD_ERROR)
        self._wait_for(lambda: self._behaviour().load == "ok")
        if self.failure is not None:
            self.failure = None
            self._begin_container()
        self._running = start_simulator(self._simulator)
        self.logs[self.container, False].append("Application startup complete.")
        self._containers(self.container, self._began, ready=True)
        for kind in ("ContainersReady", "Ready"):
            self._condition(kind, "True")
        with self._world.moved:
            self.ready = not self.gone
            self._world.moved.notify_all()
        self._show()

    def _begin_container(self) -> None:
        self.logs[self.container, False] = list(self._behaviour().log)
        self._began = {"running": {"startedAt": now()}}
        self._containers(self.container, self._began)
        self._tell("Started", f"Started container {self.container}")
        self._show()

    def _crash(self, container: str, message: str, where: str = "containerStatuses") -> None:
        """End with code 1 and wait to be started again, as after several times."""
        self._restarts += 1
        last = {"exitCode": 1, "reason": "Error", "message": message, "finishedAt": now()}
        waiting = {
            "reason": "CrashLoopBackOff",
            "message": f"back-off 10s restarting failed container={container}",
        }
        self._containers(
            container,
            {"waiting": waiting},
            where,
            restarts=self._restarts,
            last={"terminated": last},
        )
        self._show()
        self._tell("BackOff", "Back-off restarting failed container", "Warning")
        with self._world.moved:
            self.failure = {
                "reason": "ModelLoadFailed",
                "message": message,
                "exitCode": 1,
                "time": now(),
            }
            self._world.moved.notify_all()

    # -- how it is shown ---------------------------------------------------------------------

    def _condition(self, kind: str, status: str, **more: str) -> None:
        kept = [each for each in self._status["conditions"] if each["type"] != kind]
        condition = {"type": kind, "status": status, "lastTransitionTime": now(), **more}
        self._status["conditions"] = [*kept, condition]

    def _containers(  # noqa: PLR0913 - the fields of a container's status
        self,
        name: str,
        state: dict[str, Any],
        where: str = "containerStatuses",
        *,
        ready: bool = False,
        restarts: int = 0,
        last: dict[str, Any] | None = None,
    ) -> None:
        running = "running" in state
        image = self.document["spec"]["containers"][0]["image"]
        self._status[where] = [
            {
                "name": name,
                "state": state,
                "lastState": last or {},
                "ready": ready,
                "started": running,
                "restartCount": restarts or self._restarts,
                "image": image,
                "imageID": f"{image}@sha256:{'0' * 64}" if running or ready else "",
            }
        ]

    def _show(self) -> None:
        self._world.set_status(POD, self.name, self._status)

    def _tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        of = {"kind": "Pod", "name": self.name, "uid": self.uid, "apiVersion": "v1"}
        self._world.tell(of, reason, message, kind)

    def _pause(self) -> None:
        if self._behaviour().pace_s:
            time.sleep(self._behaviour().pace_s)
        self._wait_for(lambda: True)

    def _wait_for(self, done: Callable[[], bool]) -> None:
        with self._world.moved:
            self._world.moved.wait_for(lambda: done() or self.gone or self._world.over)
            if self.gone or self._world.over:
                raise GoneError
