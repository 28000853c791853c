"""Turn the merged values of a profile into one `Profile`; check the rules between keys.

In:  a `Document` that the schema accepts.
Out: a `Profile`. Every rule that is broken is a problem of one `ProfileError`.
Not: the load's own rules: see `resolve_load.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.profiles.document import Document
from kvswarm.profiles.model import (
    Lengths,
    Load,
    MixPart,
    Profile,
    PromptSpec,
    Timeouts,
    VerdictLimits,
    Window,
)
from kvswarm.profiles.problems import KeyPath, Problem, profile_error
from kvswarm.profiles.resolve_features import resolve_features
from kvswarm.profiles.resolve_load import resolve_load
from kvswarm.profiles.run_length import expected_duration_s, expected_requests

DEFAULT_INPUT_TOKENS: Final = 256
DEFAULT_OUTPUT_TOKENS: Final = 128

MIN_OWN_TOKENS: Final = 8
"""Tokens that a unique prompt needs of its own, beside a shared prefix, to start unlike others."""

REQUEST_KEYS: Final = frozenset({
    "adapters", "conversation", "endpoint", "ignore_eos", "images", "input_tokens", "max_tokens",
    "output_tokens", "prompts", "request", "shared_prefix_share", "shared_prefix_tokens",
    "shared_prefixes", "structured_output", "system", "tokenizer", "tool_calling", "tools",
    "unique",
})  # fmt: skip
"""Keys that say what a request is; all others say when it is sent and how it is judged."""

NO_CAP_TOKENS: Final = 2**31 - 1


@dataclass(slots=True)
class Findings:
    """Problems as the rules find them, each at the place of its key."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, what: str, fix: str) -> None:
        """Note that the value at `path` breaks a rule."""
        self.problems.append(Problem(self.document.place(path), path, what, fix))


def resolve(
    document: Document, *, name: str, source: str, mix: tuple[MixPart, ...] = ()
) -> Profile:
    """Resolve merged values. `name` is used where the profile gives none.

    `mix`: the profiles that the key of this name means. Raises ProfileError with every broken rule.
    """
    findings = Findings(document)
    values = document.values
    load = resolve_load(values, findings.add)
    prompt = _prompt(values, findings)
    features = resolve_features(values, load, findings.add)
    _check_mix(values, mix, load, findings)
    warmup, cooldown = _window(values.get("warmup")), _window(values.get("cooldown"))
    _check_windows(load, warmup, cooldown, findings)
    if findings.problems:
        raise profile_error(document.source, findings.problems)
    return Profile(
        name=values.get("name", name),
        description=values.get("description", ""),
        load=load,
        prompt=prompt,
        endpoint=values.get("endpoint", "chat"),
        seed=int(values.get("seed", 0)),
        use_cases=tuple(values.get("use_cases", ())),
        recommended_for=tuple(values.get("recommended_for", ())),
        needs=values.get("needs", ""),
        expect=values.get("expect", ""),
        characteristics=values.get("characteristics", {}),
        vllm_features=values.get("vllm_features", {}),
        speculative=values.get("speculative"),
        request=values.get("request", {}),
        warmup=warmup,
        cooldown=cooldown,
        slo=_floats(values.get("slo", {})),
        gate=_floats(values.get("gate", {})),
        cost=values.get("cost", {}),
        timeouts=Timeouts(**_floats(values.get("timeouts", {}))),
        verdict=VerdictLimits(**_floats(values.get("verdict", {}))),
        on_worker_loss=values.get("on_worker_loss", "continue"),
        source=source,
        mix=mix,
        **features,
    )


def _check_mix(
    values: Mapping[str, Any], mix: tuple[MixPart, ...], load: Load, findings: Findings
) -> None:
    """A mix sends what its parts send: keys of its own for that would have no effect."""
    if not mix:
        return
    for key in sorted(REQUEST_KEYS & values.keys()):
        findings.add(
            (key,),
            "has no effect beside mix: each request is made as one of its profiles says",
            "Leave it out, or put it into a profile that the mix names.",
        )
    for part in mix:
        place = ("mix", part.profile.name)
        if part.profile.mix:
            findings.add(place, "is a mix itself", "Name the profiles of that mix.")
        if part.profile.has_dialogues and load.open_loop:
            findings.add(
                place,
                f"needs users who wait for answers; pattern {load.pattern} has arrivals at a rate",
                "Use pattern: steady with concurrency, or levels of concurrency.",
            )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def _window(value: Mapping[str, Any] | None) -> Window:
    if not value:
        return Window()
    requests, duration_s = value.get("requests"), value.get("duration_s")
    return Window(
        requests=None if requests is None else int(requests),
        duration_s=None if duration_s is None else float(duration_s),
    )


def _prompt(values: Mapping[str, Any], findings: Findings) -> PromptSpec:
    prompts = values.get("prompts")
    unique = values.get("unique", True)
    prefix_tokens = int(values.get("shared_prefix_tokens", 0))
    own_tokens = MIN_OWN_TOKENS if unique and prompts is None else 0
    if prompts is None:
        input_tokens = _lengths(
            ("input_tokens",),
            values.get("input_tokens", DEFAULT_INPUT_TOKENS),
            findings,
            default_min=max(1, prefix_tokens + own_tokens),
        )
    else:
        input_tokens = Lengths(kind="file", max_tokens=NO_CAP_TOKENS)
    _check_prompt(values, input_tokens, prefix_tokens + own_tokens, findings)
    return PromptSpec(
        input_tokens=input_tokens,
        output_tokens=_output_tokens(values, findings),
        prompts_file=prompts,
        tokenizer=values.get("tokenizer"),
        shared_prefix_tokens=prefix_tokens,
        shared_prefixes=int(values.get("shared_prefixes", 1)),
        shared_prefix_share=float(values.get("shared_prefix_share", 1.0)),
        unique=unique,
        system=values.get("system"),
        ignore_eos=values.get("ignore_eos", prompts is None or "output_tokens" in values),
    )


def _check_prompt(
    values: Mapping[str, Any], input_tokens: Lengths, needed_tokens: int, findings: Findings
) -> None:
    has_file = "prompts" in values
    if has_file and values.get("input_tokens") not in (None, {"file": True}):
        findings.add(
            ("input_tokens",),
            "cannot be chosen for a file of prompts",
            "Leave out input_tokens, or leave out prompts.",
        )
    if has_file and values.get("shared_prefix_tokens"):
        findings.add(
            ("shared_prefix_tokens",),
            "goes with made prompts only",
            "Put the shared text into the file's prompts or into `system`.",
        )
    if not has_file and input_tokens.kind != "file" and input_tokens.min_tokens < needed_tokens:
        findings.add(
            ("input_tokens",),
            f"allows {input_tokens.min_tokens} tokens; the shared prefix and "
            f"{MIN_OWN_TOKENS} tokens that tell unique prompts apart need {needed_tokens}",
            f"Give at least {needed_tokens}, a shorter shared_prefix_tokens, or unique: false.",
        )
    for key in ("shared_prefixes", "shared_prefix_share"):
        if key in values and not values.get("shared_prefix_tokens"):
            findings.add(
                (key,),
                "has no effect without a shared prefix",
                "Give shared_prefix_tokens, or leave it out.",
            )
    if values.get("shared_prefix_share", 1.0) < 1.0 and values.get("unique") is False:
        findings.add(
            ("shared_prefix_share",),
            "has no effect with unique: false, which sends one prompt all the time",
            "Leave out one of the two.",
        )
    if "system" in values and values.get("endpoint") == "completions":
        findings.add(
            ("system",),
            "goes with the chat endpoint; completions have no system message",
            "Use endpoint: chat, or leave out system.",
        )


def _output_tokens(values: Mapping[str, Any], findings: Findings) -> Lengths:
    cap_tokens = values.get("max_tokens")
    given = values.get("output_tokens")
    if given is None:
        return _fixed(DEFAULT_OUTPUT_TOKENS if cap_tokens is None else int(cap_tokens))
    lengths = _lengths(("output_tokens",), given, findings, default_min=1)
    if cap_tokens is None:
        return lengths
    return Lengths(
        kind=lengths.kind,
        mean_tokens=(
            min(lengths.mean_tokens, cap_tokens) if lengths.kind == "fixed" else lengths.mean_tokens
        ),
        std_tokens=lengths.std_tokens,
        min_tokens=min(lengths.min_tokens, int(cap_tokens)),
        max_tokens=min(lengths.max_tokens, int(cap_tokens)),
    )


def _fixed(tokens: int) -> Lengths:
    return Lengths(kind="fixed", mean_tokens=float(tokens), min_tokens=tokens, max_tokens=tokens)


def _lengths(
    path: KeyPath, value: int | float | Mapping[str, Any], findings: Findings, *, default_min: int
) -> Lengths:
    if isinstance(value, int | float):
        return _fixed(int(value))
    if "fixed" in value:
        return _fixed(int(value["fixed"]))
    if "values" in value:
        tokens = tuple(int(length) for length in value["values"])
        return Lengths(
            kind="values",
            mean_tokens=sum(tokens) / len(tokens),
            min_tokens=min(tokens),
            max_tokens=max(tokens),
            values=tokens,
        )
    if "file" in value:
        if "prompts" not in findings.document.values:
            findings.add(
                path, "is to come from a file, but there is none", "Give a file with `prompts`."
            )
        return Lengths(kind="file", max_tokens=NO_CAP_TOKENS)
    kind = "uniform" if "uniform" in value else "normal"
    given = value[kind]
    mean_tokens = float(given.get("mean", (given.get("min", 0) + given.get("max", 0)) / 2))
    std_tokens = float(given.get("std", 0.0))
    min_tokens = int(given.get("min", default_min))
    highest = math.ceil(mean_tokens + 4 * std_tokens)
    max_tokens = int(given.get("max", max(min_tokens, highest)))
    if min_tokens > max_tokens:
        findings.add(
            (*path, kind),
            f"has min {min_tokens} above max {max_tokens}",
            "Give a min that is at most max.",
        )
    return Lengths(
        kind="uniform" if kind == "uniform" else "normal",
        mean_tokens=mean_tokens,
        std_tokens=std_tokens,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )


def _check_windows(load: Load, warmup: Window, cooldown: Window, findings: Findings) -> None:
    if cooldown.requests is not None and load.requests is None:
        findings.add(
            ("cooldown", "requests"),
            f"is {cooldown.requests}, but the run ends by time",
            "Give cooldown.duration_s instead, or end the run by requests.",
        )
    if cooldown.duration_s is not None and load.duration_s is None:
        findings.add(
            ("cooldown", "duration_s"),
            f"is {cooldown.duration_s:g} s, but the run ends by requests",
            "Give cooldown.requests instead, or end the run by duration_s.",
        )
    _check_room("requests", warmup.requests, cooldown.requests, expected_requests(load), findings)
    _check_room(
        "duration_s", warmup.duration_s, cooldown.duration_s, expected_duration_s(load), findings
    )


def _check_room(
    key: str,
    warmup: float | None,
    cooldown: float | None,
    run: float | None,
    findings: Findings,
) -> None:
    """Refuse windows that leave nothing to measure, in requests or in seconds."""
    if run is None or (not warmup and not cooldown) or (warmup or 0) + (cooldown or 0) < run:
        return
    unit = "requests" if key == "requests" else "s"
    first = "warmup" if warmup is not None else "cooldown"
    parts = " and ".join(
        f"{name} {value:g} {unit}"
        for name, value in (("warm-up", warmup), ("cool-down", cooldown))
        if value is not None
    )
    findings.add(
        (first, key),
        f"leaves nothing to measure: {parts} of a run of about {run:g} {unit}",
        "Give a longer run or a shorter warmup and cooldown.",
    )
