"""The manifests of one service: what `kvswarm manifest` prints.

In:  `Wanted`.
Out: `Manifests`: documents in the order in which they must be applied, and notes.
Not: whether a cluster has the runtime, the secret, the claim or the GPU that they name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from kvswarm.errors import UsageError
from kvswarm.kserve.backends import BACKENDS, NEED_A_GPU
from kvswarm.kserve.canary import FIRST_REVISION, canary_entry, check_canary
from kvswarm.kserve.llm import check_llm, llm_spec
from kvswarm.kserve.machine import check_machine, placement, resources, spread
from kvswarm.kserve.nodes import (
    RUNTIME,
    check_nodes,
    node_annotations,
    spread_over_nodes,
    unquoted,
    without_sizes,
    worker_spec,
)
from kvswarm.kserve.scaling import scaling_fields
from kvswarm.kserve.sources import MODEL_DIRECTORY
from kvswarm.kserve.wanted import (
    CONFIG_DIRECTORY,
    CONFIG_NAME,
    LlmOptions,
    RuntimeShape,
    Served,
    Wanted,
)
from kvswarm.serving.flags import spelled
from kvswarm.serving.problems import nearest
from kvswarm.serving.speculation import speculation_of

NAME: Final = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
NAME_CHARACTERS: Final = 53
"""A Service's name has 63, and KServe adds `-predictor`."""
NAMESPACE_CHARACTERS: Final = 63
MODES: Final = {"standard": "Standard", "knative": "Knative"}
LABELS: Final = {"app.kubernetes.io/managed-by": "kvswarm"}
START_S: Final = 1800
"""How long a server may take until it answers: it loads a model first."""
PROBE_EVERY_S: Final = 10
KNATIVE_MOST_S: Final = 600
"""Knative's max-revision-timeout-seconds, where nobody has raised it."""
CONTAINER: Final = "kserve-container"
SHARED_MEMORY: Final = "devshm"
CONFIG_VOLUME: Final = "server-config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """Documents for `kubectl apply`, and what a person must know about them."""

    documents: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Features that the backend has no words for: each has a note."""

    def to_yaml(self) -> str:
        """All documents as one stream, the same text for the same documents."""
        return yaml.dump_all(
            self.documents,
            Dumper=_Dumper,
            sort_keys=False,
            explicit_start=True,
            allow_unicode=True,
            width=100,
        )


class _Dumper(yaml.SafeDumper):
    """Plain YAML for people: no anchors, and a text of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def manifests(wanted: Wanted) -> Manifests:
    """Decide the manifests. Raises UsageError for what does not go together, ProfileError."""
    _check_names(wanted)
    check_machine(wanted.machine)
    _check_form(wanted)
    gpus, features = spread_of(wanted)
    wanted = replace(wanted, features=features, machine=replace(wanted.machine, gpus=gpus))
    _check_device(wanted, gpus)
    if wanted.form == "llm":
        return _llm_manifests(wanted, gpus)
    served = _served(wanted)
    documents: list[dict[str, Any]] = []
    if served.runtime is not None:
        if served.runtime.config_file is not None:
            documents.append(_config_map(wanted, served.runtime.config_file))
        documents.append(_serving_runtime(wanted, served, served.runtime))
    documents.append(_inference_service(wanted, served, gpus))
    return Manifests(
        documents=tuple(documents),
        notes=(*served.notes, *_notes(wanted, gpus)),
        left_out=served.left_out,
    )


def spread_of(wanted: Wanted) -> tuple[int, dict[str, Any]]:
    """Say how many GPUs a replica has on each node, and the features that spread it over them.

    Raises UsageError where they contradict each other.
    """
    if wanted.nodes > 1:
        return spread_over_nodes(wanted.machine, wanted.features, wanted.nodes)
    return spread(wanted.machine, wanted.features)


def _check_form(wanted: Wanted) -> None:
    """Refuse what one of the two kinds has not. Raises UsageError."""
    if wanted.form == "llm":
        check_llm(wanted)
        return
    if wanted.llm != LlmOptions():
        raise UsageError(
            "--router, --router-gateway, --prefill-replicas or --adapter, and --kind isvc: an "
            "InferenceService has none of them",
            fix="Add --kind llm, or leave them out; adapters of an InferenceService are the "
            "feature lora_modules.",
        )
    if wanted.nodes > 1:
        check_nodes(wanted)
    if wanted.canary is not None:
        check_canary(wanted, wanted.canary)


def _llm_manifests(wanted: Wanted, gpus: int) -> Manifests:
    spec, notes = llm_spec(wanted, gpus)
    document = {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": _metadata(wanted, wanted.service, {}),
        "spec": spec,
    }
    return Manifests(documents=(document,), notes=(*notes, *_notes(wanted, gpus)))


def _served(wanted: Wanted) -> Served:
    """What the backend answers; over several nodes, as KServe's runtime for them can take it."""
    if wanted.nodes == 1:
        return BACKENDS[wanted.backend](wanted)
    served = BACKENDS[wanted.backend](replace(wanted, features=without_sizes(wanted.features)))
    return replace(served, arguments=unquoted(served.arguments))


def _check_names(wanted: Wanted) -> None:
    if wanted.backend not in BACKENDS:
        raise UsageError(
            f"--backend {wanted.backend}: there is none of that name."
            f"{nearest(wanted.backend, BACKENDS)}",
            fix=f"Backends: {', '.join(BACKENDS)}.",
        )
    for flag, name, form, most in (
        ("--service", wanted.service, NAME, NAME_CHARACTERS),
        ("--namespace", wanted.namespace, NAMESPACE, NAMESPACE_CHARACTERS),
    ):
        if not form.fullmatch(name) or len(name) > most:
            raise UsageError(
                f"{flag} {name}: is no name that Kubernetes takes here",
                fix=f"Give small letters, digits and -, at most {most}, with a letter first.",
            )


def _check_device(wanted: Wanted, gpus: int) -> None:
    """Refuse devices that the image is not made for."""
    resource = wanted.machine.gpu_resource
    if gpus == 0 and wanted.backend in NEED_A_GPU and wanted.image is None:
        raise UsageError(
            f"--gpus 0 and --backend {wanted.backend}: its image needs a GPU",
            fix="Name an image for CPUs with --image, or take --backend vllm.",
        )
    if gpus and not resource.startswith("nvidia.com/") and wanted.image is None:
        raise UsageError(
            f"--gpu-resource {resource} and no --image: the images known here are NVIDIA's, or "
            "those that KServe chooses for CPUs",
            fix="Name an image that is made for this device with --image.",
        )


def _notes(wanted: Wanted, gpus: int) -> list[str]:
    notes = []
    timeout_s = math.ceil(wanted.timeout_s)
    if wanted.mode == "knative" and timeout_s > KNATIVE_MOST_S:
        notes.append(
            f"the profile's requests may take {timeout_s} s, and Knative refuses a timeout above "
            f"max-revision-timeout-seconds ({KNATIVE_MOST_S} where nobody has raised it): raise it "
            "in the ConfigMap config-defaults of knative-serving, or give "
            f"--set timeouts.total_s={KNATIVE_MOST_S}."
        )
    if wanted.mode == "knative" and gpus:
        notes.append(
            "Knative takes node selectors and tolerations only where its features "
            "kubernetes.podspec-nodeselector and kubernetes.podspec-tolerations are enabled: none "
            "is written unless --cluster, --node-selector or --toleration asks for it."
        )
    if wanted.mode == "knative" and wanted.canary is not None:
        notes.append(FIRST_REVISION)
    if wanted.nodes > 1 and wanted.form == "isvc":
        notes.append(
            f"the runtime {RUNTIME} must be in the cluster, as KServe v0.20 has it: one head and "
            f"{wanted.nodes - 1} more, each on a node with {gpus} GPUs."
        )
    features = {spelled(key): value for key, value in wanted.features.items() if value is not None}
    served = {**features.get("lora_modules", {}), **wanted.llm.adapters}
    missing = [name for name in wanted.adapters if name not in served]
    if missing:
        notes.append(
            f"the profile's requests name the adapters {', '.join(missing)}, which nothing here "
            "loads: --set vllm_features.lora_modules='{NAME: PATH}' does, with a path in the "
            f"container, such as {MODEL_DIRECTORY}/{missing[0]}."
        )
    return notes


def _metadata(wanted: Wanted, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": wanted.namespace,
        "labels": dict(LABELS),
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata


def _runtime_name(wanted: Wanted) -> str:
    return f"{wanted.service}-{wanted.backend}"


def _config_map(wanted: Wanted, text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(wanted, _runtime_name(wanted), {}),
        "data": {CONFIG_NAME: text},
    }


def _serving_runtime(wanted: Wanted, served: Served, shape: RuntimeShape) -> dict[str, Any]:
    """A runtime for this service alone: another service's arguments are not its own."""
    container: dict[str, Any] = {"name": CONTAINER, "image": served.image}
    if shape.command:
        container["command"] = list(shape.command)
    container["args"] = _literal(served.arguments)
    # One port: Knative takes no more, and a Service of Standard mode leads to the first.
    container["ports"] = [{"name": "http1", "containerPort": shape.port, "protocol": "TCP"}]
    container.update(_probes(shape))
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    spec: dict[str, Any] = {
        "annotations": {
            "prometheus.kserve.io/port": str(shape.port),
            "prometheus.kserve.io/path": shape.metrics_path,
        },
        "supportedModelFormats": [{"name": served.model_format, "autoSelect": False}],
        "containers": [container],
    }
    if shape.config_file is not None:
        container["volumeMounts"] = [
            {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True}
        ]
        spec["volumes"] = [{"name": CONFIG_VOLUME, "configMap": {"name": _runtime_name(wanted)}}]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": _metadata(wanted, _runtime_name(wanted), {}),
        "spec": spec,
    }


def _probes(shape: RuntimeShape) -> dict[str, Any]:
    get = {"httpGet": {"path": shape.health_path, "port": shape.port}}
    often = {"periodSeconds": PROBE_EVERY_S, "timeoutSeconds": PROBE_EVERY_S}
    return {
        "startupProbe": {**get, **often, "failureThreshold": START_S // PROBE_EVERY_S},
        "readinessProbe": {**get, **often, "failureThreshold": 3},
        # A server at its limit answers late: that is to be measured, not to be killed for.
        "livenessProbe": {**get, **often, "failureThreshold": 30},
    }


def _inference_service(wanted: Wanted, served: Served, gpus: int) -> dict[str, Any]:
    scaling, annotations = scaling_fields(wanted.scaling, wanted.mode)
    annotations = {
        "serving.kserve.io/deploymentMode": MODES[wanted.mode],
        **annotations,
        **wanted.source.annotations(),
    }
    if wanted.mode == "knative":
        annotations["serving.knative.dev/progress-deadline"] = f"{START_S}s"
    # Processes of one server pass tensors through it, and 64 MiB, the default, is too little.
    shared_memory = {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory"}}
    predictor: dict[str, Any] = {
        **scaling,
        "timeout": math.ceil(wanted.timeout_s),
        **wanted.source.predictor_fields(),
        **placement(wanted.machine, gpus, defaults=wanted.mode == "standard"),
        "model": _model(wanted, served, gpus),
        "volumes": [shared_memory],
    }
    spec: dict[str, Any] = {"predictor": predictor}
    if wanted.nodes > 1:
        annotations.update(node_annotations(wanted.machine))
        predictor["workerSpec"] = worker_spec(wanted, gpus, shared_memory)
    if wanted.canary is not None and wanted.mode == "standard":
        spec["canary"] = [canary_entry(wanted, wanted.canary, predictor)]
    elif wanted.canary is not None:
        predictor["canaryTrafficPercent"] = wanted.canary.traffic_percent
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(wanted, wanted.service, annotations),
        "spec": spec,
    }


def _model(wanted: Wanted, served: Served, gpus: int) -> dict[str, Any]:
    model: dict[str, Any] = {"modelFormat": {"name": served.model_format}}
    if served.runtime is not None:
        model["runtime"] = _runtime_name(wanted)
    elif wanted.nodes > 1:
        model["runtime"] = RUNTIME
    model["storageUri"] = wanted.source.uri
    if served.runtime is None and served.image is not None:
        model["image"] = served.image
    if served.runtime is None and served.arguments:
        model["args"] = _literal(served.arguments)
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in sorted(served.environment.items())
    ]
    if _loads_a_draft(wanted):
        environment += wanted.source.token()
    if environment:
        model["env"] = environment
    model["resources"] = resources(wanted.machine, gpus)
    model["volumeMounts"] = [{"name": SHARED_MEMORY, "mountPath": "/dev/shm"}]  # noqa: S108 - in a pod
    return model


def _loads_a_draft(wanted: Wanted) -> bool:
    """Whether the server itself loads a second model, which KServe's storage knows nothing of."""
    features = {spelled(key): value for key, value in wanted.features.items()}
    speculation = speculation_of(features)
    return speculation is not None and speculation.model is not None


def _literal(arguments: tuple[str, ...]) -> list[str]:
    """Keep Kubernetes from reading $(NAME) as a variable."""
    return [argument.replace("$(", "$$(") for argument in arguments]
