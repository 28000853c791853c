"""Speculative decoding: what a profile asks for, and how each version of vLLM is told.

In:  `vllm_features`: `speculative` (method, model, num_speculative_tokens, ...), vLLM's own
     `speculative_config`, or the older `speculative_model` and its kin.
Out: a `Speculation`, and its flags: one JSON, or before vLLM 0.8.2 a flag for each part.
Not: choosing a draft for a model, see `drafts.py`.
Source: `vllm_keys.yaml`, section `speculation`; the rules are those of vLLM's SpeculativeConfig.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kvswarm.serving.problems import Problem, nearest, raise_problems, seen
from kvswarm.serving.tables import table
from kvswarm.serving.values import wrong_value
from kvswarm.serving.versions import Span, Version, span_of, vllm_version

METHODS: Final = ("draft_model", "ngram", "eagle", "eagle3", "mtp")
NEED_A_MODEL: Final = frozenset({"draft_model", "eagle", "eagle3"})
ALSO: Final = {"[ngram]": "ngram", "deepseek_mtp": "mtp"}
"""Other names of methods."""

NGRAM_MODELS: Final = ("ngram", "[ngram]")
"""What stood for a model where there was no method yet."""

AUTO: Final = "auto"
LOOKUPS: Final = ("prompt_lookup_max", "prompt_lookup_min")
OWN_MEMBERS: Final[Mapping[str, dict[str, Any]]] = {
    "model": {"kind": "text"},
    "num_speculative_tokens": {"kind": "integer", "minimum": 1},
    **{name: {"kind": "integer", "minimum": 1} for name in LOOKUPS},
}

OLDER_KEYS: Final = {
    "speculative_model": "model",
    "num_speculative_tokens": "num_speculative_tokens",
    "ngram_prompt_lookup_max": "prompt_lookup_max",
    "ngram_prompt_lookup_min": "prompt_lookup_min",
    "speculative_draft_tensor_parallel_size": "draft_tensor_parallel_size",
    "speculative_model_quantization": "quantization",
    "speculative_max_model_len": "max_model_len",
    "speculative_disable_by_batch_size": "disable_by_batch_size",
}
"""vLLM's flags before 0.8.2, and what each is called in its JSON since."""

SPECULATION_KEYS: Final = frozenset({"speculative", "speculative_config", *OLDER_KEYS})
"""Every key of `vllm_features` that this module reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """What drafts tokens, and how many at a time."""

    method: str
    """One of `METHODS`."""
    num_speculative_tokens: int
    model: str | None = None
    prompt_lookup_max: int | None = None
    prompt_lookup_min: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further members of vLLM's SpeculativeConfig, by their names there."""

    def config(self, version: str | None = None) -> dict[str, Any]:
        """Give the contents of `--speculative-config` for a version (None: today's)."""
        method = self.method
        if version is not None:
            for entry in _methods()[method].get("names", ()):
                if vllm_version(version) in span_of(entry):
                    method = entry["value"]
        members = {
            "method": method,
            "model": self.model,
            "num_speculative_tokens": self.num_speculative_tokens,
            "prompt_lookup_max": self.prompt_lookup_max,
            "prompt_lookup_min": self.prompt_lookup_min,
            **self.others,
        }
        return {name: value for name, value in members.items() if value is not None}

    def to_json(self, version: str | None = None) -> str:
        """Write `config` on one line, as `--speculative-config` takes it."""
        return json.dumps(self.config(version), separators=(",", ":"))


def speculation_of(features: Mapping[str, Any]) -> Speculation | None:
    """Read what `vllm_features` says of speculation; None: nothing.

    Raises ProfileError: naming everything that is wrong, or that the draft is still to be chosen.
    """
    problems: list[Problem] = []
    speculation = read_speculation(features, problems)
    raise_problems(problems)
    return speculation


@dataclass(frozen=True, slots=True)
class _Given:
    """Members as a profile gave them, each under the key that it was given by."""

    key: str
    members: Mapping[str, Any]
    older: bool = False

    def at(self, name: str) -> str:
        """Give the key of a member, as the profile would spell it."""
        if self.older:
            return next(older for older, member in OLDER_KEYS.items() if member == name)
        return f"{self.key}.{name}"


def read_speculation(features: Mapping[str, Any], problems: list[Problem]) -> Speculation | None:
    """Read speculation, adding what is wrong to `problems`. Keys are spelled with `_`."""
    keys = [key for key in features if key in SPECULATION_KEYS and features[key] is not None]
    older = {OLDER_KEYS[key]: features[key] for key in keys if key in OLDER_KEYS}
    newer = [key for key in keys if key not in OLDER_KEYS]
    if len(newer) + bool(older) > 1:
        others = " and ".join(keys[:-1])
        problems.append(Problem(keys[-1], f"says the same as {others}", "Keep one of them."))
        return None
    if older:
        return _read(_Given(keys[0], older, older=True), problems)
    if not newer:
        return None
    (key,) = newer
    value = features[key]
    if value == AUTO:
        what = f"is {AUTO!r}, and no model is known yet to choose a draft for"
        fix = "Give method, model and num_speculative_tokens here, or name the model to deploy."
        problems.append(Problem(key, what, fix))
        return None
    if not isinstance(value, Mapping):
        fix = "Give {method: ngram, num_speculative_tokens: 4}, or auto to have a draft chosen."
        problems.append(Problem(key, f"is {seen(value)}; must be a map", fix))
        return None
    members = {str(name): member for name, member in value.items() if member is not None}
    return _read(_Given(key, members), problems)


def _read(given: _Given, problems: list[Problem]) -> Speculation | None:
    members = given.members
    found = [*_unknown_members(given), *_wrong_values(given)]
    method = _method(given, found)
    if method is not None:
        found.extend(_wrong_combinations(method, given))
    problems.extend(found)
    if found or method is None:
        return None
    return Speculation(
        method=method,
        num_speculative_tokens=members["num_speculative_tokens"],
        model=None if method == "ngram" else members.get("model"),
        prompt_lookup_max=members.get("prompt_lookup_max"),
        prompt_lookup_min=members.get("prompt_lookup_min"),
        others={name: members[name] for name in members if name in _members()},
    )


def _unknown_members(given: _Given) -> Iterator[Problem]:
    known = {"method", "model", "num_speculative_tokens", *LOOKUPS, *_members()}
    for name in given.members:
        if name not in known:
            what = f"is no key of it.{nearest(name, known)}"
            yield Problem(given.at(name), what, f"Known are {', '.join(sorted(known))}.")


def _method(given: _Given, problems: list[Problem]) -> str | None:
    """Find the method: named, or told by the model's name as vLLM does it."""
    named, model = given.members.get("method"), given.members.get("model")
    if named is not None:
        method = ALSO.get(str(named), str(named))
        if method in METHODS:
            return method
        what = f"is {seen(named)}, which is no method known here.{nearest(named, METHODS)}"
        problems.append(Problem(given.at("method"), what, f"Known are {', '.join(METHODS)}."))
        return None
    lookups = any(name in given.members for name in LOOKUPS)
    if model in NGRAM_MODELS or (model is None and lookups):
        return "ngram"
    if model is not None:
        name = str(model).lower()
        return "eagle3" if "eagle3" in name else "eagle" if "eagle-" in name else "draft_model"
    fix = f"Give a method, one of {', '.join(METHODS)}; ngram needs no model."
    problems.append(Problem(given.key, "names neither a method nor a model", fix))
    return None


def _wrong_values(given: _Given) -> Iterator[Problem]:
    """Check each member by itself."""
    if "num_speculative_tokens" not in given.members:
        fix = "Say how many tokens are drafted at a time, such as 4."
        yield Problem(given.at("num_speculative_tokens"), "is missing", fix)
    for name, check in {**OWN_MEMBERS, **_members()}.items():
        if name in given.members:
            found = wrong_value(check, given.members[name])
            if found:
                yield Problem(given.at(name), found, "Change it, or leave it out.")


def _wrong_combinations(method: str, given: _Given) -> Iterator[Problem]:
    model = given.members.get("model")
    if method in NEED_A_MODEL and model is None:
        what = f"is missing: {method} drafts with a model of its own"
        yield Problem(given.at("model"), what, "Name the draft, or take ngram, which needs none.")
    if method == "ngram" and model is not None and model not in NGRAM_MODELS:
        what = f"is {seen(model)}, and ngram drafts from the prompt, without a model"
        yield Problem(given.at("model"), what, "Take it away, or make the method draft_model.")
    if method != "ngram":
        for name in LOOKUPS:
            if name in given.members:
                what = f"has no effect with {method}: it is ngram's"
                yield Problem(given.at(name), what, "Take it away.")
        return
    most, least = (given.members.get(name) for name in LOOKUPS)
    if isinstance(most, int) and isinstance(least, int) and least > most:
        what = f"is {least}, above {given.at('prompt_lookup_max')}, which is {most}"
        yield Problem(given.at("prompt_lookup_min"), what, "Give a min of at most max.")


def speculation_flags(
    speculation: Speculation, version: Version, problems: list[Problem], notes: list[str]
) -> tuple[str, ...]:
    """Write one version's flags; what it cannot do goes to `problems`, the rest to `notes`."""
    if version < flags_since():
        notes.append(
            f"speculation is left out: vLLM {version} has no flags for it, they came with "
            f"{flags_since()}."
        )
        return ()
    spans = [span_of(entry) for entry in _methods()[speculation.method]["spans"]]
    if not any(version in span for span in spans):
        problems.append(
            Problem(
                "speculative",
                f"asks for {speculation.method}, which vLLM {version} cannot do",
                f"Versions {', or '.join(map(str, spans))} can; ngram needs no draft.",
            )
        )
        return ()
    kept = _members_of_version(speculation, version, notes)
    if version >= config_since():
        return ("--speculative-config", kept.to_json(str(version)))
    return _older_flags(kept, version, problems)


def _members_of_version(
    speculation: Speculation, version: Version, notes: list[str]
) -> Speculation:
    kept = {}
    for name, value in speculation.others.items():
        if version in member_span(name):
            kept[name] = value
        else:
            notes.append(f"speculative.{name} is left out: vLLM {version} has no such thing.")
    return replace(speculation, others=kept)


def member_span(name: str) -> Span:
    """Versions of vLLM that have one of `Speculation.others`, as a flag or in the JSON."""
    entry = _members()[name]
    span = span_of(entry)
    return Span(vllm_version(entry["flag_since"]), span.until) if "flag_since" in entry else span


def config_since() -> Version:
    """The first version of vLLM that takes speculation as one JSON."""
    return vllm_version(table("vllm_keys")["speculation"]["config_since"])


def flags_since() -> Version:
    """The first version of vLLM that speculates at all."""
    return vllm_version(table("vllm_keys")["speculation"]["flags_since"])


def _older_flags(
    speculation: Speculation, version: Version, problems: list[Problem]
) -> tuple[str, ...]:
    ngram = speculation.method == "ngram"
    # Newer versions take the one that is given for both, or 5; older ones refuse to start.
    lookup_max = speculation.prompt_lookup_max or speculation.prompt_lookup_min
    if ngram and lookup_max is None:
        what = f"is missing, and vLLM {version} does not start ngram without it"
        problems.append(Problem("prompt_lookup_max", what, "Give one, such as 4."))
    values = {
        "speculative_model": "[ngram]" if ngram else speculation.model,
        "num_speculative_tokens": speculation.num_speculative_tokens,
        "ngram_prompt_lookup_max": lookup_max,
        "ngram_prompt_lookup_min": speculation.prompt_lookup_min,
    }
    for older, name in OLDER_KEYS.items():
        values.setdefault(older, speculation.others.get(name))
    return tuple(
        part
        for key, value in values.items()
        if value is not None
        for part in (f"--{key.replace('_', '-')}", str(value))
    )


def _methods() -> dict[str, Any]:
    methods: dict[str, Any] = table("vllm_keys")["speculation"]["methods"]
    return methods


def _members() -> dict[str, Any]:
    members: dict[str, Any] = table("vllm_keys")["speculation"]["members"]
    return members
