"""Find a service of KServe: an InferenceService, or else an LLMInferenceService, of a name.

In:  a cluster, a namespace, a name.
Out: `FoundService`.  Raises ClusterError; UsageError where both kinds have one of that name.
The rights it needs: get and list of the two kinds; list of pods, without which there is less to
tell. A runtime is read only where no pod tells what runs.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.found import (
    FoundPod,
    FoundService,
    Serving,
    backend_of,
    filled,
    main_container,
    words_of,
)
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.node_labels import kept
from kvswarm.kserve.pods import machine_of, pods_of
from kvswarm.kserve.refusals import ClusterError, NotAllowedError, NotThereError

SERVICES: Final = ("InferenceService", "LLMInferenceService")
MODES: Final = {"RawDeployment": "Standard", "Serverless": "Knative"}
"""Older names of the two."""
MODE_NOTE: Final = "serving.kserve.io/deploymentMode"
SCALER_NOTE: Final = "serving.kserve.io/autoscalerClass"
STOP_NOTE: Final = "serving.kserve.io/stop"
GIVEN_UP: Final = frozenset({"BlockedByFailedLoad", "InvalidSpec"})


def find_service(
    cluster: Cluster, namespace: str, service: str, kind: str | None = None
) -> FoundService:
    """Find it, with its pods as far as they may be listed.

    Raises NotThereError, which names the nearest and lists all; UsageError where `kind` must say
    which of two is meant; other ClusterErrors as they come.
    """
    found = _documents(cluster, namespace, service, kind)
    if len(found) > 1:
        raise UsageError(
            f"--service {service}: namespace {namespace} has an InferenceService and an "
            "LLMInferenceService of that name",
            fix=f"Say which with --kind {SERVICES[0]} or --kind {SERVICES[1]}.",
        )
    if not found:
        raise _not_found(cluster, namespace, service, kind)
    document = found[0]
    read = read_inference_service if document["kind"] == SERVICES[0] else read_llm_service
    bare = read(document, None)
    pods: tuple[FoundPod, ...] | None = None
    notes: tuple[str, ...] = bare.notes
    try:
        pods = pods_of(cluster, namespace, bare.selector)
    except NotAllowedError as error:
        notes = (*notes, f"its pods are not known: {error}")
    whole = replace(bare, pods=pods, notes=notes)
    if pods:
        return with_pods(whole)
    runtime = _runtime(cluster, namespace, document)
    return replace(read(document, runtime), pods=pods, notes=notes) if runtime else whole


def _documents(
    cluster: Cluster, namespace: str, service: str, kind: str | None
) -> list[dict[str, Any]]:
    """The documents of that name; a kind that the cluster lacks has none, unless both lack."""
    found: list[dict[str, Any]] = []
    missing: list[ClusterError] = []
    for name in SERVICES if kind is None else (kind,):
        try:
            document = cluster.get(KINDS[name], namespace, service)
        except NotThereError as error:
            missing.append(error)
        except NotAllowedError:
            if kind is not None or name == SERVICES[0]:
                raise
        else:
            found += [{**document, "kind": name}] if document is not None else []
    if missing and not found and (kind is not None or len(missing) == len(SERVICES)):
        raise missing[0]
    return found


def _not_found(cluster: Cluster, namespace: str, service: str, kind: str | None) -> NotThereError:
    with contextlib.suppress(ClusterError):  # to ask for namespaces is a right of its own
        if cluster.get(KINDS["Namespace"], None, namespace) is None:
            return NotThereError(
                f"--namespace {namespace}: there is none of that name",
                fix="List them with `kubectl get namespaces`; --context chooses another cluster.",
            )
    names: list[str] = []
    for name in SERVICES if kind is None else (kind,):
        try:
            documents, _ = cluster.list_all(KINDS[name], namespace)
        except ClusterError:
            continue
        names += [str(each["metadata"]["name"]) for each in documents]
    near = difflib.get_close_matches(service, names, n=1)
    shown = ", ".join(sorted(names)[:8])
    return NotThereError(
        f"--service {service}: namespace {namespace} has no {kind or 'service of KServe'} of that "
        "name",
        fix=(f"Did you mean {near[0]!r}? " if near else "")
        + (f"It has: {shown}." if names else "It has none; --namespace names another."),
    )


def _runtime(
    cluster: Cluster, namespace: str, document: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The runtime that KServe says it took, or that the service names; None where unknown."""
    status = document.get("status") or {}
    model = (document["spec"].get("predictor") or {}).get("model") or {}
    named = model.get("runtime")
    places = (
        ("ServingRuntime", status.get("servingRuntimeName") or named),
        ("ClusterServingRuntime", status.get("clusterServingRuntimeName") or named),
    )
    for kind, name in places:
        if name is None:
            continue
        try:
            found = cluster.get(KINDS[kind], namespace, str(name))
        except (NotAllowedError, NotThereError):
            continue
        if found is not None:
            return found
    return None


def with_pods(service: FoundService) -> FoundService:
    """The same with what its pods run: they know more than any other document."""
    pods = service.pods or ()
    pod = min(pods, key=lambda each: (not each.counts, not each.ready, each.leaving))
    serving = replace(
        service.serving,
        image=pod.image,
        words=pod.words,
        backend=service.serving.backend or backend_of(pod.image, pod.words, None),
    )
    return replace(service, serving=serving, model=service.model or serving.model)


def read_inference_service(
    document: Mapping[str, Any], runtime: Mapping[str, Any] | None
) -> FoundService:
    """Read an InferenceService; `runtime` is its (Cluster)ServingRuntime, where that is known."""
    metadata, status = document["metadata"], document.get("status") or {}
    predictor = document["spec"].get("predictor") or {}
    annotations = metadata.get("annotations") or {}
    namespace, name = str(metadata["namespace"]), str(metadata["name"])
    model = predictor.get("model") or {}
    container = main_container(predictor if "containers" in predictor else {})
    more: list[str] = []
    if runtime is not None:
        container = {**main_container(runtime["spec"]), **container}
        more = list(model.get("args") or [])
    elif not container:
        container = model
    image = model.get("image") or container.get("image")
    words = filled(words_of(container, more), namespace, name)
    model_format = (model.get("modelFormat") or {}).get("name")
    serving = Serving(
        backend=backend_of(image, words, model_format),
        runtime=status.get("servingRuntimeName")
        or status.get("clusterServingRuntimeName")
        or model.get("runtime"),
        image=image,
        words=words,
    )
    mode = str(status.get("deploymentMode") or annotations.get(MODE_NOTE) or "")
    mode = MODES.get(mode, mode)
    at_least = predictor.get("minReplicas")
    to_zero = mode == "Knative" or annotations.get(SCALER_NOTE) == "keda"
    return FoundService(
        kind=SERVICES[0],
        namespace=namespace,
        name=name,
        url=status.get("url"),
        local_url=(status.get("address") or {}).get("url"),
        model=serving.model,
        serving=serving,
        mode=mode or None,
        min_replicas=at_least,
        may_sleep=to_zero and at_least == 0 and annotations.get(STOP_NOTE) != "true",
        ready=_is_ready(status),
        why_not_ready=_why_not(status),
        failed=(status.get("modelStatus") or {}).get("transitionStatus") in GIVEN_UP,
        selector=f"serving.kserve.io/inferenceservice={name},component=predictor",
        machine=_machine(model.get("resources") or container.get("resources"), predictor),
        notes=_canary_notes(document["spec"]),
    )


def _machine(resources: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a pod will ask for; nothing, where its resources are left to somebody else."""
    if not resources:
        return {}
    return {**machine_of(resources), "labels": kept(spec.get("nodeSelector") or {})}


def _canary_notes(spec: Mapping[str, Any]) -> tuple[str, ...]:
    share = (spec.get("predictor") or {}).get("canaryTrafficPercent")
    if spec.get("canary") or (share is not None and share < 100):  # noqa: PLR2004 - percent
        return ("a canary is being rolled out: the figures are of two revisions together.",)
    return ()


def read_llm_service(
    document: Mapping[str, Any], runtime: Mapping[str, Any] | None
) -> FoundService:
    """Read an LLMInferenceService, which has no `runtime`: its presets are in its pods."""
    del runtime
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    namespace, name = str(metadata["namespace"]), str(metadata["name"])
    annotations = metadata.get("annotations") or {}
    container = main_container(spec.get("template") or {})
    scaling = spec.get("scaling") or {}
    at_least = scaling.get("minReplicas", spec.get("replicas"))
    urls = [status.get("url"), *(each.get("url") for each in status.get("addresses") or [])]
    inside = (status.get("address") or {}).get("url")
    known = [str(url) for url in urls if url]
    gateways = (status.get("router") or {}).get("gateways") or []
    return FoundService(
        kind=SERVICES[1],
        namespace=namespace,
        name=name,
        url=next((url for url in known if not _is_local(url)), None),
        local_url=inside or next((url for url in known if _is_local(url)), None),
        model=str((spec.get("model") or {}).get("name") or name),
        serving=Serving(
            backend="vllm-runtime",
            runtime=None,
            image=container.get("image"),
            words=words_of(container),
        ),
        mode=None,
        min_replicas=at_least,
        may_sleep=scaling.get("minReplicas") == 0 and annotations.get(STOP_NOTE) != "true",
        ready=_is_ready(status),
        why_not_ready=_why_not(status),
        gateways=tuple(
            f"{each.get('namespace', namespace)}/{each.get('name')}" for each in gateways
        ),
        selector=f"app.kubernetes.io/name={name},kserve.io/component=workload",
        machine=_machine(container.get("resources"), spec.get("template") or {}),
    )


def _is_local(url: str) -> bool:
    return ".svc" in url.partition("://")[2].partition("/")[0]


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(
        each.get("type") == "Ready" and each.get("status") == "True"
        for each in status.get("conditions") or []
    )


def _why_not(status: Mapping[str, Any]) -> str:
    """The conditions that fail, with their reasons, and what KServe says of the model."""
    told = []
    failing = [c for c in status.get("conditions") or [] if c.get("status") != "True"]
    for each in [c for c in failing if c.get("type") != "Ready"] or failing:
        why = ": ".join(str(each[key]) for key in ("reason", "message") if each.get(key))
        told.append(f"{each.get('type')} is {each.get('status')}" + (f" ({why})" if why else ""))
    failure = (status.get("modelStatus") or {}).get("lastFailureInfo") or {}
    why = ": ".join(str(failure[key]) for key in ("reason", "message") if failure.get(key))
    if why:
        told.append(f"its model: {why}")
    return "; ".join(told) or "KServe has said nothing of it yet"
