"""`kvswarm manifest`: a profile's server as manifests for KServe.

In:  the flags of the command line.
Out: YAML on standard output, and on standard error what a person must know about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from kvswarm.commands.wanted import draft_of, server_features
from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.load import cluster_names, load_cluster
from kvswarm.kserve.clusters.place import (
    Asked,
    Place,
    machine_at,
    node_for,
    place_of,
    plain_machine,
    price_per_hour_usd,
)
from kvswarm.kserve.machine import check_machine
from kvswarm.kserve.manifests import Manifests, manifests, spread_of
from kvswarm.kserve.scaling import Mode, Scaling
from kvswarm.kserve.sources import ModelSource, model_source
from kvswarm.kserve.wanted import Canary, LlmOptions, Wanted
from kvswarm.profiles.features import BASE
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.profiles.overrides import Overrides

EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRequest:
    """What the command line asked for."""

    profile: str
    settings: tuple[str, ...]
    wanted: Wanted
    """Without what the profile says of it, on a machine that no cluster had a word about."""
    asked: Asked
    cluster: str | None = None
    """`gke`, `gke:h100-80gb`, `./mine.yaml`."""
    gpu: str | None = None

    @property
    def service(self) -> str:
        """The service's name."""
        return self.wanted.service

    @property
    def namespace(self) -> str:
        """The service's namespace."""
        return self.wanted.namespace

    @property
    def mode(self) -> Mode:
        """KServe's mode of deployment."""
        return self.wanted.mode


def show_manifest(request: ManifestRequest) -> None:
    """Print the manifests. Raises UsageError or ProfileError."""
    show(decide(request, load_profile(request.profile, Overrides(settings=request.settings))))


def show(decided: Manifests) -> None:
    """Print manifests to standard output, and what a person must know to standard error."""
    for note in decided.notes:
        click.echo(f"kvswarm: {note}", err=True)
    click.echo(decided.to_yaml(), nl=False)


def show_typed(values: Mapping[str, Any]) -> None:
    """Print the manifests for the flags by their names. Raises UsageError or ProfileError."""
    show_manifest(typed_request(values))


def typed_request(values: Mapping[str, Any]) -> ManifestRequest:
    """Read the flags by their names; others beside them are passed over. Raises UsageError."""
    asked = Asked(
        gpu_resource=values["gpu_resource"],
        gpus=values["gpus"],
        cpu=values["cpu"],
        memory=values["memory"],
        node_selector=node_selector(values["node_selector"]),
        tolerations=tolerations(values["toleration"]),
    )
    scaling = Scaling(
        min_replicas=values["min_replicas"],
        max_replicas=values["max_replicas"],
        autoscaler=values["autoscaler"],
        metric=values["scale_metric"],
        target=values["scale_target"],
        query=values["scale_query"],
        prometheus=values["prometheus"],
    )
    kept = ("backend", "service", "namespace", "mode", "image", "vllm_version", "nodes")
    wanted = Wanted(
        **{name: values[name] for name in kept},
        source=_source(values["model"], values),
        machine=plain_machine(asked),
        scaling=scaling,
        form=values["kind"],
        canary=_canary(values),
        llm=_llm_options(values),
    )
    return ManifestRequest(
        profile=values["profile"],
        settings=values["settings"],
        wanted=wanted,
        asked=asked,
        cluster=values["cluster"],
        gpu=values["gpu"],
    )


def _source(uri: str, values: Mapping[str, Any]) -> ModelSource:
    return model_source(uri, secret=values["secret"], service_account=values["service_account"])


def _canary(values: Mapping[str, Any]) -> Canary | None:
    percent, model, image = (values[f"canary_{name}"] for name in ("percent", "model", "image"))
    if percent is None:
        if model is not None or image is not None:
            raise UsageError(
                "--canary-model or --canary-image, and no --canary-percent: how much of the "
                "traffic is it to get?",
                fix="Add --canary-percent, from 0 to 100.",
            )
        return None
    source = None if model is None else _source(model, values)
    return Canary(traffic_percent=percent, model=source, image=image)


def _llm_options(values: Mapping[str, Any]) -> LlmOptions:
    adapters: dict[str, str] = {}
    for text in values["adapter"]:
        name, equals, uri = text.partition("=")
        if not (name and equals and uri):
            raise UsageError(
                f"--adapter {text}: is not NAME=URI",
                fix="Give what requests call it and where it is, such as sql=hf://org/sql-lora.",
            )
        if name in adapters:
            raise UsageError(f"--adapter {name}: is given twice", fix="Keep one of them.")
        adapters[name] = uri
    options = LlmOptions(
        gateway=values["router_gateway"],
        prefill_replicas=values["prefill_replicas"] or 0,
        adapters=adapters,
    )
    return options if values["router"] is None else replace(options, router=values["router"])


def decide(request: ManifestRequest, profile: Profile) -> Manifests:
    """Decide the manifests of a request for a profile. Raises UsageError, ProfileError."""
    wanted, notes = placed(request, profile)
    decided = manifests(wanted)
    return replace(decided, notes=(*decided.notes, *notes))


def placed(request: ManifestRequest, profile: Profile) -> tuple[Wanted, list[str]]:
    """What is wanted for a profile, on the machine that its cluster makes of it, and notes on that.

    Raises UsageError or ProfileError.
    """
    wanted = request.wanted
    features = server_features(profile)
    if features.get("speculative") == "auto":
        features["speculative"] = draft_of(wanted.source.model)
    profiles = (profile, *(part.profile for part in profile.mix))
    adapters = {name: None for each in profiles for name in each.adapters if name != BASE}
    wanted = replace(
        wanted,
        features=features,
        adapters=tuple(adapters),
        timeout_s=profile.timeouts.total_s,
    )
    place = place_of_flags(request.cluster, request.gpu, wanted.machine.gpus)
    if place is None:
        return wanted, []
    check_machine(wanted.machine)
    gpus, _features = spread_of(wanted)
    machine = machine_at(place, request.asked, gpus)
    notes = [*_claim_notes(place, wanted), *_price_notes(place, gpus, wanted)]
    return replace(wanted, machine=machine), notes


def place_of_flags(cluster: str | None, gpu: str | None, gpus: int | None) -> Place | None:
    """Find what `--cluster` and `--gpu` name; None: nothing is. Raises UsageError."""
    if cluster is None:
        if gpu is not None:
            raise UsageError(
                f"--gpu {gpu} and no --cluster: of which cluster?",
                fix=f"Add --cluster, such as {', '.join(cluster_names())}.",
            )
        return None
    name, _colon, typed = cluster.partition(":")
    if typed and gpu is not None and typed != gpu:
        raise UsageError(
            f"--cluster {cluster} and --gpu {gpu}: they name two GPUs", fix="Keep one of them."
        )
    known = load_cluster(name)
    wanted = typed or gpu
    if wanted is not None:
        return place_of(known, wanted)
    if gpus == 0:
        return None
    raise UsageError(
        f"--cluster {cluster} and no --gpu: it has several",
        fix=f"Add --gpu, one of {', '.join(known.gpus)}; or --gpus 0 for none.",
    )


def _claim_notes(place: Place, wanted: Wanted) -> list[str]:
    """What a person must know of a claim that pods on several nodes mount."""
    shared = place.cluster.shared_class
    many = wanted.nodes > 1 or wanted.scaling.min_replicas > 1 or wanted.llm.prefill_replicas > 0
    if wanted.source.scheme != "pvc" or not many or shared is None:
        return []
    return [
        f"pods on several nodes mount {wanted.source.uri}: its claim must be one that many may "
        f"read; on this cluster that is usually storage class {shared}."
    ]


def _price_notes(place: Place, gpus: int, wanted: Wanted) -> list[str]:
    """What a replica costs, by which list, of which day."""
    node, each_usd = node_for(place, gpus), price_per_hour_usd(place, gpus)
    if node.price is None or each_usd is None:
        return []
    where = "" if node.price.region is None else f" in {node.price.region}"
    return [
        f"the GPUs of a replica cost ${each_usd * wanted.nodes:.2f} an hour on demand: "
        f"{node.name}{where}, as of {node.price.as_of}."
    ]


def node_selector(pairs: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE`, each. Raises UsageError."""
    selector = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--node-selector {pair}: is not KEY=VALUE",
                fix="Give a node's label, such as nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3.",
            )
        selector[key] = value
    return selector


def tolerations(texts: Sequence[str]) -> tuple[dict[str, str], ...]:
    """Read `KEY[=VALUE][:EFFECT]`, each. Raises UsageError."""
    return tuple(_toleration(text) for text in texts)


def _toleration(text: str) -> dict[str, str]:
    taint, colon, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    if not key or (colon and effect not in EFFECTS):
        raise UsageError(
            f"--toleration {text}: is not KEY[=VALUE][:EFFECT]",
            fix=f"Give a taint as nodes have it; effects are {', '.join(EFFECTS)}.",
        )
    toleration = {"key": key, "operator": "Equal" if equals else "Exists"}
    if equals:
        toleration["value"] = value
    if effect:
        toleration["effect"] = effect
    return toleration
