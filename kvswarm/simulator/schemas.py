"""JSON Schema as the instance generator needs it: checked, references found, parts merged.

In:  a schema as a client sends it.  Out: `Node`s: one flat set of keywords each, and how deep the
smallest instance of a schema is, so that recursion ends.
Not: drawing values (`instances.py`).
Source: JSON Schema 2020-12. Keywords that assert something and are not known here are refused:
vLLM refuses what its grammar backend cannot express. Annotations and unknown words assert nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from kvswarm.simulator.formats import FORMAT_TEXTS
from kvswarm.simulator.patterns import pattern_texts
from kvswarm.simulator.refusal import CannotMake

Schema = dict[str, Any] | bool
Node = dict[str, Any]

UNSUPPORTED: Final = frozenset({
    "not", "if", "then", "else", "patternProperties", "propertyNames", "contains", "minContains",
    "maxContains", "dependentRequired", "dependentSchemas", "dependencies", "additionalItems",
    "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef",
})  # fmt: skip
FORMATS: Final = frozenset(FORMAT_TEXTS)
TYPES: Final = ("object", "array", "string", "integer", "number", "boolean", "null")
LEAST: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
MOST: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
SINGLE: Final = frozenset({"multipleOf", "pattern", "format"})
COMBINERS: Final = ("allOf", "anyOf", "oneOf")
NEVER: Final = math.inf


class Document:
    """One schema document. Raises CannotMake where it is no schema, or has what is not known."""

    def __init__(self, root: Schema) -> None:
        try:
            Draft202012Validator.check_schema(root)
        except SchemaError as error:
            raise CannotMake(f"no JSON Schema: {error.message} at {error.json_path}") from error
        self.root = root
        self._heights: dict[str, float] = {}
        self._references: set[str] = set()
        self._check(root)
        self._measure()

    def _check(self, schema: Schema) -> None:
        if isinstance(schema, bool):
            return
        for word in schema:
            if word in UNSUPPORTED:
                raise CannotMake(f"JSON Schema keyword {word!r} is not supported")
        if schema.get("format") is not None and schema["format"] not in FORMATS:
            raise CannotMake(f"JSON Schema format {schema['format']!r} is not supported")
        if "pattern" in schema:
            pattern_texts(schema["pattern"])
        reference = schema.get("$ref")
        if reference is not None and reference not in self._references:
            self._references.add(reference)
            self._check(self.find(reference))
        for part in parts_of(schema):
            self._check(part)

    def find(self, reference: str) -> Schema:
        """What a reference into the document names. Raises CannotMake."""
        found: Any = self.root
        pointer = reference.removeprefix("#")
        if pointer == reference or (pointer and not pointer.startswith("/")):
            raise CannotMake(f"$ref {reference!r}: only places in the schema itself are supported")
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (LookupError, ValueError, TypeError):
                raise CannotMake(f"$ref {reference!r}: there is no such place") from None
        if not isinstance(found, dict | bool):
            raise CannotMake(f"$ref {reference!r}: no schema is there")
        return found

    def _measure(self) -> None:
        """Heights of what is referred to: a fixed point, as schemas may refer to themselves."""
        self._heights = dict.fromkeys(self._references, NEVER)
        changed = True
        while changed:
            changed = False
            for reference in self._references:
                height = self.height(self.find(reference))
                if height < self._heights[reference]:
                    self._heights[reference] = height
                    changed = True

    def height(self, schema: Schema) -> float:
        """Levels of the smallest instance below its top; NEVER where none ends."""
        if isinstance(schema, bool):
            return 0 if schema else NEVER
        # A reference is a level too: of a choice between a value and itself it is the worse.
        height = 1 + self._heights[schema["$ref"]] if "$ref" in schema else 0.0
        for part in schema.get("allOf", ()):
            height = max(height, self.height(part))
        for word in ("anyOf", "oneOf"):
            if word in schema:
                height = max(height, min(map(self.height, schema[word])))
        if "enum" in schema or "const" in schema:
            return height
        kinds = types_of(schema)
        if "object" in kinds and len(kinds) == 1:
            properties = schema.get("properties", {})
            wanted = [properties.get(name, True) for name in schema.get("required", ())]
            height = max([height, *(1 + self.height(part) for part in wanted)])
        if "array" in kinds and len(kinds) == 1:
            wanted = [item_of(schema, place) for place in range(int(schema.get("minItems", 0)))]
            height = max([height, *(1 + self.height(part) for part in wanted)])
        return height


def parts_of(schema: Node) -> list[Schema]:
    """The schemas right inside a schema, but for its definitions, which count where referred to."""
    parts: list[Schema] = [*schema.get("properties", {}).values(), *schema.get("prefixItems", ())]
    parts += [schema[word] for word in ("items", "additionalProperties") if word in schema]
    for word in COMBINERS:
        parts += schema.get(word, ())
    return parts


def types_of(schema: Node) -> tuple[str, ...]:
    """The types that a schema allows; where it names none, those that its keywords speak of."""
    told = schema.get("type")
    if isinstance(told, str):
        return (told,)
    if told is not None:
        return tuple(told)
    for words, kind in (
        (("properties", "required", "additionalProperties", "minProperties"), "object"),
        (("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
        (("pattern", "format", "minLength", "maxLength"), "string"),
        (("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
    ):
        if any(word in schema for word in words):
            return (kind,)
    return TYPES


def item_of(schema: Node, place: int) -> Schema:
    """The schema of one item of an array."""
    prefix: list[Schema] = schema.get("prefixItems", [])
    items: Schema = schema.get("items", True)
    return prefix[place] if place < len(prefix) else items


def merged(first: Schema, second: Schema) -> Schema:
    """A schema for what meets both. Both are free of references and of combiners at their top."""
    if isinstance(first, bool) or isinstance(second, bool):
        return (second if first is True else first) if first is not False else False
    whole: Node = {**first}
    for word, value in second.items():
        if word not in first:
            whole[word] = value
        elif word in MERGERS:
            whole[word] = MERGERS[word](first[word], value)
        elif word in SINGLE and value != first[word]:
            raise CannotMake(f"two different {word!r} for one value are not supported")
    if "type" in first and "type" in second:
        whole["type"] = _common_types(types_of(first), types_of(second))
        if not whole["type"]:
            return False
    _merge_members(first, second, whole)
    return whole


def _common_types(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    common = [kind for kind in first if kind in second]
    if "integer" not in common and {"integer", "number"} <= {*first, *second}:
        common.append("integer")  # every integer is a number
    return common


def _both(first: Schema, second: Schema) -> Schema:
    if isinstance(first, bool) or isinstance(second, bool):
        return merged(first, second)
    return first if first == second else {"allOf": [first, second]}


MERGERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **dict.fromkeys(LEAST, min),
    **dict.fromkeys(MOST, max),
    "required": lambda first, second: [*dict.fromkeys([*first, *second])],
    "enum": lambda first, second: [one for one in first if one in second],
    "uniqueItems": lambda first, second: first or second,
    "items": _both,
    "additionalProperties": _both,
}
"""How two values of a keyword become one that is as strict as both."""


def _merge_members(first: Node, second: Node, whole: Node) -> None:
    """A property or item that one schema names, where the other has a rule for all."""
    names = [*first.get("properties", {}), *second.get("properties", {})]
    if names:
        whole["properties"] = {
            name: _both(
                *(
                    part.get("properties", {}).get(name, part.get("additionalProperties", True))
                    for part in (first, second)
                )
            )
            for name in names
        }
    longest = max(len(part.get("prefixItems", ())) for part in (first, second))
    if longest:
        whole["prefixItems"] = [
            _both(item_of(first, place), item_of(second, place)) for place in range(longest)
        ]
