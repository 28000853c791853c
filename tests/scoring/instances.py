"""Valid answers for the packaged profiles, made with a seed: what a perfect server would send."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from kvswarm.profiles.features import Constraint, Tool
from kvswarm.workload.answers import Answer, ToolCall
from kvswarm.workload.requests import Expectation, ExpectCalls, ExpectForm

FORMATS = {
    "uuid": "3f2504e0-4f89-41d3-9a0c-0305e82c33{:02d}",
    "email": "ada.{}@example.org",
    "date": "1990-02-{:02d}",
    "date-time": "2031-05-17T10:00:{:02d}.5+02:00",
    "uri": "https://example.org/a%20b?page={}",
}
PATTERNS = {
    "^[A-Z]{2}-[0-9]{6}$": "AB-1234{:02d}",
    "^[A-Z]{2}$": "GB",
    "^[A-Z]{3}[0-9]{4}$": "XYZ10{:02d}",
}


class Maker:
    """Makes values that meet a schema, for the keywords that the packaged schemas use."""

    def __init__(self, schema: Mapping[str, Any], rng: random.Random) -> None:
        self.root = schema
        self.rng = rng

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """Make one value."""
        rng = self.rng
        if "$ref" in schema:
            return self.value(self.root["$defs"][schema["$ref"].rpartition("/")[2]], depth)
        if "const" in schema:
            return schema["const"]
        for choice in ("enum", "anyOf"):
            if choice in schema:
                chosen = rng.choice(schema[choice])
                return chosen if choice == "enum" else self.value(chosen, depth)
        kind = schema["type"]
        kind = rng.choice(kind) if isinstance(kind, list) else kind
        if kind == "object":
            return self.object(schema, depth)
        if kind == "array":
            return self.array(schema, depth)
        return self.scalar(kind, schema)

    def object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """Make an object: what is required, and some of the rest."""
        wanted = schema.get("required", ())
        return {
            name: self.value(part, depth + 1)
            for name, part in schema["properties"].items()
            if name in wanted or self.rng.random() < 0.5
        }

    def array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        """Make a list, the shortest one where it is nested deep already."""
        fewest = schema.get("minItems", 0)
        count = self.rng.randint(fewest, fewest if depth > 4 else schema["maxItems"])
        return [self.value(schema["items"], depth + 1) for _ in range(count)]

    def scalar(self, kind: str, schema: Mapping[str, Any]) -> Any:
        """Make what holds nothing."""
        if kind == "string":
            return self.text(schema)
        if kind in ("integer", "number"):
            number = self.rng.uniform(schema["minimum"], schema["maximum"])
            return int(number) if kind == "integer" else round(number, 3)
        return {"boolean": self.rng.random() < 0.5, "null": None}[kind]

    def text(self, schema: Mapping[str, Any]) -> str:
        """Make a string."""
        which = self.rng.randint(1, 28)
        if "format" in schema:
            return FORMATS[schema["format"]].format(which)
        if "pattern" in schema:
            return PATTERNS[schema["pattern"]].format(which)
        return f'Größe "{which}"\n'[: schema["maxLength"]]


def good_form(constraint: Constraint, rng: random.Random) -> tuple[Expectation, Answer]:
    """An answer that has the form, with what was expected."""
    if constraint.kind == "json":
        value = Maker(constraint.json, rng).value(constraint.json)
        indent, ascii_only = rng.choice([None, 2]), rng.random() < 0.5
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        text = rng.choice(["", "\n", "  "]) + text + rng.choice(["", "\n\n"])
    elif constraint.kind == "choice":
        text = rng.choice(constraint.choice)
    else:
        text = f"20{rng.randint(10, 99)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return ExpectForm(constraint=constraint), Answer(text=text, finish_reason="stop")


def call_of(tool: Tool, rng: random.Random) -> ToolCall:
    """A sound call of a function."""
    arguments = Maker(tool.parameters, rng).value(tool.parameters)
    return ToolCall(id=f"call-{rng.random()}", name=tool.name, arguments=json.dumps(arguments))


def good_calls(tools: tuple[Tool, ...], due: int, rng: random.Random) -> tuple[ExpectCalls, Answer]:
    """An answer that makes the `due` calls that were asked for, in any order."""
    chosen = rng.sample(tools, due)
    expected = ExpectCalls(offered=tools, names=tuple(tool.name for tool in chosen))
    if not chosen:
        return expected, Answer(text="It is fine.", finish_reason="stop")
    calls = [call_of(tool, rng) for tool in rng.sample(chosen, due)]
    return expected, Answer(tool_calls=tuple(calls), finish_reason="tool_calls")
