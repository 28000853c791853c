"""Read JSON that a model wrote, and hold it against a JSON Schema.

In:  text; a schema (draft 2020-12).
Out: the value, or `NoDocument` with what is wrong and where; `fault` gives the first thing in a
     value that breaks a schema, as `$.items[2].price: ...`.
Nothing is fetched: a `$ref` that leads out of the schema is one that cannot be checked.
Formats are checked the same wherever this runs, whatever packages are there: see `FORMATS`.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from kvswarm.scoring.kinds import SNIPPET_CHARS, snippet

_DATE: Final = r"\d{4}-\d\d-\d\d"
_TIME: Final = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
_ZONE: Final = r"(?:[zZ]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_PATTERNS: Final = {
    "date": _DATE,
    "time": _TIME + _ZONE,
    "date-time": f"{_DATE}[tT]{_TIME}{_ZONE}",
    "email": r".+@[^@\s]+",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9a-fA-F]{2})*",
}
"""RFC 3339, 5.6; of RFC 5321 only that something stands on both sides of an @; RFC 9562, 4;
the characters of RFC 3986 after a scheme."""


class NoDocument(Exception):  # noqa: N818 - an outcome that its callers expect
    """The text is no JSON document; the message says why and where."""


class Uncheckable(Exception):  # noqa: N818 - an outcome that its callers expect
    """The schema, not the answer, keeps it from being checked; the message says why."""


def _matches(name: str) -> Callable[[object], bool]:
    fits = re.compile(_PATTERNS[name], re.ASCII).fullmatch
    return lambda value: not isinstance(value, str) or fits(value) is not None


def _starts_with_a_date(value: object) -> bool:
    """Whether the day is in the calendar. Raises ValueError where it is not."""
    if isinstance(value, str):
        datetime.date.fromisoformat(value[:10])
    return True


def _formats() -> FormatChecker:
    checker = FormatChecker(())
    for name in _PATTERNS:
        checker.checks(name)(_matches(name))
    for name in ("date", "date-time"):
        fits = _matches(name)
        checker.checks(name, raises=ValueError)(
            lambda value, fits=fits: fits(value) and _starts_with_a_date(value)
        )
    for name, kind in (("ipv4", ipaddress.IPv4Address), ("ipv6", ipaddress.IPv6Address)):
        checker.checks(name, raises=ValueError)(
            lambda value, kind=kind: not isinstance(value, str) or bool(kind(value))
        )
    return checker


FORMATS: Final = _formats()
"""`date`, `time`, `date-time`, `email`, `uuid`, `uri`, `ipv4`, `ipv6`; others are not checked."""


def read_document(text: str) -> Any:
    """Read one JSON document with blanks around it. Raises NoDocument.

    What readers would take differently is refused: a name that stands twice in one object, NaN,
    Infinity.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        here = f", at {snippet(text[error.pos :])}" if error.pos < len(text) else ""
        raise NoDocument(f"no JSON at char {error.pos}: {error.msg}{here}") from error
    except RecursionError as error:
        raise NoDocument("nested too deep to be read") from error
    except ValueError as error:  # Python reads no integers of thousands of digits
        raise NoDocument("holds a number of too many digits") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NoDocument(f"the name {snippet(twice)} stands twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise NoDocument(f"{name} is no JSON")


@dataclass(frozen=True, eq=False, slots=True)
class _Same:
    """A schema by identity: comparing by value would cost more than it saves."""

    schema: Mapping[str, Any]

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.schema is other.schema


@lru_cache(maxsize=256)
def _validator(same: _Same) -> Draft202012Validator:
    # The empty registry: jsonschema's default one asks the network for what it does not know.
    registry: Registry[Any] = Registry()
    return Draft202012Validator(same.schema, format_checker=FORMATS, registry=registry)


def fault(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Give the first thing in `value` that breaks `schema`; None where nothing does.

    Raises Uncheckable.
    """
    try:
        first = next(_validator(_Same(schema)).iter_errors(value), None)
        return None if first is None else _told(first)
    except RecursionError as error:
        raise Uncheckable("the answer or its schema is nested too deep to be checked") from error
    except Unresolvable as error:
        raise Uncheckable(f"the schema refers to {error.ref!r}, which is not in it") from error
    except Exception as error:  # anybody's schema must not end a run
        what = f"{type(error).__name__}: {error}"
        raise Uncheckable(f"the schema cannot be applied: {what}") from error


def _told(error: ValidationError) -> str:
    # Of several forms none of which fits, the one that fits best tells most.
    best = best_match([error]) if error.context else error
    assert best is not None  # noqa: S101 - there is one
    return f"{best.json_path}: {_rule(best)}"


def _rule(error: ValidationError) -> str:
    """Say what is wrong without repeating what the model wrote, but for a few characters."""
    keyword, wanted = str(error.validator), error.validator_value
    value: Any = error.instance
    if keyword == "required" and isinstance(wanted, list):
        return "lacks " + ", ".join(name for name in wanted if name not in value)
    if keyword == "additionalProperties" and wanted is False:
        schema: Any = error.schema
        patterns = schema.get("patternProperties", ())
        more = [
            snippet(name)
            for name in value
            if name not in schema.get("properties", ())
            and not any(re.search(pattern, name) for pattern in patterns)
        ]
        return "has what the schema does not know: " + ", ".join(more)
    if keyword in {"anyOf", "oneOf"} and isinstance(wanted, list):
        return f"is {_seen(value)}; it fits none, or too many, of {len(wanted)} forms"
    return f"is {_seen(value)}; the schema wants {keyword} {json.dumps(wanted)}"


def _seen(value: object) -> str:
    if isinstance(value, str):
        return snippet(value)
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    shown = json.dumps(value)
    return shown if len(shown) <= SNIPPET_CHARS else shown[:SNIPPET_CHARS] + "..."
