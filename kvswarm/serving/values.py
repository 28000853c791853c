"""Whether a value is one that a key of the tables takes.

In:  an entry of a table (`kind`, bounds), and the value that a profile gave.
Out: what is wrong with it in words, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from kvswarm.serving.problems import seen


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


KINDS: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "integer": ("a whole number", _is_integer),
    "number": ("a number", _is_number),
    "text": ("a text", _is_text),
    "quantization": ("a text", _is_text),
    "map": ("a map, not an empty one", lambda value: isinstance(value, Mapping) and bool(value)),
}


def wrong_value(entry: Mapping[str, Any], value: object) -> str | None:
    """Say why a value does not fit an entry's kind and bounds; None: it fits."""
    words, fits = KINDS[entry["kind"]]
    if not fits(value):
        return f"is {seen(value)}; must be {words}"
    if isinstance(value, Mapping) and "of" in entry:
        words, fits = KINDS[entry["of"]]
        wrong = [f"{name}: {seen(member)}" for name, member in value.items() if not fits(member)]
        if wrong:
            return f"holds {', '.join(wrong)}; each must be {words}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _out_of_bounds(entry, value)
    return None


def _out_of_bounds(entry: Mapping[str, Any], value: float) -> str | None:
    if "minimum" in entry and value < entry["minimum"]:
        return f"is {value}; must be {entry['minimum']} or more"
    if "above" in entry and value <= entry["above"]:
        return f"is {value}; must be above {entry['above']}"
    if "maximum" in entry and value > entry["maximum"]:
        return f"is {value}; must be {entry['maximum']} or less"
    return None
