"""JSON values that a schema allows, drawn with a seed.

In:  a JSON Schema.  Out: values; every one is validated before it is given.
Not: what a schema may hold (`schemas.py`); cutting into tokens (`answers.py`).

Optional properties, lengths and branches are drawn; a document that grows deep or large is brought
to its end by the smallest ways.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator

from kvswarm.simulator.formats import FORMAT_TEXTS
from kvswarm.simulator.patterns import pattern_texts
from kvswarm.simulator.refusal import CannotMake
from kvswarm.simulator.schemas import (
    COMBINERS,
    NEVER,
    Document,
    Node,
    Schema,
    item_of,
    merged,
    types_of,
)

TRIES: Final = 40
SOFT_DEPTH: Final = 5
SOFT_VALUES: Final = 150
"""From here on: no optional properties, the shortest arrays, the smallest branches."""
HARD_DEPTH: Final = 60
HARD_VALUES: Final = 20_000
OPTIONAL_SHARE: Final = 0.7
SPAN: Final = 1000
MAX_ITEMS: Final = 10_000
WORDS: Final = (
    "amber", "river", "stone", "quiet", "north", "paper", "seven", "cloud", "garden", "caf\u00e9",
    "window", "silver", "\u6c34", "market", "orange", "copper", '"note"', "line\nbreak",
    "\U0001f642",
)  # fmt: skip
KEYS: Final = ("name", "kind", "value", "count", "note", "id", "label", "total")
BROKEN: Final[tuple[Any, ...]] = (None, "x", -1.5, [], {}, True, {"unexpected": None})


class Impossible(Exception):  # noqa: N818 - no error: this way of drawing leads nowhere
    """Nothing meets what is asked at this place."""


class Instances:
    """The instances of one schema. Raises CannotMake where it has what is not known."""

    def __init__(self, schema: Schema) -> None:
        self._document = Document(schema)
        self._validator = Draft202012Validator(schema)
        if self._document.height(schema) == NEVER:
            raise CannotMake("the JSON Schema has no instance that ends")

    def draw(self, rng: random.Random) -> Any:
        """A value that is valid. Raises CannotMake where none was found."""
        for _ in range(TRIES):
            try:
                value = _Drawing(self._document, rng).value(self._document.root, 0)
            except Impossible:
                continue
            if self._validator.is_valid(value):
                return value
        raise CannotMake("no value was found that meets the JSON Schema")

    def broken(self, rng: random.Random) -> Any:
        """A value that is not valid, or Impossible raised where every value is."""
        value = self.draw(rng)
        candidates = [*_damaged(value), *rng.sample(BROKEN, len(BROKEN))]
        for candidate in candidates:
            if not self._validator.is_valid(candidate):
                return candidate
        raise Impossible


@lru_cache(maxsize=256)
def _instances(schema_json: bytes) -> Instances:
    return Instances(msgspec.json.decode(schema_json))


def instances_of(schema: Any) -> Instances:
    """The instances of a schema; one seen before is not checked again. Raises CannotMake."""
    return _instances(msgspec.json.encode(schema))


def _damaged(value: Any) -> list[Any]:
    """The value with one thing wrong: a property missing, or of another type."""
    if not isinstance(value, dict):
        return []
    without = [{k: v for k, v in value.items() if k != name} for name in value]
    changed = [
        {**value, name: 17 if isinstance(one, str) else "seventeen"} for name, one in value.items()
    ]
    return [*changed, *without, {**value, "unexpected": None}]


class _Drawing:
    """One value on its way."""

    def __init__(self, document: Document, rng: random.Random) -> None:
        self._document = document
        self._rng = rng
        self._values = 0

    def value(self, schema: Schema, depth: int) -> Any:
        """Draw a value of a schema."""
        node = self._flat(schema, depth)
        self._values += 1
        if node is False or depth > HARD_DEPTH or self._values > HARD_VALUES:
            raise Impossible
        if node is True:
            node = {}
        if "enum" in node:
            kinds = types_of({"type": node["type"]}) if "type" in node else None
            fitting = [one for one in node["enum"] if kinds is None or _is_of(one, kinds)]
            if not fitting:
                raise Impossible
            return self._rng.choice(fitting)
        kinds = types_of(node)
        plain = [kind for kind in kinds if kind not in {"object", "array"}]
        kind = self._rng.choice(plain if plain and self._small(depth) else kinds)
        if kind == "object":
            return self._object(node, depth)
        if kind == "array":
            return self._array(node, depth)
        if kind == "string":
            return self._string(node)
        if kind == "boolean":
            return self._rng.random() < 0.5  # noqa: PLR2004 - even
        return None if kind == "null" else self._number(node, whole=kind == "integer")

    def _small(self, depth: int) -> bool:
        return depth >= SOFT_DEPTH or self._values >= SOFT_VALUES

    def _flat(self, schema: Schema, depth: int) -> Schema:
        """The schema without references and combiners: one branch is drawn of each choice."""
        if isinstance(schema, bool):
            return schema
        flat: Schema = {k: v for k, v in schema.items() if k not in {*COMBINERS, "$ref", "const"}}
        if "const" in schema:
            flat = merged(flat, {"enum": [schema["const"]]})
        if "$ref" in schema:
            flat = merged(flat, self._flat(self._document.find(schema["$ref"]), depth + 1))
        for part in schema.get("allOf", ()):
            flat = merged(flat, self._flat(part, depth))
        for word in ("anyOf", "oneOf"):
            if word in schema:
                flat = merged(flat, self._flat(self._branch(schema[word], depth), depth + 1))
        return flat

    def _branch(self, branches: list[Schema], depth: int) -> Schema:
        heights = [self._document.height(branch) for branch in branches]
        least = min(heights)
        limit = least if self._small(depth) else NEVER
        fitting = [
            branch
            for branch, height in zip(branches, heights, strict=True)
            if height == least or height < limit
        ]
        return self._rng.choice(fitting)

    def _object(self, node: Node, depth: int) -> dict[str, Any]:
        properties: dict[str, Schema] = node.get("properties", {})
        extra: Schema = node.get("additionalProperties", True)
        required = node.get("required", [])
        small = self._small(depth)
        most = node.get("maxProperties", math.inf)
        room = most - len(set(required))
        value: dict[str, Any] = {}
        for name, schema in properties.items():
            if name in required:
                value[name] = self.value(schema, depth + 1)
            elif self._wants(schema, small=small) and room > 0:
                try:
                    value[name] = self.value(schema, depth + 1)
                    room -= 1
                except Impossible:
                    continue  # nothing can stand there, so it is left out
        for name in required:
            if name not in value:
                value[name] = self.value(extra, depth + 1)
        least = int(node.get("minProperties", 0))
        if not properties and not small and extra is not False:
            least = max(least, self._rng.randint(1, 3))
        names = [name for name in properties if name not in value]
        names += [name for name in KEYS if name not in properties] if extra is not False else []
        names += [f"key{place}" for place in range(least)] if extra is not False else []
        for name in names:
            if len(value) >= min(least, most):
                break
            value.setdefault(name, self.value(properties.get(name, extra), depth + 1))
        return value

    def _wants(self, schema: Schema, *, small: bool) -> bool:
        drawn = self._rng.random() < OPTIONAL_SHARE
        return drawn and not small and self._document.height(schema) < NEVER

    def _array(self, node: Node, depth: int) -> list[Any]:
        least = int(node.get("minItems", 0))
        longest = max(least + 3, len(node.get("prefixItems", ())))
        most = int(min(node.get("maxItems", math.inf), longest, MAX_ITEMS))
        if least > most:
            raise Impossible
        count = least if self._small(depth) else self._rng.randint(least, most)
        items: list[Any] = []
        for place in range(count):
            schema = item_of(node, place)
            if place >= least and self._document.height(schema) == NEVER:
                break
            try:
                items.append(self._item(schema, items if node.get("uniqueItems") else [], depth))
            except Impossible:
                if place < least:
                    raise
                break
        return items

    def _item(self, schema: Schema, others: list[Any], depth: int) -> Any:
        for _ in range(TRIES):
            item = self.value(schema, depth + 1)
            if item not in others:
                return item
        raise Impossible

    def _string(self, node: Node) -> str:
        least, most = int(node.get("minLength", 0)), node.get("maxLength", math.inf)
        if least > most:
            raise Impossible
        if "pattern" in node:
            texts = pattern_texts(node["pattern"])
            return texts.draw(
                self._rng,
                lambda text: least <= len(text) <= most and bool(texts.compiled.search(text)),
            )
        if "format" in node:
            text = FORMAT_TEXTS[node["format"]](self._rng)
            if not least <= len(text) <= most:
                raise Impossible
            return text
        wanted = self._rng.randint(least, int(min(most, least + 24)))
        text = " ".join(self._rng.choices(WORDS, k=2 + wanted // 4))[:wanted]
        return text.ljust(wanted, "x")

    def _number(self, node: Node, *, whole: bool) -> float:
        low, high = _bounds(node)
        step = node.get("multipleOf")
        if step is None and (whole or self._rng.random() < 0.3):  # noqa: PLR2004 - some of them
            step = 1
        if step is not None:
            if whole and step != int(step):
                step = 1  # the check afterwards finds those that are multiples
            try:
                first, last = int(-(-low // step)), int(high // step)
            except OverflowError:
                raise Impossible from None
            if first <= last:
                return self._multiple(step, first, last)
            if whole or "multipleOf" in node:
                raise Impossible
        value = self._rng.uniform(low, high)
        rounded = round(value, 2)
        return rounded if low <= rounded <= high else value

    def _multiple(self, step: float, first: int, last: int) -> float:
        times = self._rng.randint(first, last)
        if isinstance(step, int) or step == int(step):
            return times * int(step)
        return round(times * step, 10)  # 3 * 0.1 is 0.3 in JSON, whatever binary makes of it


def _bounds(node: Node) -> tuple[float, float]:
    """The least and the greatest number that a schema allows; a span where it sets no limit."""
    lows = [node["minimum"]] if "minimum" in node else []
    highs = [node["maximum"]] if "maximum" in node else []
    # The next number inside; an integer is found by rounding up from it.
    lows += [_next(node[word], 1) for word in ("exclusiveMinimum",) if word in node]
    highs += [_next(node[word], -1) for word in ("exclusiveMaximum",) if word in node]
    low, high = max(lows, default=None), min(highs, default=None)
    if low is None:
        low = 0 if high is None else high - SPAN
    if high is None:
        high = low + SPAN
    if low > high:
        raise Impossible
    return low, high


def _next(value: float, direction: int) -> float:
    return math.nextafter(value, direction * math.inf)


def _is_of(value: Any, kinds: tuple[str, ...]) -> bool:
    """Whether a value is of one of these types, as JSON Schema has them."""
    checker = Draft202012Validator.TYPE_CHECKER
    return any(checker.is_type(value, kind) for kind in kinds)
