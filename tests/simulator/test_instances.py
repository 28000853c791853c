"""Values drawn from JSON Schemas: every one is valid, they vary, and what cannot be made is refused."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvswarm.simulator.instances import Impossible, Instances, instances_of
from kvswarm.simulator.refusal import CannotMake

UNHURRIED = settings(deadline=None, max_examples=150)
NAMES = ("a", "b", "c", "d")


def drawn(schema: Any, count: int = 40) -> list[Any]:
    """Values of a schema, each with a seed of its own, as they arrive over JSON."""
    instances = Instances(schema)
    return [
        json.loads(json.dumps(instances.draw(random.Random(seed))))  # noqa: S311 - no secret
        for seed in range(count)
    ]


def scalars() -> st.SearchStrategy[Any]:
    """Schemas of values without parts."""
    integers = st.integers(-50, 50)
    return st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(
            lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
            st.integers(0, 40),
            st.integers(0, 40),
        ),
        st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
                  integers, st.integers(0, 50)),
        st.builds(
            lambda low, more: {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": more},
            st.floats(-9, 0), st.floats(0.001, 9),
        ),
        st.builds(lambda step, low: {"type": "integer", "multipleOf": step, "minimum": low},
                  st.integers(1, 30), integers),
        st.builds(lambda step: {"type": "number", "multipleOf": step},
                  st.sampled_from([0.5, 0.25, 0.1, 2, 7])),
        st.builds(lambda kinds: {"type": kinds},
                  st.lists(st.sampled_from(["string", "integer", "number", "null", "array", "object"]),
                           min_size=1, unique=True)),
        st.builds(lambda values: {"enum": values},
                  st.lists(st.one_of(st.none(), integers, st.text(max_size=5)), min_size=1)),
        st.builds(lambda value: {"const": value}, st.one_of(integers, st.text(max_size=5))),
        st.sampled_from([{"type": "string", "pattern": p} for p in ("^[a-z]{3,8}$", "x[0-9]+", "")]),
        st.just({"$ref": "#/$defs/tree"}),
        st.just({}),
    )  # fmt: skip


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas of objects, arrays and choices of these."""
    properties = st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    return st.one_of(
        st.builds(
            lambda members, picked, extra: {
                "type": "object", "properties": members, "additionalProperties": extra,
                "required": [name for name in picked if name in members],
            },
            properties, st.lists(st.sampled_from(NAMES), unique=True), st.booleans(),
        ),
        st.builds(lambda members, least: {"type": "object", "properties": members,
                                          "minProperties": least}, properties, st.integers(0, 6)),
        st.builds(lambda item, least, more: {"type": "array", "items": item, "minItems": least,
                                             "maxItems": least + more},
                  inner, st.integers(0, 3), st.integers(0, 3)),
        st.builds(lambda first, rest: {"type": "array", "prefixItems": first, "items": rest},
                  st.lists(inner, min_size=1, max_size=3), inner),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda first, second: {"allOf": [{"type": "object", "properties": first},
                                                   {"type": "object", "required": [*second],
                                                    "properties": second}]},
                  properties, properties),
    )  # fmt: skip


TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        "others": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    },
    "required": ["value", "left"],
    "additionalProperties": False,
}


@UNHURRIED
@given(schema=st.recursive(scalars(), larger, max_leaves=8), seed=st.integers(0, 2**32))
def test_every_instance_is_valid_by_another_implementation(schema: Any, seed: int) -> None:
    """The whole point; where two parts contradict each other, it says so instead."""
    whole = {**schema, "$defs": {"tree": TREE}}
    try:
        value = Instances(whole).draw(random.Random(seed))  # noqa: S311 - no secret
    except CannotMake:
        if "allOf" not in str(schema):  # nothing else here can contradict itself
            raise
        return
    Draft202012Validator(whole).validate(json.loads(json.dumps(value)))


@UNHURRIED
@given(schema=st.recursive(scalars(), larger, max_leaves=6), seed=st.integers(0, 2**32))
def test_a_broken_instance_is_never_valid(schema: Any, seed: int) -> None:
    """What is planted as a fault is one; where everything is valid, nothing is planted."""
    whole = {**schema, "$defs": {"tree": TREE}}
    try:
        value = Instances(whole).broken(random.Random(seed))  # noqa: S311 - no secret
    except (CannotMake, Impossible):
        return
    assert not Draft202012Validator(whole).is_valid(json.loads(json.dumps(value)))


def test_an_object_is_broken_in_one_place_and_stays_an_object() -> None:
    """A fault that a client finds only by looking inside."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    broken = Instances(schema).broken(random.Random(1))  # noqa: S311 - no secret
    assert broken == {"n": "seventeen"}
    with pytest.raises(Impossible):
        Instances({}).broken(random.Random(1))  # noqa: S311 - no secret


def test_instances_vary_and_the_seed_repeats_them() -> None:
    """Optional properties come and go, values change."""
    values = drawn(TREE | {"$defs": {"tree": TREE}})
    assert len({json.dumps(value) for value in values}) > 35
    assert {"others" in value for value in values} == {True, False}
    assert any(value["left"] is not None for value in values)
    assert values == drawn(TREE | {"$defs": {"tree": TREE}})


FORMATS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "date-time": datetime.fromisoformat,
    "uuid": uuid.UUID,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uri": lambda text: urlsplit(text).netloc or pytest.fail(text),
    "email": lambda text: re.fullmatch(r"[\w.]+@[\w.]+\.\w+", text) or pytest.fail(text),
    "hostname": lambda text: re.fullmatch(r"[a-z]+(\.[a-z]+)+", text) or pytest.fail(text),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_what_its_own_parser_reads(name: str) -> None:
    """The validator does not check formats unless asked; parsers do."""
    texts = drawn({"type": "string", "format": name})
    for text in texts:
        FORMATS[name](text)
    assert len(set(texts)) > 2


def test_recursion_ends_however_wide_it_is() -> None:
    """Six children each, required in one branch: without a bound it would grow for ever."""
    node = {"$ref": "#/$defs/node"}
    schema = {
        "$defs": {"node": {"anyOf": [
            {"type": "array", "items": node, "minItems": 6, "maxItems": 6}, {"type": "integer"},
        ]}},
        "$ref": "#/$defs/node",
    }  # fmt: skip
    assert {type(value) for value in drawn(schema)} == {list, int}
    assert max(len(json.dumps(value)) for value in drawn(schema)) < 50_000


def test_a_choice_of_itself_leads_to_what_ends() -> None:
    """One way out, and three hundred back to the start."""
    schema = {"anyOf": [{"type": "integer"}, *[{"$ref": "#"}] * 300]}
    assert {type(value) for value in drawn(schema)} == {int}


def test_one_of_several_branches_is_met_by_exactly_one() -> None:
    """`oneOf` is not `anyOf`: 15 would meet both."""
    schema = {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]}
    assert all((value % 3 == 0) != (value % 5 == 0) for value in drawn(schema))


def test_parts_of_all_of_are_met_together() -> None:
    """Bounds narrow, required names add up, and a closed part forbids what it does not name."""
    schema = {
        "allOf": [
            {"type": "object", "properties": {"n": {"type": "number", "minimum": 3}, "x": {}},
             "additionalProperties": False},
            {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}, "y": {}},
             "required": ["n"]},
        ]
    }  # fmt: skip
    values = drawn(schema)
    assert {value["n"] for value in values} == {3, 4, 5}
    assert not any("y" in value for value in values)
    narrow = {"type": "integer", "minimum": 500, "maximum": 501}
    parts = [{"additionalProperties": extra} for extra in ({"type": "number"}, narrow)]
    values = drawn({"type": "object", "minProperties": 2, "allOf": parts})
    assert {one for value in values for one in value.values()} == {500, 501}


def test_large_integers_stay_within_their_bounds() -> None:
    """Beyond 2^53 a float would round them out."""
    low = 2**60 + 1
    assert set(drawn({"type": "integer", "minimum": low, "maximum": low + 1})) <= {low, low + 1}


REFUSED: dict[str, tuple[Any, str]] = {
    "not": ({"not": {"type": "string"}}, "'not'"),
    "if": ({"type": "object", "if": {}}, "'if'"),
    "patterns": ({"type": "object", "patternProperties": {"^a": {}}}, "'patternProperties'"),
    "inside": ({"type": "array", "items": {"contains": {}}}, "'contains'"),
    "referred to": ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}, "'not'"),
    "format": ({"type": "string", "format": "iri"}, "'iri'"),
    "pattern": ({"type": "string", "pattern": "(?=a)b"}, "ASSERT"),
    "no pattern": ({"type": "string", "pattern": "("}, "("),
    "type": ({"type": "text"}, "no JSON Schema"),
    "remote": ({"$ref": "https://example.com/schema"}, "only places in the schema itself"),
    "nowhere": ({"$ref": "#/$defs/none"}, "no such place"),
    "endless": ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "ends"),
    "endless alone": ({"$ref": "#"}, "ends"),
    "false": (False, "ends"),
    "impossible": ({"type": "integer", "minimum": 2, "maximum": 1}, "no value was found"),
    "empty": ({"type": "string", "enum": [1]}, "no value was found"),
    "grows by count": (
        {"type": "object", "minProperties": 2, "additionalProperties": {"$ref": "#"}},
        "no value was found",
    ),
    "two patterns": (
        {"allOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]},
        "two different 'pattern'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_made_is_refused_and_named(name: str) -> None:
    """A wrong answer would be counted against the client that reads it."""
    schema, said = REFUSED[name]
    with pytest.raises(CannotMake, match=re.escape(said)):
        instances_of(schema).draw(random.Random(0))  # noqa: S311 - no secret


def test_words_that_assert_nothing_change_nothing() -> None:
    """Titles, descriptions, defaults, and what only some other tool knows."""
    schema = {"type": "integer", "minimum": 1, "maximum": 3, "title": "N", "x-order": 1}
    assert set(drawn({**schema, "description": "d", "default": 9, "examples": [7]})) == {1, 2, 3}
