"""Check the values of a profile against `profile.schema.json`, in words that help.

In:  a `Document`.  Out: a `Problem` for every place that the schema refuses.
Not: rules between keys: see `resolve.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from kvswarm.profiles.document import Document
from kvswarm.profiles.problems import KeyPath, Problem, key_text, nearest, seen

SCHEMA_PATH: Final = Path(__file__).with_name("profile.schema.json")

LATENCIES: Final = ("ttft", "ttft_from_intended", "itl", "tpot", "e2e")
PERCENTILES: Final = ("p50", "p75", "p90", "p95", "p99", "p999")
COST_OF: Final = (
    "hour", "request", "successful_request", "good_request", "valid_answer",
    *(f"{unit}_{kind}tokens" for unit in ("1k", "million") for kind in ("input_", "output_", "")),
)  # fmt: skip
ENERGY_PER: Final = ("j_per_request", "j_per_output_token", "wh_per_1k_output_tokens")

SLO_KEYS: Final = tuple(
    [f"{name}_ms" for name in LATENCIES]
    + [f"{name}_{figure}_ms" for name, figure in product(LATENCIES, PERCENTILES)]
)
GATE_KEYS: Final = tuple(
    ["error_share", "goodput_share", "goodput_rps", "output_tokens_per_s", "valid_output_share"]
    + [f"{name}_{figure}_ms" for name, figure in product(LATENCIES, ("mean", "max", *PERCENTILES))]
    + [f"cost_per_{work}_usd" for work in COST_OF]
    + [f"energy_{name}" for name in ENERGY_PER]
)

SLO_EXAMPLES: Final = "ttft_ms, itl_p99_ms, tpot_ms, e2e_ms"
GATE_EXAMPLES: Final = "error_share, goodput_share, ttft_p99_ms, itl_p99_ms, e2e_max_ms"

TYPE_NAMES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
}

BOUNDS: Final = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be above",
}

RULES: Final = {
    "const": "must be true",
    "minItems": "must not be empty",
    "minProperties": "must not be empty",
    "minLength": "must not be empty",
}

PATTERN_RULES: Final = {
    "name": "must begin with a letter or digit and hold only those, spaces, '.', '_' and '-', "
    "100 at most",
    "tools.function.name": "must be letters, digits, '_' and '-', 64 at most",
    "speculative": "must be auto or a map",
    "pydantic": "must be module:Model",
    "choice": "must be auto, required, named, or a map of these to weights",
    "size": "must be width x height, such as 512x512",
}
"""What the pattern of a key wants, by the key."""

REQUEST_KEY_FIXES: Final = {
    "model": "Give the model with --model.",
    "messages": "Give prompts with the key `prompts`, or `system`.",
    "prompt": "Give prompts with the key `prompts`.",
    "stream": "kvswarm always streams; leave it out.",
    "stream_options": "kvswarm always asks for usage; leave it out.",
    "max_tokens": "Use the profile's own key `max_tokens`.",
    "ignore_eos": "Use the profile's own key `ignore_eos`.",
}


@cache
def profile_schema() -> dict[str, Any]:
    """Read the JSON Schema of profiles (draft 2020-12)."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def schema_problems(document: Document) -> list[Problem]:
    """List everything in a document that the schema refuses."""
    # A null at the top takes back an inherited key (see `layers.py`), so it is no value here.
    values = {key: value for key, value in document.values.items() if value is not None}
    # jsonschema tells each missing key apart; we name them together, once.
    findings = dict.fromkeys(
        finding
        for error in Draft202012Validator(profile_schema()).iter_errors(values)
        for finding in _findings(_Refusal.of(error))
    )
    # JSON has no such numbers, and they slip through every bound of the schema.
    findings.update(
        dict.fromkeys((path, "is not finite", "Give a finite number.") for path in _endless(values))
    )
    return [Problem(document.place(path), path, what, fix) for path, what, fix in findings]


def _endless(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the way to every number that is infinite or none at all."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from _endless(child, (*path, key))


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What jsonschema found: the value at `path` breaks `keyword: wanted` of its schema."""

    path: KeyPath
    value: Any
    keyword: str
    wanted: Any
    schema: Mapping[str, Any]
    message: str

    @classmethod
    def of(cls, error: ValidationError) -> _Refusal:
        """Take over what we need of jsonschema's own error."""
        schema: Any = error.schema
        return cls(
            path=tuple(error.absolute_path),
            value=error.instance,
            keyword=str(error.validator),
            wanted=error.validator_value,
            schema=schema,
            message=error.message,
        )


def _findings(refusal: _Refusal) -> Iterator[tuple[KeyPath, str, str]]:
    path = refusal.path
    if refusal.keyword == "additionalProperties":
        known = _known_keys(path, refusal.schema)
        for key in refusal.value:
            if key not in known:
                yield (*path, key), "is not a key of profiles", _unknown_key_fix(path, key, known)
    elif path == ("request",) and refusal.keyword == "not":
        yield (*path, refusal.value), "must not be given", REQUEST_KEY_FIXES[refusal.value]
    elif refusal.keyword == "required":
        lacking = ", ".join(key for key in refusal.wanted if key not in refusal.value)
        yield path, f"lacks {lacking}", f"Give {lacking} there."
    else:
        yield path, f"is {seen(refusal.value)}; {_rule(refusal)}", _value_fix(refusal)


def _known_keys(path: KeyPath, schema: Mapping[str, Any]) -> tuple[str, ...]:
    if path == ("slo",):
        return SLO_KEYS
    if path == ("gate",):
        return GATE_KEYS
    return tuple(schema.get("properties", ()))


def _unknown_key_fix(path: KeyPath, key: str, known: tuple[str, ...]) -> str:
    suggestion = nearest(key, known)
    if path == ("slo",):
        return f"{suggestion} Limits of a request are such as {SLO_EXAMPLES}.".strip()
    if path == ("gate",):
        figure = f"{key.removesuffix('_ms')}_p99_ms"
        if figure in GATE_KEYS:
            suggestion = f" Say which figure of the run: {figure}."
        return f"{suggestion} Limits of a run are such as {GATE_EXAMPLES}.".strip()
    where = f"Keys of {key_text(path)}" if path else "Keys"
    return f"{suggestion} {where}: {', '.join(known)}.".strip()


def _rule(refusal: _Refusal) -> str:
    keyword, wanted = refusal.keyword, refusal.wanted
    if keyword in BOUNDS:
        return f"{BOUNDS[keyword]} {wanted}"
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return "must be " + " or ".join(TYPE_NAMES[name] for name in names)
    if keyword == "enum":
        return "must be one of " + ", ".join(str(name) for name in wanted)
    if keyword == "maxProperties" or "maxProperties" in refusal.schema:
        return "must hold exactly one of " + ", ".join(refusal.schema["properties"])
    if keyword == "pattern":
        keys = [part for part in refusal.path if isinstance(part, str)]
        whole = PATTERN_RULES.get(".".join(keys))
        return whole or PATTERN_RULES.get(keys[-1], refusal.message)
    return RULES.get(keyword, refusal.message)


def _value_fix(refusal: _Refusal) -> str:
    if refusal.keyword == "enum":
        suggestion = nearest(refusal.value, [str(name) for name in refusal.wanted])
        if suggestion:
            return suggestion.strip()
    if refusal.keyword == "type" and isinstance(refusal.value, str):
        number = _number(refusal.value)
        if number is not None:
            return f"YAML reads it as text; write {number:.12g}, without quotes."
    return f"{key_text(refusal.path)}: {refusal.schema.get('description', 'see docs/profiles.md')}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
