"""Structured output as a client sees it: `response_format`, `structured_outputs`, their ends and errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parent))
from simulating import CHAT, COMPLETIONS, FAST, Answer, Server, simulating

BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "\u00e9"]}, "minItems": 1},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
VALID = Draft202012Validator(SCHEMA)
GRAMMAR = 'root ::= "yes" | "no" [0-9]{1,3}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One quick simulator."""
    with simulating(*FAST) as running:
        yield running


def by_schema(schema: Any = SCHEMA) -> dict[str, Any]:
    """OpenAI's way of asking for a schema."""
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}


def end_of(answer: Answer) -> Any:
    """The finish_reason of a stream."""
    [reason] = {c["finish_reason"] for chunk in answer.chunks() for c in chunk["choices"]} - {None}
    return reason


@BOTH
def test_a_schema_gives_a_valid_document_that_stops_where_it_is_complete(
    path: str, server: Server
) -> None:
    """Cut into tokens of four characters, and no longer for `ignore_eos`."""
    options = {"include_usage": True}
    asked = {"max_tokens": 500, "response_format": by_schema(), "stream_options": options}
    answers = [server.ask(path, stream=True, **asked) for _ in range(10)]
    for answer in answers:
        tokens = answer.tokens()
        VALID.validate(json.loads("".join(tokens)))
        assert {len(token) for token in tokens[:-1]} == {4}
        assert end_of(answer) == "stop"
        assert answer.chunks()[-1]["usage"]["completion_tokens"] == len(tokens)
    assert len({"".join(answer.tokens()) for answer in answers}) == 10


ASKED: dict[str, tuple[dict[str, Any], Any]] = {
    "json": ({"structured_outputs": {"json": SCHEMA}}, lambda t: VALID.is_valid(json.loads(t))),
    "json as text": (
        {"structured_outputs": {"json": json.dumps(SCHEMA)}},
        lambda t: VALID.is_valid(json.loads(t)),
    ),
    "any json": ({"response_format": {"type": "json_object"}}, lambda t: json.loads(t).keys()),
    "any object": ({"structured_outputs": {"json_object": True}}, lambda t: json.loads(t).keys()),
    "regex": (
        {"structured_outputs": {"regex": r"\d{3}-[a-f]+"}},
        lambda t: re.fullmatch(r"\d{3}-[a-f]+", t),
    ),
    "choice": (
        {"structured_outputs": {"choice": ["positive", "negative"]}},
        lambda t: t in {"positive", "negative"},
    ),
    "grammar": (
        {"structured_outputs": {"grammar": GRAMMAR}},
        lambda t: re.fullmatch("yes|no[0-9]{1,3}", t),
    ),
}


@BOTH
@pytest.mark.parametrize("name", ASKED)
def test_every_way_of_asking_is_answered_as_asked(path: str, name: str, server: Server) -> None:
    """In one body, too."""
    asked, right = ASKED[name]
    for _ in range(5):
        [choice] = server.ask(path, max_tokens=400, **asked).json()["choices"]
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        assert right(text), text
        assert choice["finish_reason"] == "stop"


def test_the_limit_cuts_a_document(server: Server) -> None:
    """As in vLLM: the client gets half a document, and `length`."""
    answer = server.ask(stream=True, max_tokens=3, response_format=by_schema())
    assert len(answer.tokens()) == 3
    assert end_of(answer) == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads("".join(answer.tokens()))


def test_the_seed_and_the_number_of_the_request_give_the_document() -> None:
    """Streamed or not, with exact times or the engine's."""

    def texts(*options: str, stream: bool) -> list[str]:
        with simulating("--seed", "5", *options) as running:
            asked = {"max_tokens": 400, "response_format": by_schema(), "stream": stream}
            answers = [running.ask(**asked) for _ in range(4)]
        if stream:
            return ["".join(answer.tokens()) for answer in answers]
        return [answer.json()["choices"][0]["message"]["content"] for answer in answers]

    first = texts(*FAST, stream=True)
    assert first == texts(*FAST, stream=False) == texts("--exact", "1", "0.1", stream=True)
    assert len(set(first)) == 4


def test_text_and_the_older_keys_change_nothing(server: Server) -> None:
    """vLLM ignores `guided_json` and its like without a word."""
    for asked in (
        {"response_format": {"type": "text"}},
        {"guided_json": SCHEMA, "guided_choice": ["a"], "guided_regex": "a"},
        {"response_format": None, "structured_outputs": None},
    ):
        answer = server.ask(stream=True, max_tokens=30, **asked)
        assert len(answer.tokens()) == 30
        assert end_of(answer) == "length"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "none of them": ({"structured_outputs": {}}, "none are specified"),
    "two of them": (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "multiple are specified: regex, choice",
    ),
    "two ways": (
        {"structured_outputs": {"json": SCHEMA}, "response_format": by_schema()},
        "multiple are specified",
    ),
    "no object": ({"structured_outputs": "json"}, "an object is required"),
    "unknown keyword": ({"response_format": by_schema({"not": {}})}, "'not' is not supported"),
    "no schema": ({"response_format": by_schema(7)}, "a JSON Schema is an object"),
    "no JSON": ({"structured_outputs": {"json": "{"}}, "no JSON"),
    "nothing meets it": (
        {"response_format": by_schema({"type": "integer", "minimum": 2, "maximum": 1})},
        "no value was found",
    ),
    "schema missing": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
        "response_format.json_schema.schema is required",
    ),
    "unknown type": ({"response_format": {"type": "xml"}}, "response_format.type must be"),
    "no type": ({"response_format": "json_object"}, "response_format.type must be"),
    "no regex": ({"structured_outputs": {"regex": "("}}, "regular expression"),
    "empty regex": ({"structured_outputs": {"regex": ""}}, "a text is required"),
    "lookahead": ({"structured_outputs": {"regex": "(?=a)b"}}, "ASSERT is not supported"),
    "no choice": ({"structured_outputs": {"choice": []}}, "at least one text"),
    "odd choice": ({"structured_outputs": {"choice": [1]}}, "at least one text"),
    "lark": ({"structured_outputs": {"grammar": 'start: "a"'}}, "grammar: not understood"),
    "no object wanted": ({"structured_outputs": {"json_object": False}}, "only be true"),
    "tag": ({"structured_outputs": {"structural_tag": "x"}}, "not supported"),
    "deep": (
        {"structured_outputs": {"json": "[" * 5000 + "]" * 5000}},
        "structured outputs, json",
    ),
}


@BOTH
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_is_a_400_that_says_why(
    name: str, path: str, server: Server
) -> None:
    """Plain JSON, before any stream, and never a wrong answer."""
    asked, said = BAD[name]
    answer = server.ask(path, stream=True, **asked)
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert said in error["message"]
