"""Judge answers without kvswarm's scorer: jsonschema, re, and the calendar.

In:  what went over the wire.
Out: the kind of score that kvswarm must have given, a key of docs/scoring.md; None: not scored.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from tapping import Exchanged

DAY = re.compile(r"\d{4}-\d\d-\d\d(?=T|$)")
CALLED_FOR = re.compile(r"Use (\w+) to")
"""What every `ask` of the packaged tools says."""


def form_kind(exchanged: Exchanged) -> str | None:
    """Judge an answer that was to have a form; None for a control."""
    asked, text = exchanged.asked, "".join(exchanged.texts)
    cut = "truncated" if exchanged.finish_reason == "length" else "invalid"
    form = asked.get("structured_outputs", {})
    if "regex" in form:
        return "valid" if re.fullmatch(form["regex"], text) else cut
    if "choice" in form:
        return "valid" if text in form["choice"] else cut
    if "response_format" in asked:
        form = {"json": asked["response_format"]["json_schema"]["schema"]}
    if "json" not in form:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return cut
    return "valid" if meets(value, form["json"]) and not impossible_days(value) else "invalid"


def call_kind(exchanged: Exchanged) -> str:
    """Judge an answer to a request that offers functions."""
    prompt = exchanged.asked["messages"][-1]["content"]
    due = CALLED_FOR.search(prompt)
    if due is None:
        return "unwanted_call" if exchanged.calls else "valid"
    if not exchanged.calls:
        return "no_call"
    (call,) = exchanged.calls
    name, arguments = call
    offered = {one["function"]["name"]: one["function"] for one in exchanged.asked["tools"]}
    if name not in offered:
        return "unknown_function"
    value = None
    with contextlib.suppress(ValueError):
        value = json.loads(arguments)
    if not isinstance(value, dict):
        begun = not arguments.strip() or arguments.lstrip().startswith("{")
        return "truncated" if exchanged.finish_reason == "length" and begun else "bad_json"
    if not meets(value, offered[name]["parameters"]) or impossible_days(value):
        return "bad_arguments"
    return "valid" if name == due[1] else "wrong_function"


def meets(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value meets a schema, formats left aside."""
    return bool(Draft202012Validator(schema).is_valid(value))


def impossible_days(value: Any) -> list[str]:
    """Dates that are in no calendar: the server knows how a date is written, and not February."""
    return [day for text in _strings(value) if (day := _day(text)) and not _exists(day)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _day(text: str) -> str | None:
    found = DAY.match(text)
    return found[0] if found else None


def _exists(day: str) -> bool:
    try:
        datetime.date.fromisoformat(day)
    except ValueError:
        return False
    return True
