"""Check the values of a profile against `profile.schema.json`, in words that help.

In:  a `Document`.  Out: a `Problem` for every place that the schema refuses.
Not: rules between keys: see `resolve.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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

SLO_KEYS: Final = tuple(
    [f"{name}_ms" for name in LATENCIES]
    + [f"{name}_{figure}_ms" for name, figure in product(LATENCIES, PERCENTILES)]
)
GATE_KEYS: Final = tuple(
    ["error_share", "goodput_share", "goodput_rps", "output_tokens_per_s"]
    + [
        f"{name}_{figure}_ms"
        for name, figure in product(LATENCIES, ("mean", "max", *PERCENTILES))
    ]
)

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
    problems: list[Problem] = []
    # A null at the top takes back an inherited key (see `layers.py`), so it is no value here.
    values = {key: value for key, value in document.values.items() if value is not None}
    for error in Draft202012Validator(profile_schema()).iter_errors(values):
        for path, what, fix in _findings(error):
            problems.append(Problem(document.place(path), path, what, fix))
    return problems


def _findings(error: ValidationError) -> Iterator[tuple[KeyPath, str, str]]:
    path: KeyPath = tuple(error.absolute_path)
    keyword = str(error.validator)
    if keyword == "additionalProperties":
        known = _known_keys(path, error.schema)
        for key in error.instance:
            if key not in known:
                yield (*path, key), "is not a key of profiles", _unknown_key_fix(path, key, known)
    elif keyword == "propertyNames":
        key = str(error.instance)
        yield (*path, key), "must not be given here", REQUEST_KEY_FIXES[key]
    elif keyword == "required":
        wanted = [key for key in error.validator_value if key not in error.instance]
        yield path, f"lacks {', '.join(wanted)}", f"Give {', '.join(wanted)} there."
    else:
        yield path, f"is {seen(error.instance)}; {_rule(error)}", _value_fix(error, path)


def _known_keys(path: KeyPath, schema: Any) -> Iterable[str]:
    if path == ("slo",):
        return SLO_KEYS
    if path == ("gate",):
        return GATE_KEYS
    return tuple(schema.get("properties", ()))


def _unknown_key_fix(path: KeyPath, key: str, known: Iterable[str]) -> str:
    suggestion = nearest(key, known)
    if path == ("gate",) and f"{key.removesuffix('_ms')}_p99_ms" in GATE_KEYS:
        suggestion = f" Name the figure of the run, such as {key.removesuffix('_ms')}_p99_ms."
    where = f"Keys of {key_text(path)}" if path else "Keys"
    return (suggestion + f" {where}: {', '.join(known)}.").strip()


def _rule(error: ValidationError) -> str:
    keyword, wanted = str(error.validator), error.validator_value
    if keyword in BOUNDS:
        return f"{BOUNDS[keyword]} {wanted}"
    if keyword == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return "must be " + " or ".join(TYPE_NAMES[name] for name in names)
    if keyword in {"enum", "const"}:
        valid = wanted if isinstance(wanted, list) else [wanted]
        return "must be one of " + ", ".join(str(name) for name in valid)
    if keyword in {"minProperties", "maxProperties"}:
        return "must hold exactly one of " + ", ".join(error.schema.get("properties", ()))
    if keyword in {"minItems", "minLength"}:
        return "must not be empty"
    return error.message


def _value_fix(error: ValidationError, path: KeyPath) -> str:
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator == "enum":
        suggestion = nearest(error.instance, [str(name) for name in error.validator_value])
        if suggestion:
            return suggestion.strip()
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        return f"YAML reads it as text; write {float(error.instance):.12g}, without quotes."
    return f"{key_text(path)}: {schema.get('description', 'see docs/profiles.md')}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
