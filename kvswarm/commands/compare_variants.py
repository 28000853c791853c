"""The variants of a comparison: each backend with each quantization, and the model that it serves.

In:  the names of --backends and --quantization, --model, --model-of.
Out: `Variant`s, in the order in which they were given.
Not: manifests and profiles, see `compare_plan.py`.

A quantization is a packaged profile `quantization/NAME`. Only what says how numbers are stored is
taken from it: its load, its prompts and the limits that belong to those would make the runs unlike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.commands.wanted import server_features
from kvswarm.errors import UsageError
from kvswarm.kserve.checkpoints import needs_checkpoint
from kvswarm.profiles.load import load_profile, packaged_names
from kvswarm.serving.checkpoints import fit, hints_in
from kvswarm.serving.flags import spelled
from kvswarm.serving.problems import nearest
from kvswarm.serving.quantization import names, quantization

FLAG: Final = "--quantization"
NONE: Final = "none"
"""The model as it is: what the others are compared with."""
FOLDER: Final = "quantization/"
STORAGE_KEYS: Final = ("quantization", "dtype", "kv_cache_dtype")
"""Features that say how weights, arithmetic and KV cache are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of what is compared."""

    backend: str
    quantization: str | None
    """As it was given; None where --quantization was not."""
    model: str
    """URI."""
    features: Mapping[str, Any]
    """What the quantization says of how numbers are stored."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As people read it."""
        return " ".join(part for part in (self.backend, self.quantization) if part)

    @property
    def directory(self) -> str:
        """The name of its run directory, and the end of its service's name."""
        return self.text.replace(" ", "-")

    def settings(self, given: Sequence[str]) -> list[str]:
        """Its features as settings of a profile; what `given` settings say goes before."""
        taken = {spelled(key.rpartition(".")[2]) for key in given}
        return [
            f"vllm_features.{key}={json.dumps(value)}"
            for key, value in self.features.items()
            if key not in taken
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked to be compared."""

    backends: tuple[str, ...]
    quantizations: tuple[str, ...]
    model: str
    models_of: Mapping[str, str]
    """URIs of the checkpoints of some quantizations."""
    vllm_version: str | None = None


def variants_of(asked: Asked, features: Mapping[str, Any]) -> list[Variant]:
    """Make the variants; `features` are the profile's own.

    Raises UsageError for names that there are not, for fewer than two variants, and where a
    quantization needs a checkpoint that nobody named.
    """
    _check_once("--backends", asked.backends)
    _check_once(FLAG, asked.quantizations)
    _check_models(asked)
    found = [
        _variant(asked, backend, method, features)
        for backend in asked.backends
        for method in asked.quantizations or (None,)
    ]
    if len(found) < 2:  # noqa: PLR2004 - one is no comparison
        raise UsageError(
            f"--backends {' '.join(asked.backends)}: is one server; a comparison has two or more",
            fix=f"Give more backends, or {FLAG} none autoawq; for one there are `kvswarm deploy` "
            "and `kvswarm run`.",
        )
    return found


def _check_once(flag: str, values: Sequence[str]) -> None:
    known = [names().get(value.lower(), value) for value in values] if flag == FLAG else values
    for place, value in enumerate(known):
        if value in known[:place]:
            raise UsageError(f"{flag}: {values[place]} is given twice", fix="Keep one.")


def _check_models(asked: Asked) -> None:
    for method in asked.models_of:
        if method not in asked.quantizations or method == NONE:
            fix = f"Name one of {FLAG}'s: {', '.join(asked.quantizations) or 'none is given'}."
            if method == NONE:
                fix = f"{NONE} serves --model."
            raise UsageError(f"--model-of {method}: is no quantization that is compared", fix=fix)


def _variant(
    asked: Asked, backend: str, method: str | None, features: Mapping[str, Any]
) -> Variant:
    if method is None:
        return Variant(backend=backend, quantization=None, model=asked.model, features={})
    if method == NONE:
        own = {key: None for key in features if spelled(key) == STORAGE_KEYS[0]}
        return Variant(backend=backend, quantization=NONE, model=asked.model, features=own)
    taken = _features_of(method)
    model, notes = _model_of(asked, backend, method)
    said = ", ".join(f"{key} {value}" for key, value in taken.items())
    return Variant(
        backend=backend,
        quantization=method,
        model=model,
        features=taken,
        notes=(f"{method} is {said}.", *notes),
    )


def _features_of(method: str) -> dict[str, Any]:
    """What the packaged profile says of how numbers are stored. Raises UsageError: none is it."""
    known = [name.removeprefix(FOLDER) for name in packaged_names() if name.startswith(FOLDER)]
    meant = names().get(method.lower())
    found = [name for name in known if meant is not None and names()[name] == meant]
    if not found:
        raise UsageError(
            f"{FLAG} {method}: there is none of that name.{nearest(method, [*known, NONE])}",
            fix=f"Quantizations: {', '.join(known)}; {NONE} for the model as it is.",
        )
    features = server_features(load_profile(FOLDER + found[0]))
    return {key: features[key] for key in STORAGE_KEYS if key in features}


def _model_of(asked: Asked, backend: str, method: str) -> tuple[str, list[str]]:
    """The model of a quantization, and what to know of it."""
    plain = quantization(method)
    given = asked.models_of.get(method)
    model = given or asked.model
    hints = hints_in(model)
    fits = fit(plain.method, hints) if hints else None
    if given is None and needs_checkpoint(backend, method, asked.vllm_version):
        if not hints or fits is False:
            raise UsageError(
                f"{FLAG} {method}: {backend} needs a checkpoint of its own for it, and --model "
                f"{asked.model} does not look like one",
                fix=f"Name the checkpoint: --model-of {method}=URI.",
            )
        return model, [f"{method} is served of --model: its name looks like such a checkpoint."]
    if given is None:
        return model, [f"{method} is served of --model, which {backend} quantizes at its start."]
    if fits is False:
        return model, [f"the name {given} looks like another quantization than {method}."]
    return model, []
