"""Read other tools' JSON: what they write may be no number, or not there at all."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Final

import msgspec

MOST: Final = 2**53
"""No count of a run is above it; beyond, whole numbers are not exact in JSON."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Time = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
"""In s or ms: not before it began, and not beyond a human life."""
Moment = Annotated[float, msgspec.Meta(ge=0.0, le=4e9)]
"""In s since 1970."""


def parts_of(text: str) -> list[Any]:
    """Every JSON value of a text: one, or several after each other, as of JSON lines.

    Numbers that are none (NaN, Infinity) become None. Raises ValueError where it is no JSON.
    """
    decoder = json.JSONDecoder(parse_constant=_nothing, parse_float=_finite)
    parts, place = [], _after_space(text, 0)
    while place < len(text):
        part, place = decoder.raw_decode(text, place)
        parts.append(part)
        place = _after_space(text, place)
    return parts


def _nothing(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def at(content: Any, *path: str | int) -> Any:
    """What stands at a path in objects and lists; None where nothing does."""
    for step in path:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def number(value: Any) -> float | None:
    """A number that is one; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > MOST:
        return None
    return float(value)


def text(value: Any) -> str | None:
    """A text that says something; None for all else."""
    return value if isinstance(value, str) and value else None


def whole(value: Any) -> int | None:
    """A count; None for all that is none."""
    found = number(value)
    return round(found) if found is not None and found >= 0 else None
