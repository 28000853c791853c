"""`kvswarm manifest`: a profile's server as manifests for KServe.

In:  the flags of the command line.
Out: YAML on standard output, and on standard error what a person must know about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from kvswarm.commands.wanted import draft_of, server_features
from kvswarm.errors import UsageError
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.manifests import Manifests, manifests
from kvswarm.kserve.scaling import Mode, Scaling
from kvswarm.kserve.sources import ModelSource, model_source
from kvswarm.kserve.wanted import Wanted
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.profiles.overrides import Overrides

BASE: Final = "base"
"""In a profile's adapters: the model itself."""
EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRequest:
    """What the command line asked for."""

    backend: str
    service: str
    namespace: str
    source: ModelSource
    profile: str
    settings: tuple[str, ...]
    mode: Mode
    machine: Machine
    scaling: Scaling
    image: str | None
    vllm_version: str | None


def show_manifest(request: ManifestRequest) -> None:
    """Print the manifests. Raises UsageError or ProfileError."""
    show(decided_manifests(request))


def show(decided: Manifests) -> None:
    """Print manifests to standard output, and what a person must know to standard error."""
    for note in decided.notes:
        click.echo(f"kvswarm: {note}", err=True)
    click.echo(decided.to_yaml(), nl=False)


def show_typed(values: Mapping[str, Any]) -> None:
    """Print the manifests for the flags by their names. Raises UsageError or ProfileError."""
    show_manifest(typed_request(values))


def decided_manifests(request: ManifestRequest) -> Manifests:
    """Decide the manifests. Raises UsageError or ProfileError."""
    profile = load_profile(request.profile, Overrides(settings=request.settings))
    return _decide(request, profile)


def typed_request(values: Mapping[str, Any]) -> ManifestRequest:
    """Read the flags by their names; others beside them are passed over. Raises UsageError."""
    source = model_source(
        values["model"], secret=values["secret"], service_account=values["service_account"]
    )
    machine = Machine(
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
    kept = ("backend", "service", "namespace", "profile", "settings", "mode", "image")
    return ManifestRequest(
        **{name: values[name] for name in kept},
        vllm_version=values["vllm_version"],
        source=source,
        machine=machine,
        scaling=scaling,
    )


def _decide(request: ManifestRequest, profile: Profile) -> Manifests:
    features = server_features(profile)
    if features.get("speculative") == "auto":
        features["speculative"] = draft_of(request.source.model)
    profiles = (profile, *(part.profile for part in profile.mix))
    adapters = {name: None for each in profiles for name in each.adapters if name != BASE}
    return manifests(
        Wanted(
            backend=request.backend,
            service=request.service,
            namespace=request.namespace,
            source=request.source,
            features=features,
            adapters=tuple(adapters),
            timeout_s=profile.timeouts.total_s,
            mode=request.mode,
            machine=request.machine,
            scaling=request.scaling,
            image=request.image,
            vllm_version=request.vllm_version,
        )
    )


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
