"""What an answer is held to: `response_format` and vLLM's `structured_outputs`.

In:  a request body.  Out: a `Constraint` that draws texts, or None.
Not: tools (`tools.py`). The older `guided_*` keys are ignored without a word, as vLLM does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from kvswarm.simulator.grammar import Grammar, grammar_of
from kvswarm.simulator.instances import Impossible, Instances, instances_of
from kvswarm.simulator.patterns import PatternTexts, pattern_texts
from kvswarm.simulator.refusal import CannotMake, RequestError

ONE_OF: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
ANY_OBJECT: Final = {"type": "object"}


class Constraint(Protocol):
    """A rule that an answer keeps."""

    @property
    def kind(self) -> str:
        """`json`, `regex`, `choice` or `grammar`."""

    def draw(self, rng: random.Random) -> str:
        """A text that keeps the rule. Raises CannotMake."""

    def broken(self, rng: random.Random) -> str | None:
        """A text that breaks it, of JSON where that was asked for; None where there is none."""


@dataclass(frozen=True, slots=True)
class JsonRule:
    """JSON that is valid for a schema."""

    instances: Instances
    kind: str = "json"

    def draw(self, rng: random.Random) -> str:
        """A document. Raises CannotMake."""
        return json_text(self.instances.draw(rng))

    def broken(self, rng: random.Random) -> str | None:
        """A document that violates the schema."""
        try:
            return json_text(self.instances.broken(rng))
        except Impossible:
            return None


@dataclass(frozen=True, slots=True)
class RegexRule:
    """A text that a regular expression matches from end to end."""

    texts: PatternTexts
    kind: str = "regex"

    def draw(self, rng: random.Random) -> str:
        """A text. Raises CannotMake."""
        return self.texts.whole(rng)

    def broken(self, rng: random.Random) -> str | None:
        """A text that is not matched."""
        candidates = [self.draw(rng) + "!", "?", "no match"]
        return next((text for text in candidates if not self.texts.compiled.fullmatch(text)), None)


@dataclass(frozen=True, slots=True)
class ChoiceRule:
    """One of some texts."""

    choices: tuple[str, ...]
    kind: str = "choice"

    def draw(self, rng: random.Random) -> str:
        """One of them."""
        return rng.choice(self.choices)

    def broken(self, rng: random.Random) -> str | None:
        """None of them."""
        text = self.draw(rng)
        while text in self.choices:
            text += "?"
        return text


@dataclass(frozen=True, slots=True)
class GrammarRule:
    """A text of a grammar."""

    grammar: Grammar
    kind: str = "grammar"

    def draw(self, rng: random.Random) -> str:
        """A text. Raises CannotMake."""
        return self.grammar.draw(rng)

    def broken(self, rng: random.Random) -> str | None:  # noqa: ARG002 - as the others
        """None: nothing here can tell a text of the grammar from another."""
        return None


def json_text(value: Any) -> str:
    """JSON as models write it: a space after commas and colons, characters as they are."""
    return json.dumps(value, ensure_ascii=False)


def malformed_json(text: str) -> str:
    """The text with as little wrong as makes it no JSON."""
    for candidate in (text[:-1], text + "}"):
        try:
            json.loads(candidate)
        except ValueError:
            return candidate
    raise AssertionError("a document with one bracket too many is no JSON")


def constraint_of(plain: dict[str, Any]) -> Constraint | None:
    """What a request body asks for. Raises RequestError, with 400."""
    asked = plain.get("structured_outputs")
    if asked is not None and not isinstance(asked, dict):
        raise RequestError(400, "structured_outputs: an object is required")
    given = {key: asked[key] for key in ONE_OF if asked.get(key) is not None} if asked else {}
    if asked is not None and not given:
        raise RequestError(
            400, "You must use one kind of structured outputs constraint but none are specified: "
            + ", ".join(ONE_OF)
        )  # fmt: skip
    given |= _response_format(plain.get("response_format"), given)
    if len(given) > 1:
        raise RequestError(
            400, "You can only use one kind of structured outputs constraint but multiple are "
            "specified: " + ", ".join(given)
        )  # fmt: skip
    for kind, value in given.items():
        try:
            return _rule(kind, value)
        except (CannotMake, RecursionError) as error:
            raise RequestError(400, f"structured outputs, {kind}: {error}") from error
    return None


def _response_format(asked: Any, given: dict[str, Any]) -> dict[str, Any]:
    """`response_format` as a key of `structured_outputs`."""
    if asked is None:
        return {}
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        # Beside a `json` of structured_outputs it is one more, and not the same.
        return {"json_object": True}
    if kind != "json_schema":
        raise RequestError(
            400, "response_format.type must be one of text, json_object, json_schema"
        )
    wrapped = asked.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    if schema is None:
        raise RequestError(400, "response_format.json_schema.schema is required")
    return {"response_format" if "json" in given else "json": schema}


def _rule(kind: str, value: Any) -> Constraint:
    """The rule of a key. Raises CannotMake."""
    if kind not in RULES:
        raise CannotMake("not supported")
    return RULES[kind](value)


def _json_rule(value: Any) -> Constraint:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise CannotMake(f"no JSON: {error}") from error
    if not isinstance(value, dict | bool):
        raise CannotMake("a JSON Schema is an object")
    return JsonRule(instances_of(value))


def _object_rule(value: Any) -> Constraint:
    if value is not True:
        raise CannotMake("it can only be true")
    return JsonRule(instances_of(ANY_OBJECT))


def _choice_rule(value: Any) -> Constraint:
    texts = value if isinstance(value, list) else []
    if not texts or not all(isinstance(one, str) and one for one in texts):
        raise CannotMake("a list of at least one text is required")
    return ChoiceRule(tuple(texts))


def _text_of(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise CannotMake("a text is required")
    return value


RULES: Final[dict[str, Callable[[Any], Constraint]]] = {
    "json": _json_rule,
    "json_object": _object_rule,
    "choice": _choice_rule,
    "regex": lambda value: RegexRule(pattern_texts(_text_of(value))),
    "grammar": lambda value: GrammarRule(grammar_of(_text_of(value))),
}
