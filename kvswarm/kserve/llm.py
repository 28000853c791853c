"""An LLMInferenceService: KServe's own kind for models of language, on llm-d's parts.

In:  `Wanted` with `form` llm, its features spread over the GPUs.
Out: the `spec`, and notes. A backend that does not fit is refused with the reason.

KServe lays this over its presets, which start `vllm serve /mnt/models` in a container `main` on
port 8000, over https where its configuration enables TLS. The presets' script reads the arguments
a second time as shell words, and KServe all of the spec as a Go template: they are written so that
what arrives is what was meant. Its API is at /NAMESPACE/NAME/v1 of the gateway.
Source: config/llmisvcconfig and llm_inference_service_validation.go of kserve/kserve.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.backends.vllm import NAME_KEY, VLLM_VERSION
from kvswarm.kserve.backends.vllm_runtime import IMAGE
from kvswarm.kserve.machine import placement, resources
from kvswarm.kserve.scaling import scaling_fields
from kvswarm.kserve.wanted import Wanted
from kvswarm.serving.flags import ServerFlags, spelled, vllm_flags
from kvswarm.serving.versions import NEWEST, vllm_version

BACKENDS: Final = {
    "vllm": "the image of KServe's presets",
    "vllm-runtime": "vLLM's own image",
}
MAIN: Final = "main"
START_S: Final = 1800
PROBE_EVERY_S: Final = 10
ADAPTER_SCHEMES: Final = ("hf", "s3", "pvc")
KV_TRANSFER: Final = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
"""Prefill and decode hand each other the KV cache by NIXL, over RDMA where there is any."""
KV_HOST: Final = "VLLM_NIXL_SIDE_CHANNEL_HOST"


def check_llm(wanted: Wanted) -> None:
    """Refuse what an LLMInferenceService cannot be. Raises UsageError."""
    if wanted.backend not in BACKENDS:
        raise UsageError(
            f"--backend {wanted.backend} and --kind llm: KServe's presets for it start "
            "`vllm serve` and give it vLLM's flags",
            fix=f"Take --backend {' or '.join(BACKENDS)}, or --kind isvc.",
        )
    if wanted.mode != "standard":
        raise UsageError(
            f"--mode {wanted.mode} and --kind llm: an LLMInferenceService is made of Deployments "
            "and has no mode",
            fix="Leave --mode out.",
        )
    if wanted.canary is not None:
        raise UsageError(
            "--canary-percent and --kind llm: an LLMInferenceService has no canary",
            fix="Deploy the new one as a service of its own, or take --kind isvc.",
        )
    _check_replicas(wanted)
    _check_source(wanted)
    _check_router(wanted)


def _check_replicas(wanted: Wanted) -> None:
    scaling = wanted.scaling
    if scaling.autoscaler not in {None, "none"}:
        raise UsageError(
            f"--autoscaler {scaling.autoscaler} and --kind llm: kvswarm writes a fixed number of "
            "replicas for it",
            fix="Leave --autoscaler out, and give --min-replicas.",
        )
    if scaling.min_replicas == 0:
        raise UsageError(
            "--min-replicas 0 and --kind llm: none would answer, and nothing would start one",
            fix="Give 1 or more, or take --kind isvc with --mode knative.",
        )
    scaling_fields(scaling, "standard")  # what else an unchanging number does not go with
    if wanted.machine.gpus == 0 and wanted.image is None:
        raise UsageError(
            "--gpus 0 and --kind llm: the images known here need a GPU",
            fix="Name an image for CPUs with --image.",
        )


def _check_source(wanted: Wanted) -> None:
    source = wanted.source
    if source.secret is not None and source.scheme != "oci":
        raise UsageError(
            f"--secret {source.secret} and --kind llm: KServe reads a model's secrets off the "
            "service account here",
            fix="Add the secret to a service account, and name that with --service-account.",
        )
    for name, uri in wanted.llm.adapters.items():
        if uri.partition("://")[0] not in ADAPTER_SCHEMES:
            schemes = ", ".join(f"{each}://" for each in ADAPTER_SCHEMES)
            raise UsageError(
                f"--adapter {name}={uri}: KServe loads adapters from {schemes}",
                fix="Keep it in one of them.",
            )
    features = {spelled(key) for key, value in wanted.features.items() if value is not None}
    if wanted.llm.adapters and "lora_modules" in features:
        raise UsageError(
            "--adapter and vllm_features lora_modules: where vLLM's flag names adapters, KServe "
            "loads none",
            fix="Name all of them with --adapter, or all of them with the feature.",
        )
    if model_name(wanted) in wanted.llm.adapters:
        raise UsageError(
            f"--adapter {model_name(wanted)}: the model itself has this name",
            fix="Give the adapter another one.",
        )


def _check_router(wanted: Wanted) -> None:
    options = wanted.llm
    if options.prefill_replicas and options.router != "scheduler":
        raise UsageError(
            f"--prefill-replicas {options.prefill_replicas} and --router {options.router}: only a "
            "scheduler sends a request first to the ones and then to the others",
            fix="Add --router scheduler.",
        )
    if options.gateway is not None and options.router == "none":
        raise UsageError(
            f"--router-gateway {options.gateway} and --router none: nothing leads through it",
            fix="Add --router route, or leave the gateway out.",
        )


def model_name(wanted: Wanted) -> str:
    """What requests call the model: a feature's word, else the service's name."""
    names = [v for k, v in wanted.features.items() if spelled(k) == NAME_KEY and v is not None]
    return str(names[0]) if names else wanted.service


def llm_spec(wanted: Wanted, gpus: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The `spec` and notes. Raises ProfileError for features that cannot be."""
    features = {k: v for k, v in wanted.features.items() if spelled(k) != NAME_KEY}
    newest = VLLM_VERSION if wanted.backend == "vllm" else str(NEWEST)
    version = str(vllm_version(wanted.vllm_version or newest))
    flags = vllm_flags(features, version)
    image = wanted.image
    if image is None and wanted.backend == "vllm-runtime":
        image = f"{IMAGE}:v{version}"
    workload = _workload(replace(wanted, image=image), gpus, flags)
    model: dict[str, Any] = {"uri": wanted.source.uri, "name": model_name(wanted)}
    if wanted.llm.adapters:
        adapters = [{"name": name, "uri": uri} for name, uri in wanted.llm.adapters.items()]
        model["lora"] = {"adapters": adapters}
    spec: dict[str, Any] = {
        "model": model,
        "replicas": wanted.scaling.min_replicas,
        **workload,
    }
    if wanted.llm.prefill_replicas:
        spec["prefill"] = {"replicas": wanted.llm.prefill_replicas, **workload}
    router = _router(wanted)
    if router is not None:
        spec["router"] = router
    return spec, (*flags.notes, *_notes(wanted, version))


def _workload(wanted: Wanted, gpus: int, flags: ServerFlags) -> dict[str, Any]:
    """What serves: the same for decode and prefill, so that one can hand the other its cache."""
    container = _container(wanted, gpus, flags)
    pod = {
        **wanted.source.predictor_fields(),
        **placement(wanted.machine, gpus, defaults=True),
    }
    often = {"periodSeconds": PROBE_EVERY_S, "timeoutSeconds": PROBE_EVERY_S}
    # What is asked, and how, is the preset's: a handler here would be a second one.
    started = {**often, "failureThreshold": START_S // PROBE_EVERY_S}
    workload: dict[str, Any] = {
        "template": {**pod, "containers": [{**container, "startupProbe": started}]}
    }
    parallelism = _parallelism(wanted, gpus)
    if parallelism:
        workload = {"parallelism": parallelism, **workload}
    if wanted.nodes > 1:
        workload["worker"] = {**pod, "containers": [container]}
    return workload


def _parallelism(wanted: Wanted, gpus: int) -> dict[str, Any]:
    given = {spelled(key): value for key, value in wanted.features.items() if value is not None}
    parallelism: dict[str, Any] = {}
    if gpus:
        parallelism["tensor"] = given.get("tensor_parallel_size", 1)
    if wanted.nodes > 1:
        parallelism["pipeline"] = wanted.nodes
    copies = given.get("data_parallel_size", 1)
    if copies > 1:
        parallelism.update(data=copies, dataLocal=copies)
    if given.get("enable_expert_parallel"):
        parallelism["expert"] = True
    return parallelism


def _container(wanted: Wanted, gpus: int, flags: ServerFlags) -> dict[str, Any]:
    container: dict[str, Any] = {"name": MAIN}
    arguments = list(flags.arguments)
    environment: list[dict[str, Any]] = [
        {"name": name, "value": _no_template(value)}
        for name, value in sorted(flags.environment.items())
    ]
    if wanted.image is not None:
        container["image"] = wanted.image
    if wanted.backend == "vllm-runtime":
        # vLLM's image runs as root, which the presets forbid.
        container["securityContext"] = {"runAsNonRoot": False, "readOnlyRootFilesystem": False}
    if wanted.llm.prefill_replicas:
        arguments += ["--kv-transfer-config", KV_TRANSFER]
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment.append({"name": KV_HOST, "valueFrom": address})
    if arguments:
        container["args"] = [quoted(argument) for argument in arguments]
    if environment:
        container["env"] = environment
    container["resources"] = resources(wanted.machine, gpus)
    return container


def quoted(argument: str) -> str:
    """Write an argument so that it arrives as it is, through all three of its readers.

    Kubernetes reads $(NAME), KServe a Go template, and the presets' script shell words.
    """
    return _no_template(shlex.quote(argument)).replace("$(", "$$(")


def _no_template(text: str) -> str:
    return text.replace("{{", "{{ `{{` }}")


def _router(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.llm.router == "none":
        return None
    gateway: dict[str, Any] = {}
    if wanted.llm.gateway is not None:
        namespace, slash, name = wanted.llm.gateway.rpartition("/")
        reference = {"name": name, "namespace": namespace} if slash else {"name": name}
        gateway = {"refs": [reference]}
    router: dict[str, Any] = {"route": {}, "gateway": gateway}
    if wanted.llm.router == "scheduler":
        router["scheduler"] = {}
    return router


def _notes(wanted: Wanted, version: str) -> list[str]:
    notes = [
        f"its API is at /{wanted.namespace}/{wanted.service}/v1 of the gateway; inside the cluster "
        "at port 8000 of its own Service, over https where KServe's configuration enables TLS."
    ]
    if wanted.backend == "vllm" and wanted.image is None:
        notes.append(
            f"the image is that of KServe's presets, and the flags are vLLM {version}'s: "
            "--vllm-version says which it is, --image or --backend vllm-runtime pins one."
        )
    if wanted.llm.router == "none":
        notes.append("without a router only pods of the cluster reach it.")
    if wanted.llm.prefill_replicas:
        notes.append(
            "prefill and decode hand over the KV cache by NIXL: the image must have it, and "
            "without RDMA between the nodes the network is within the figures."
        )
    return notes
