"""What a comparison will do: each variant's manifests, profile and run, all of them checked.

In:  `CompareRequest`: flags of the manifests and of the run, by their names.
Out: `Planned`s in the order in which they were given, and what a reader of the figures must know.
Not: the cluster, which nobody has asked yet.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kvswarm.commands.checks import check, written_of
from kvswarm.commands.compare_variants import FLAG, STORAGE_KEYS, Asked, Variant, variants_of
from kvswarm.commands.guard import guard_deployed
from kvswarm.commands.load import RunRequest
from kvswarm.commands.manifest import ManifestRequest, decide, placed, typed_request
from kvswarm.commands.serve import has_warmup
from kvswarm.commands.service_options import ServiceAsked
from kvswarm.commands.wanted import server_features
from kvswarm.errors import KvswarmError, UsageError
from kvswarm.kserve.machine import Machine
from kvswarm.kserve.manifests import Manifests, spread_of
from kvswarm.profiles.model import Profile
from kvswarm.profiles.overrides import FLAGS
from kvswarm.profiles.settings import read_setting
from kvswarm.serving.flags import spelled

WARMUP_REQUESTS: Final = 8
WARMUP_S: Final = 10.0
NO_CANARY: Final = {"canary_percent": None, "canary_model": None, "canary_image": None}
"""A canary shares the traffic, so that a run would measure two servers at once."""
LEVELS: Final = frozenset({"ramp", "stages"})
"""Patterns whose own times say when the load ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """What `kvswarm compare` was asked for."""

    backends: tuple[str, ...]
    quantizations: tuple[str, ...]
    models_of: Mapping[str, str]
    images: Mapping[str, str]
    """Images in place of the backends' own, by backend."""
    manifest: Mapping[str, Any]
    """Flags of `kvswarm manifest`, by their names; `service` is what the services' names begin
    with."""
    run: RunRequest
    """What each run is; its values are those of `options.OPTIONS`, by key."""
    context: str | None = None
    """Entry of the kubeconfig."""
    token_from_kubeconfig: bool = False
    shuffle: bool = False
    fail_fast: bool = False
    out: Path | None = None
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One variant, checked."""

    variant: Variant
    service: str
    manifests: Manifests
    run: RunRequest
    profile: Profile

    @property
    def sha256(self) -> str:
        """Of the manifests as they are printed."""
        return hashlib.sha256(self.manifests.to_yaml().encode()).hexdigest()

    @property
    def image(self) -> str | None:
        """The server's image; None: the cluster's runtime chooses."""
        for document in self.manifests.documents:
            spec = document.get("spec", {})
            for container in (*spec.get("containers", ()), spec.get("predictor", {}).get("model")):
                if container and container.get("image"):
                    return str(container["image"])
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All variants, in the order in which they were given."""

    planned: list[Planned]
    order: list[int]
    """Places of the variants, in the order in which they are run."""
    machine: Machine
    """With the number of its GPUs."""
    mode: str
    namespace: str
    notes: list[str] = field(default_factory=list)

    @property
    def profile(self) -> Profile:
        """The first variant's; all of them send the same."""
        return self.planned[0].profile


def plan(request: CompareRequest) -> Plan:
    """Decide and check everything. Raises KvswarmError for the first that cannot be."""
    given = [read_setting(text).key for text in request.run.values.get("set") or ()]
    _check_flags(request, given)
    plain = written_of(request.run).profile
    values, notes = _with_warmup(request.run.values, plain)
    request = replace(request, run=replace(request.run, values=values))
    asked = Asked(
        backends=request.backends,
        quantizations=request.quantizations,
        model=request.manifest["model"],
        models_of=request.models_of,
        vllm_version=request.manifest["vllm_version"],
    )
    planned = []
    told: set[str] = set()
    wanted: ManifestRequest | None = None
    for variant in variants_of(asked, server_features(plain)):
        settings = (*(values.get("set") or ()), *variant.settings(given))
        try:
            wanted = _wanted(request, variant, settings)
            run = _run(request, wanted)
            written = written_of(run)
            profile = written.profile
            check(run, profile)
            decided = decide(wanted, profile)
            if run.validated:
                guard_deployed(placed(wanted, profile)[0], written, told)
        except KvswarmError as error:
            raise type(error)(f"{variant.text}: {error.message}", fix=error.fix) from error
        planned.append(
            Planned(
                variant=variant,
                service=wanted.wanted.service,
                manifests=decided,
                run=run,
                profile=profile,
            )
        )
    assert wanted is not None  # noqa: S101 - there are two variants at the least
    on_machine, _notes = placed(wanted, plain)
    gpus, _features = spread_of(on_machine)
    return Plan(
        planned=planned,
        order=_order(len(planned), plain.seed if request.shuffle else None),
        machine=replace(on_machine.machine, gpus=gpus),
        mode=on_machine.mode,
        namespace=on_machine.namespace,
        notes=notes,
    )


def _check_flags(request: CompareRequest, given: Sequence[str]) -> None:
    """Refuse what does not go with a comparison. Raises UsageError."""
    for key in given:
        feature = spelled(key.rpartition(".")[2])
        if request.quantizations and feature == STORAGE_KEYS[0]:
            raise UsageError(f"--set {key}: {FLAG} varies that key", fix="Keep one of the two.")
    for backend in request.images:
        if backend not in request.backends:
            raise UsageError(
                f"--image {backend}=...: is no backend that is compared",
                fix=f"Give BACKEND=IMAGE for one of {', '.join(request.backends)}.",
            )


def _wanted(
    request: CompareRequest, variant: Variant, settings: tuple[str, ...]
) -> ManifestRequest:
    """The flags of `kvswarm manifest` for one variant."""
    changed = {
        "backend": variant.backend,
        "model": variant.model,
        "service": f"{request.manifest['service']}-{variant.directory}".lower(),
        "image": request.images.get(variant.backend),
        "profile": request.run.values["profile"],
        "settings": settings,
        **NO_CANARY,
    }
    return typed_request({**request.manifest, **changed})


def _run(request: CompareRequest, wanted: ManifestRequest) -> RunRequest:
    """The run of one variant."""
    service = ServiceAsked(
        namespace=wanted.wanted.namespace,
        name=wanted.wanted.service,
        context=request.context,
        token_from_kubeconfig=request.token_from_kubeconfig,
    )
    values = {**request.run.values, "set": wanted.settings, "out": None}
    return replace(request.run, values=values, service=service, quiet=True)


def _with_warmup(values: Mapping[str, Any], profile: Profile) -> tuple[dict[str, Any], list[str]]:
    """The run's values with a warm-up, beside what is measured, where the profile has none."""
    load = profile.load
    if has_warmup(profile):
        return dict(values), []
    longer: dict[str, float] = {}
    if load.duration_s is not None and load.pattern not in LEVELS:
        longer["duration_s"] = load.duration_s + WARMUP_S
        setting, told = f"warmup.duration_s={WARMUP_S:g}", f"{WARMUP_S:g} s more are"
    if load.requests is not None:
        requests = max(WARMUP_REQUESTS, load.peak_users)
        longer["requests"] = load.requests + requests
        setting, told = f"warmup.requests={requests}", f"{requests} requests more are"
    if not longer:
        seconds = min(WARMUP_S, (load.duration_s or WARMUP_S) / 10)
        setting, told = f"warmup.duration_s={seconds:g}", f"the first {seconds:g} s are"
    warmed, settings = dict(values), [*(values.get("set") or ()), setting]
    for key, value in longer.items():
        flag = FLAGS[key].removeprefix("--")
        if values.get(flag) is not None:
            warmed[flag] = value
        else:
            settings.append(f"{key}={value!r}")
    warmed["set"] = tuple(settings)
    return warmed, [
        f"The profile has no warm-up, and every server is new: {told} sent and not counted."
    ]


def _order(count: int, seed: int | None) -> list[int]:
    """As given, or shuffled: the same seed, the same order."""
    order = list(range(count))
    if seed is not None:
        random.Random(seed).shuffle(order)  # noqa: S311 - an order, no secret
    return order
