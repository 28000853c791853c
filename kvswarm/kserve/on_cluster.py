"""The manifests of one run on the cluster: a master, its workers, and what they need.

In:  `ClusterRun`: plain data.
Out: documents in the order in which they are applied; the Jobs come last.
Not: applying them, see `placing.py`; the pods themselves, see `run_pods.py`.

A Job for the master and a Job for the workers, a Service for the port at which they meet, network
policies that let nobody else reach it, files and headers by ConfigMap and Secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.machine import QUANTITY
from kvswarm.kserve.manifests import LABELS
from kvswarm.kserve.run_pods import Pods, Role, Share, template

RUN_LABEL: Final = "kvswarm.io/run"
PART_LABEL: Final = "kvswarm.io/part"
DIRECTORY_ANNOTATION: Final = "kvswarm.io/run-directory"
PORT_ANNOTATION: Final = "kvswarm.io/hand-over-port"
MASTER: Final = "master"
WORKER: Final = "worker"
FILES: Final = "/etc/kvswarm"
RUNS: Final = "/runs"
DATA: Final = "/data"
TOKEN_VARIABLE: Final = "KVSWARM_HAND_OVER_TOKEN"  # noqa: S105 - a variable's name
TOKEN_KEY: Final = "token"  # noqa: S105 - a key's name
HEADERS_KEY: Final = "headers"
CONFIG_MAP_BYTES: Final = 1 << 20
"""What the API server takes in a ConfigMap."""
NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
INDEXED_FROM: Final = (1, 24)
"""Kubernetes' version from which a Job has `completionMode` for good."""
PER_INDEX_FROM: Final = (1, 29)
"""The same for `backoffLimitPerIndex`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVariable:
    """An environment variable of every pod that comes from a key of a Secret."""

    variable: str
    secret: str
    key: str

    def entry(self) -> dict[str, Any]:
        """As a container has it."""
        reference = {"name": self.secret, "key": self.key}
        return {"name": self.variable, "valueFrom": {"secretKeyRef": reference}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where results and data are, and at which ports the master listens."""

    results_claim: str | None = None
    """A PersistentVolumeClaim for the run directories; None: they end with the pod."""
    data_claim: str | None = None
    """One that is there to read at `DATA`: prompts and tokenizers that no ConfigMap holds."""
    port: int = 5557
    hand_over_port: int | None = None
    """Where the results are fetched from; None: nobody fetches them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRun:
    """One run, as its manifests say it."""

    name: str
    namespace: str
    arguments: tuple[str, ...]
    """Of `kvswarm run`, without those that say what this dataclass does."""
    pods: Pods
    workers: int
    processes: int = 1
    """Load-generating processes of each worker."""
    master_share: Share = field(default_factory=Share)
    worker_share: Share = field(default_factory=Share)
    places: Places = field(default_factory=Places)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name to contents, at `FILES`."""
    variables: tuple[SecretVariable, ...] = ()
    secret: Mapping[str, str] = field(default_factory=dict)
    """Of the run's own Secret: `TOKEN_KEY`, `HEADERS_KEY`."""
    account: str | None = None
    """A service account that is there, for the master; None: one is made where it needs one."""
    directory: str | None = None
    """Name of the run directory; None: the master chooses it."""
    deadline_s: int = 86_400
    kept_s: int = 3_600
    """How long ended Jobs stay, and with them all that they own."""
    version: tuple[int, int] = (1, 30)
    """The API server's: what it does not know is left out."""


def documents(run: ClusterRun) -> list[dict[str, Any]]:
    """Decide the manifests. Raises UsageError."""
    _check(run)
    made = []
    if run.files:
        made.append(_config_map(run))
    if run.secret:
        made.append(_secret(run))
    if _makes_account(run):
        made += _account(run)
    made += [_service(run), *_policies(run), _workers(run), _master(run)]
    return made


def labels(name: str, part: str | None = None) -> dict[str, str]:
    """The labels of a run's objects; with `part`, of the pods of one part."""
    of_run = {**LABELS, RUN_LABEL: name}
    return of_run if part is None else {**of_run, PART_LABEL: part}


def selector(name: str) -> str:
    """The label selector of all that belongs to a run."""
    return f"{RUN_LABEL}={name}"


def job_name(name: str, part: str) -> str:
    """`kvswarm-3f2a91-master`."""
    return f"{name}-{part}" if part == MASTER else f"{name}-{part}s"


def _check(run: ClusterRun) -> None:
    if not NAME.fullmatch(run.name):
        raise UsageError(
            f"run {run.name}: is no name that Kubernetes takes here",
            fix="Give small letters, digits and -, at most 40, with a letter first.",
        )
    for flag, share in (("master", run.master_share), ("worker", run.worker_share)):
        if not QUANTITY.fullmatch(share.memory):
            raise UsageError(
                f"--{flag}-memory {share.memory}: is no quantity", fix="Give one such as 2Gi."
            )
    size_bytes = sum(len(name) + len(content) for name, content in run.files.items())
    if size_bytes > CONFIG_MAP_BYTES:
        largest = max(run.files, key=lambda name: len(run.files[name]))
        raise UsageError(
            f"the profile and the files that it names have {size_bytes} bytes, the largest "
            f"{largest}; a ConfigMap holds {CONFIG_MAP_BYTES}",
            fix="Put them on a PersistentVolumeClaim, name it with --data-claim, and their paths "
            f"with --set, such as --set prompts={DATA}/prompts.jsonl.",
        )


def _metadata(run: ClusterRun, name: str) -> dict[str, Any]:
    return {"name": name, "namespace": run.namespace, "labels": labels(run.name)}


def _config_map(run: ClusterRun) -> dict[str, Any]:
    text, binary = {}, {}
    for name, content in run.files.items():
        try:
            text[name] = content.decode()
        except UnicodeDecodeError:
            binary[name] = base64.b64encode(content).decode()
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(run, run.name),
        "data": text,
    }
    if binary:
        made["binaryData"] = binary
    return made


def _secret(run: ClusterRun) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(run, run.name),
        "type": "Opaque",
        "data": {k: base64.b64encode(v.encode()).decode() for k, v in run.secret.items()},
    }


def _makes_account(run: ClusterRun) -> bool:
    return run.pods.service is not None and run.account is None


def _account(run: ClusterRun) -> list[dict[str, Any]]:
    """What the master may ask the API server: about the service that it measures."""
    rules = [
        {
            "apiGroups": ["serving.kserve.io"],
            "resources": [
                "inferenceservices",
                "llminferenceservices",
                "servingruntimes",
            ],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]},
    ]
    subject = {"kind": "ServiceAccount", "name": run.name, "namespace": run.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": run.name}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(run, run.name),
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": _metadata(run, run.name),
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": _metadata(run, run.name),
            "subjects": [subject],
            "roleRef": role,
        },
    ]


def _service(run: ClusterRun) -> dict[str, Any]:
    port = {"name": "workers", "port": run.places.port, "targetPort": "workers", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(run, job_name(run.name, MASTER)),
        "spec": {
            "type": "ClusterIP",
            "selector": labels(run.name, MASTER),
            "ports": [port],
        },
    }


def _policies(run: ClusterRun) -> list[dict[str, Any]]:
    """Only workers may reach the master's port, on which nothing asks who is there.

    The hand-over's port asks for a token. Who comes through the API server comes from no pod, so
    no selector of pods can name it.
    """
    workers = {"podSelector": {"matchLabels": labels(run.name, WORKER)}}
    rules: list[dict[str, Any]] = [
        {"from": [workers], "ports": [{"protocol": "TCP", "port": run.places.port}]}
    ]
    if run.places.hand_over_port is not None:
        rules.append({"ports": [{"protocol": "TCP", "port": run.places.hand_over_port}]})
    return [
        _policy(run, MASTER, rules),
        _policy(run, WORKER, []),
    ]


def _policy(run: ClusterRun, part: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": labels(run.name, part)},
        "policyTypes": ["Ingress"],
    }
    if rules:  # none: nobody may reach them
        spec["ingress"] = rules
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(run, job_name(run.name, part)),
        "spec": spec,
    }


def _master(run: ClusterRun) -> dict[str, Any]:
    places = run.places
    arguments = ["run", *run.arguments, "--master", "--expect-workers", str(_processes(run))]
    arguments += ["--master-bind-port", str(places.port)]
    ports = {"workers": places.port}
    environment = _environment(run)
    if run.directory is not None:
        arguments += ["--out", f"{RUNS}/{run.directory}"]
    if places.hand_over_port is not None:
        arguments += ["--hand-over", str(places.hand_over_port)]
        ports["hand-over"] = places.hand_over_port
        token = SecretVariable(variable=TOKEN_VARIABLE, secret=run.name, key=TOKEN_KEY)
        environment.append(token.entry())
    results: dict[str, Any] = {"name": "runs"}
    if places.results_claim is not None:
        results["persistentVolumeClaim"] = {"claimName": places.results_claim}
    else:
        results["emptyDir"] = {}
    volumes, mounts = _files(run)
    role = Role(
        name=MASTER,
        arguments=arguments,
        share=run.master_share,
        labels=labels(run.name, MASTER),
        environment=environment,
        volumes=[results, *volumes],
        mounts=[{"name": "runs", "mountPath": RUNS}, *mounts],
        ports=ports,
        account=run.account or (run.name if _makes_account(run) else None),
    )
    made = _job(run, MASTER, {"backoffLimit": 0}, role)
    notes = {}
    if run.directory is not None:
        notes[DIRECTORY_ANNOTATION] = run.directory
    if places.hand_over_port is not None:
        notes[PORT_ANNOTATION] = str(places.hand_over_port)
    if notes:
        made["metadata"]["annotations"] = notes
    return made


def _workers(run: ClusterRun) -> dict[str, Any]:
    arguments = ["worker", "--master-host", job_name(run.name, MASTER)]
    arguments += ["--master-port", str(run.places.port), "--processes", str(run.processes)]
    volumes, mounts = _files(run)
    role = Role(
        name=WORKER,
        arguments=arguments,
        share=run.worker_share,
        labels=labels(run.name, WORKER),
        environment=_environment(run),
        volumes=volumes,
        mounts=mounts,
    )
    fields: dict[str, Any] = {"completions": run.workers, "parallelism": run.workers}
    if run.version >= INDEXED_FROM:
        fields["completionMode"] = "Indexed"
    # A Job that has failed ends all its pods. One worker that is lost must not take the others
    # along: the run goes on, and its verdict tells.
    if run.version >= PER_INDEX_FROM:
        fields["backoffLimitPerIndex"] = 0
    else:
        fields["backoffLimit"] = run.workers
    return _job(run, WORKER, fields, role)


def _job(run: ClusterRun, part: str, fields: Mapping[str, Any], role: Role) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(run, job_name(run.name, part)),
        "spec": {
            **fields,
            "activeDeadlineSeconds": run.deadline_s,
            "ttlSecondsAfterFinished": run.kept_s,
            "template": template(run.pods, role),
        },
    }


def _processes(run: ClusterRun) -> int:
    return run.workers * run.processes


def _environment(run: ClusterRun) -> list[dict[str, Any]]:
    variables = list(run.variables)
    if HEADERS_KEY in run.secret:
        variables.append(
            SecretVariable(variable="KVSWARM_HEADERS", secret=run.name, key=HEADERS_KEY)
        )
    return [each.entry() for each in variables]


def _files(run: ClusterRun) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and their mounts for what a run reads."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    if run.files:
        volumes.append({"name": "files", "configMap": {"name": run.name}})
        mounts.append({"name": "files", "mountPath": FILES, "readOnly": True})
    if run.places.data_claim is not None:
        claim = {"claimName": run.places.data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    return volumes, mounts
