"""Lay one layer of a profile over another: a file over what it extends, flags over the file.

In:  `Document`s, each checked against the schema.  Out: one `Document`.

Mappings merge key by key, everything else is replaced. Five rules keep a refinement from
being at odds with what it refines:

- A layer that gives one end (`requests` or `duration_s`) takes the other, inherited one away.
- A layer that ends the run otherwise takes away an inherited `warmup` or `cooldown` in the unit of
  the end that is gone.
- A layer that changes `pattern` takes away inherited keys which the new pattern has no use for.
- A layer that gives `max_tokens` alone replaces an inherited fixed `output_tokens`.
- A layer that gives `prompts` takes away what shapes made prompts: an inherited `input_tokens` or
  `shared_prefix_tokens`.

A null at the top level takes an inherited key away.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from kvswarm.profiles.document import Document
from kvswarm.profiles.model import OPEN_LOOP
from kvswarm.profiles.overrides import FLAGS, Overrides
from kvswarm.profiles.problems import KeyPath, Place

DEFAULT_PATTERN: Final = "steady"

ENDS: Final = ("requests", "duration_s")

WINDOWS: Final = ("warmup", "cooldown")

REPLACED_WHOLE: Final = frozenset(
    {"input_tokens", "output_tokens", "speculative", "adapters", "mix", *WINDOWS}
)
"""Mappings whose keys exclude one another, so that merging them would make no sense."""

_ARRIVALS: Final = frozenset({"rate_rps", "concurrency", "max_in_flight"})

KEYS_OF_PATTERN: Final = {
    "steady": frozenset({"concurrency"}),
    "constant": _ARRIVALS,
    "poisson": _ARRIVALS,
    "heavy": _ARRIVALS,
    "gamma": _ARRIVALS | {"burstiness"},
    "bursty": _ARRIVALS | {"on_s", "off_s", "off_rate_rps"},
    "ramp": frozenset({"ramp", "max_in_flight"}),
    "stages": frozenset({"stages", "max_in_flight"}),
}
"""Which of the keys that shape the load go with which pattern."""

MADE_PROMPT_KEYS: Final = frozenset(
    {"input_tokens", "shared_prefix_tokens", "shared_prefixes", "shared_prefix_share"}
)
"""What shapes made prompts, and has no effect on those of a file."""

SHAPE_KEYS: Final = frozenset().union(*KEYS_OF_PATTERN.values())


def pattern_of(values: dict[str, Any]) -> str:
    """Tell the pattern that values ask for."""
    return str(values.get("pattern") or DEFAULT_PATTERN)


def merged(base: Document, layer: Document) -> Document:
    """Lay `layer` over `base`; the result takes the layer's name for its source."""
    values = {key: base.values[key] for key in base.values if key not in _taken_away(base, layer)}
    places = {path: place for path, place in base.places.items() if path and path[0] in values}
    for key, value in layer.values.items():
        old = values.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and key not in REPLACED_WHOLE:
            values[key] = _deep_merged(old, value)
        else:
            values[key] = value
            places = {path: place for path, place in places.items() if path[0] != key}
    places.update(layer.places)
    return Document(
        layer.source, {key: value for key, value in values.items() if value is not None}, places
    )


def _deep_merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = _deep_merged(before, value)
        else:
            result[key] = value
    return result


def _taken_away(base: Document, layer: Document) -> frozenset[str]:
    away: set[str] = set()
    given_ends = [end for end in ENDS if layer.values.get(end) is not None]
    if len(given_ends) == 1:
        away.update(ENDS)
    before, after = pattern_of(base.values), pattern_of({**base.values, **layer.values})
    if before != after:
        away.update(SHAPE_KEYS - KEYS_OF_PATTERN[after])
        if before not in OPEN_LOOP:
            # Users of a closed loop are no limit of requests in flight.
            away.add("concurrency")
    if layer.values.get("max_tokens") is not None and "output_tokens" not in layer.values:
        output = base.values.get("output_tokens")
        if isinstance(output, int) or (isinstance(output, dict) and "fixed" in output):
            away.add("output_tokens")
    if layer.values.get("prompts") is not None:
        away.update(MADE_PROMPT_KEYS)
    kept = {key: value for key, value in base.values.items() if key not in away} | layer.values
    ends_gone = _ends(base.values) - _ends(kept)
    away.update(key for key in WINDOWS if ends_gone & set(base.values.get(key) or ()))
    return frozenset(away)


def _ends(values: dict[str, Any]) -> set[str]:
    """Tell which of `ENDS` end a run of these values."""
    given = {end for end in ENDS if values.get(end) is not None}
    return given or (set() if levels_duration_s(values) is None else {"duration_s"})


def override_layer(base: Document, overrides: Overrides) -> Document:
    """Make a layer of the flags that were given, to go over `base`.

    A rate turns a profile of users into `poisson`; users turn a profile of arrivals into
    `steady`; with both, users limit the requests in flight. On `ramp` and `stages` either one
    replaces the levels, and their time stays the end where the profile gave no other.
    """
    given = {key: value for key, value in asdict(overrides).items() if value is not None}
    del given["settings"]  # a layer of their own
    places: dict[KeyPath, Place] = {(key,): Place(FLAGS[key]) for key in given}
    pattern = pattern_of(base.values)
    if "rate_rps" in given:
        if pattern not in OPEN_LOOP:
            given["pattern"] = "poisson"
        if "concurrency" in given:
            given["max_in_flight"] = given.pop("concurrency")
            places["max_in_flight",] = places.pop(("concurrency",))
    elif "concurrency" in given and pattern != "steady":
        given["pattern"] = "steady"
    if "pattern" in given:
        duration_s = levels_duration_s(base.values)
        if duration_s is not None and not any(end in base.values or end in given for end in ENDS):
            given["duration_s"] = duration_s
    layer = Document(base.source, given, places)
    if "max_in_flight" in given and "concurrency" in base.values:
        # The file's limit of requests in flight, under its older name, gives way to the flag's.
        layer.values["concurrency"] = None
    return layer


def levels_duration_s(values: dict[str, Any]) -> float | None:
    """Add up the time of `ramp` or `stages`; None for other patterns."""
    if pattern_of(values) == "ramp" and values.get("ramp") is not None:
        return float(values["ramp"]["duration_s"])
    if pattern_of(values) == "stages" and values.get("stages") is not None:
        return float(sum(stage["duration_s"] for stage in values["stages"]))
    return None
