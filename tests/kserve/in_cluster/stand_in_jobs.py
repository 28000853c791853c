"""Plays the Job controller, the scheduler, the kubelet and the garbage collector of one namespace.

In:  a real API server, and what should go wrong.
Out: for each Job its Pods; each Pod's container command as a process of this machine.

    with StandInJobs(api, cluster, namespace, folder) as jobs:
        ...                                  # whatever makes Jobs
        jobs.process("kvswarm-3f2a91-workers-0").kill()

A container gets its environment from Secrets, its ConfigMaps and empty volumes as folders (their
mount paths in its arguments are replaced by these folders), `podIP` is this machine's first address
that is no loopback (the API server's proxy refuses those), and the name of a Service is replaced by
that address. Logs are answered over TLS, as a kubelet does, also followed.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from following_kubelet import Container, Kubelet
from kube_api_server import ApiServer
from stand_in_network import machine_address

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.refusals import ClusterError
from kvswarm.kserve.watching import Change, Watched, Watching

MERGE = "application/merge-patch+json"
LOOK_S = 0.1
CERTAIN_S = 60.0
OWNED = ("ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "Service", "NetworkPolicy")


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of the pods of a part, `master` or `worker`."""

    pull: Literal["ok", "fails"] = "ok"
    schedule: Literal["ok", "fails"] = "ok"
    create: Literal["ok", "quota"] = "ok"
    command: tuple[str, ...] | None = None
    """In place of the container's own."""


class StandInJobs:
    """See the module. Use as a context manager."""

    def __init__(
        self,
        api: ApiServer,
        cluster: Cluster,
        namespace: str,
        folder: Path,
        **fates: Fate,
    ) -> None:
        self._api, self._cluster, self.namespace, self._folder = api, cluster, namespace, folder
        self._fates = fates
        self._over = threading.Event()
        self.containers: dict[str, Container] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        """Every Job that was ever seen, in its newest state."""
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._kubelet = Kubelet(self.containers)
        self._failure: BaseException | None = None

    def __enter__(self) -> StandInJobs:
        """Begin."""
        self._kubelet.start()
        node = {"metadata": {"name": self.node}}
        status, answer = self._api.ask("POST", "/api/v1/nodes", node)
        assert status == 201, answer
        shown = {
            "addresses": [{"type": "InternalIP", "address": machine_address()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.port}},
        }
        path = f"/api/v1/nodes/{self.node}/status"
        status, answer = self._api.ask("PATCH", path, {"status": shown}, MERGE)
        assert status == 200, answer
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what runs."""
        self._over.set()
        self._thread.join()
        for container in self.containers.values():
            kill_tree(container.process)
        self._kubelet.stop()
        if self._failure is not None:
            raise self._failure

    @property
    def node(self) -> str:
        """The only node."""
        return f"node-of-{self.namespace}"

    def process(self, pod: str) -> subprocess.Popen[bytes]:
        """The process of a pod's container, once it runs."""
        give_up_s = time.monotonic() + CERTAIN_S
        while pod not in self.containers:
            assert time.monotonic() < give_up_s, f"{pod} never started; {list(self.containers)}"
            time.sleep(LOOK_S)
        return self.containers[pod].process

    def names(self, kind: str) -> list[str]:
        """The names of a kind's objects in the namespace."""
        items, _ = self._cluster.list_all(KINDS[kind], self.namespace)
        return [each["metadata"]["name"] for each in items]

    # -- controllers -------------------------------------------------------------------------

    def _play(self) -> None:
        kinds = [Watched(kind=KINDS[kind], namespace=self.namespace) for kind in ("Job", "Pod")]
        try:
            with Watching(self._cluster, kinds) as watching:
                while not self._over.is_set():
                    change = watching.next(LOOK_S)
                    if change is not None:
                        self._take(change)
        except BaseException as failure:  # noqa: BLE001 - told by the test's own thread
            self._failure = failure

    def _take(self, change: Change) -> None:
        name = change.name
        if change.kind.name == "Job":
            if change.deleted:
                self._collect_garbage(change.document)
            elif name not in self.jobs:
                self.jobs[name] = change.document
                self._make_pods(change.document)
        elif change.deleted or change.document["metadata"].get("deletionTimestamp"):
            self._end_pod(name)

    def _make_pods(self, job: dict[str, Any]) -> None:
        name, spec = job["metadata"]["name"], job["spec"]
        fate = self._fate(spec["template"]["metadata"]["labels"])
        if fate.create == "quota":
            self._tell_quota(name)
            return
        for number in range(spec.get("parallelism", 1)):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **spec["template"]["metadata"],
                    "name": f"{name}-{number}",
                    "namespace": self.namespace,
                    "ownerReferences": [
                        {
                            "apiVersion": "batch/v1",
                            "kind": "Job",
                            "name": name,
                            "uid": job["metadata"]["uid"],
                        }
                    ],
                },
                "spec": {**spec["template"]["spec"]},
            }
            if fate.schedule == "ok":
                pod["spec"]["nodeName"] = self.node
            made = self._cluster.create(pod)
            threading.Thread(target=self._lead, args=(made, fate), daemon=True).start()

    def _fate(self, labels: dict[str, str]) -> Fate:
        return self._fates.get(labels["kvswarm.io/part"], Fate())

    def _tell_quota(self, job: str) -> None:
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{job}.quota", "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job,
                "namespace": self.namespace,
            },
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "pods is forbidden: exceeded quota: few, requested: cpu=2, limited: cpu=1",
        }
        self._cluster.create(event)

    def _collect_garbage(self, job: dict[str, Any]) -> None:
        """What the garbage collector does: pods end, and what the Job owns goes."""
        uid = job["metadata"]["uid"]
        for kind in ("Pod", *OWNED):
            items, _ = self._cluster.list_all(KINDS[kind], self.namespace)
            for each in items:
                owners = [o["uid"] for o in each["metadata"].get("ownerReferences", [])]
                if uid in owners:
                    self._cluster.delete(KINDS[kind], self.namespace, each["metadata"]["name"])

    # -- kubelet -----------------------------------------------------------------------------

    def _lead(self, pod: dict[str, Any], fate: Fate) -> None:
        name, spec = pod["metadata"]["name"], pod["spec"]["containers"][0]
        if fate.schedule == "fails":
            message = "0/1 nodes are available: 1 Insufficient cpu."
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            }
            self._show(name, {"conditions": [condition]})
            return
        if fate.pull == "fails":
            message = f'Back-off pulling image "{spec["image"]}"'
            self._show_waiting(name, spec["name"], "ImagePullBackOff", message)
            return
        self._show_waiting(name, spec["name"], "ContainerCreating", "")
        try:
            arguments, environment = self._prepared(pod)
        except ClusterError as error:
            message = error.message
            self._show_waiting(name, spec["name"], "CreateContainerConfigError", message)
            return
        self._run(pod, fate.command or arguments, environment)

    def _prepared(self, pod: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
        """The command line and the environment of a pod's container."""
        name, spec = pod["metadata"]["name"], pod["spec"]["containers"][0]
        own = self._folder / name
        own.mkdir()
        places: dict[str, str] = {}
        for mount in sorted(spec["volumeMounts"], key=lambda mount: mount["name"] == "files"):
            (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == mount["name"]]
            place = own / mount["name"]
            place.mkdir()
            if "persistentVolumeClaim" in volume:
                place = self._folder / volume["persistentVolumeClaim"]["claimName"]
                place.mkdir(exist_ok=True)
            if "configMap" in volume:
                found = self._needed("ConfigMap", volume["configMap"]["name"])
                for key, text in found.get("data", {}).items():
                    (place / key).write_text(_mounted(text, places))
                for key, text in found.get("binaryData", {}).items():
                    (place / key).write_bytes(base64.b64decode(text))
            places[mount["mountPath"]] = str(place)
        ours = ("KVSWARM_", "LOCUST_", "KUBECONFIG")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        environment = {**kept, "TMPDIR": places["/tmp"]}  # noqa: S108
        for variable in spec.get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            secret = self._needed("Secret", reference["name"])
            if reference["key"] not in secret.get("data", {}):
                raise ClusterError(f"couldn't find key {reference['key']} in Secret")
            value = base64.b64decode(secret["data"][reference["key"]]).decode()
            environment[variable["name"]] = value
        if pod["spec"]["automountServiceAccountToken"]:
            environment |= self._account(pod["spec"]["serviceAccountName"], own)
        services = {name: machine_address() for name in self.names("Service")}
        words = [services.get(word, word).replace("$$(", "$(") for word in spec["args"]]
        words = [_mounted(word, places) for word in words]
        assert spec["command"] == ["kvswarm"]
        return (sys.executable, "-m", "kvswarm", *words), environment

    def _account(self, name: str, folder: Path) -> dict[str, str]:
        """What a pod knows of the API server: here by a kubeconfig with its account's own token."""
        path = f"{KINDS['ServiceAccount'].path(self.namespace, name)}/token"
        status, answer = self._api.ask("POST", path, {"spec": {"audiences": []}})
        assert status == 201, answer
        config = json.loads(self._api.kubeconfig(folder / "kubeconfig").read_text())
        config["users"][0]["user"] = {"token": answer["status"]["token"]}
        (folder / "kubeconfig").write_text(json.dumps(config))
        return {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._api.port),
        }

    def _needed(self, kind: str, name: str) -> dict[str, Any]:
        found = self._cluster.get(KINDS[kind], self.namespace, name)
        if found is None:
            raise ClusterError(f'{kind.lower()} "{name}" not found')
        return found

    def _run(
        self, pod: dict[str, Any], arguments: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        name, container_name = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
        process = subprocess.Popen(
            arguments,
            cwd=self._folder / name,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        container = Container(pod, process)
        self.containers[name] = container
        self._show(
            name,
            {
                "phase": "Running",
                "podIP": machine_address(),
                "containerStatuses": [_status(container_name, {"running": {"startedAt": _now()}})],
            },
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with container.grown:
                    container.lines.append((_now(), line.decode(errors="replace").rstrip("\n")))
                    container.grown.notify_all()
        code = process.wait()
        with container.grown:
            container.closed = True
            container.grown.notify_all()
        reason = "Completed" if code == 0 else "OOMKilled" if code == -9 else "Error"
        ended = {"exitCode": 128 - code if code < 0 else code, "reason": reason}
        self._show(
            name,
            {
                "phase": "Succeeded" if code == 0 else "Failed",
                "containerStatuses": [_status(container_name, {"terminated": ended})],
            },
        )

    def _end_pod(self, name: str) -> None:
        """What a kubelet does with a pod that was deleted."""

        def end() -> None:
            container = self.containers.get(name)
            if container is not None and container.process.poll() is None:
                container.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    container.process.wait(CERTAIN_S)
                kill_tree(container.process)
            path = KINDS["Pod"].path(self.namespace, name)
            self._api.ask("DELETE", path, {"gracePeriodSeconds": 0})

        threading.Thread(target=end, daemon=True).start()

    def _show_waiting(self, pod: str, container: str, reason: str, message: str) -> None:
        waiting = {"reason": reason, "message": message}
        self._show(pod, {"containerStatuses": [_status(container, {"waiting": waiting})]})

    def _show(self, pod: str, status: dict[str, Any]) -> None:
        path = f"{KINDS['Pod'].path(self.namespace, pod)}/status"
        code, answer = self._api.ask("PATCH", path, {"status": status}, MERGE)
        assert code in {200, 404}, answer


def _mounted(text: str, places: dict[str, str]) -> str:
    """Text with the folders that stand for a pod's mount paths."""
    pattern = "|".join(re.escape(mounted) for mounted in places)
    return re.sub(rf"(?<![\w/])(?:{pattern})(?=/)", lambda found: places[found.group()], text)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a container's processes, those in sessions of their own included."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    if process.poll() is None:
        process.kill()
        process.wait()


def _status(name: str, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image": "image",
        "imageID": "",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
