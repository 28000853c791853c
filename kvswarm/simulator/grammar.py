"""Texts of a small EBNF grammar, drawn with a seed.

In:  rules as xgrammar writes them: `root ::= "yes" | "no" digit{1,3}`, with groups, sets of
     characters, `? * + {m,n}` and comments.  Out: texts of the rule `root`.
Not: Lark's syntax, lookaheads: refused.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from kvswarm.simulator.patterns import PatternTexts, pattern_texts
from kvswarm.simulator.refusal import CannotMake

TOKEN: Final = re.compile(
    r"""
    (?P<space> \s+ | \#[^\n]* )
    | (?P<rule> [A-Za-z_][\w-]* (?=\s*::=) )
    | (?P<is> ::= )
    | (?P<name> [A-Za-z_][\w-]* )
    | (?P<text> "(?:[^"\\\n]|\\.)*" )
    | (?P<set> \[(?:[^\]\\]|\\.)*\] )
    | (?P<times> [?*+] | \{\d+(?:,\d*)?\} )
    | (?P<sign> [|()] )
    """,
    re.VERBOSE,
)
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
SOFT_DEPTH: Final = 12
MAX_CHARS: Final = 100_000
SPREAD: Final = 4


@dataclass
class Part:
    """A text, a set of characters, a rule by its name, or alternatives; and how often."""

    text: str | None = None
    chars: PatternTexts | None = None
    rule: str | None = None
    choices: list[list[Part]] = field(default_factory=list)
    least: int = 1
    most: int | None = 1


class Grammar:
    """The texts of a grammar. Raises CannotMake where it is not understood."""

    def __init__(self, source: str) -> None:
        self._tokens = _tokens(source)
        self._rules: dict[str, list[list[Part]]] = {}
        while self._tokens:
            self._rule()
        if "root" not in self._rules:
            raise CannotMake("grammar: there is no rule `root ::= ...`")
        self._heights = dict.fromkeys(self._rules, math.inf)
        changed = True
        while changed:
            changed = False
            for name, choices in self._rules.items():
                height = 1 + min(map(self._height, choices))
                changed |= height < self._heights[name]
                self._heights[name] = min(height, self._heights[name])
        if self._heights["root"] == math.inf:
            raise CannotMake("grammar: no text of `root` ends")

    def draw(self, rng: random.Random) -> str:
        """A text of the grammar. Raises CannotMake where it grows too long."""
        pieces: list[str] = []
        self._draw(self._rules["root"], _Walk(rng, pieces.append), 0)
        return "".join(pieces)

    def _rule(self) -> None:
        kind, name = self._tokens.pop(0)
        if kind != "rule" or not self._tokens or self._tokens.pop(0)[0] != "is":
            raise CannotMake(f"grammar: a rule was expected at {name!r}")
        self._rules[name] = self._choices()

    def _choices(self) -> list[list[Part]]:
        choices: list[list[Part]] = [[]]
        while self._tokens:
            kind, text = self._tokens[0]
            if kind == "rule" or text == ")":
                break
            self._tokens.pop(0)
            if text == "|" and kind == "sign":
                choices.append([])
            elif kind == "times":
                if not choices[-1]:
                    raise CannotMake(f"grammar: {text!r} has nothing to repeat")
                choices[-1][-1] = _repeated(choices[-1][-1], text)
            else:
                choices[-1].append(self._part(kind, text))
        return choices

    def _part(self, kind: str, text: str) -> Part:
        if kind == "text":
            return Part(text=re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text[1:-1]))
        if kind == "set":
            return Part(chars=pattern_texts(text))
        if kind == "name":
            return Part(rule=text)
        if text != "(":
            raise CannotMake(f"grammar: {text!r} was not expected")
        choices = self._choices()
        if not self._tokens or self._tokens.pop(0)[1] != ")":
            raise CannotMake("grammar: a group is not closed")
        return Part(choices=choices)

    def _height(self, parts: list[Part]) -> float:
        heights = [0.0]
        for part in parts:
            if part.rule is not None and part.rule not in self._heights:
                raise CannotMake(f"grammar: there is no rule {part.rule!r}")
            if part.least and part.rule is not None:
                heights.append(self._heights[part.rule])
            elif part.least and part.choices:
                heights.append(min(map(self._height, part.choices)))
        return max(heights)

    def _draw(self, choices: list[list[Part]], walk: _Walk, depth: int) -> None:
        heights = [self._height(choice) for choice in choices]
        least = min(heights)
        small = depth > SOFT_DEPTH
        fitting = [
            choice
            for choice, height in zip(choices, heights, strict=True)
            if height == least or (not small and height < math.inf)
        ]
        for part in walk.rng.choice(fitting):
            most = part.least + SPREAD if part.most is None else part.most
            ends = self._height([part]) < math.inf
            for _ in range(part.least if small or not ends else walk.rng.randint(part.least, most)):
                if part.text is not None:
                    walk.put(part.text)
                elif part.chars is not None:
                    walk.put(part.chars.whole(walk.rng))
                else:
                    inner = part.choices or self._rules[part.rule or ""]
                    self._draw(inner, walk, depth + 1)


class _Walk:
    """One text on its way."""

    def __init__(self, rng: random.Random, put: Callable[[str], None]) -> None:
        self.rng = rng
        self._put = put
        self._left = MAX_CHARS

    def put(self, text: str) -> None:
        """Add a piece. Raises CannotMake where the text gets too long."""
        self._left -= 1 + len(text)
        if self._left < 0:
            raise CannotMake(f"grammar: the text has more than {MAX_CHARS} characters")
        self._put(text)


@lru_cache(maxsize=256)
def grammar_of(source: str) -> Grammar:
    """A grammar, parsed once. Raises CannotMake."""
    return Grammar(source)


def _tokens(source: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    while place < len(source):
        match = TOKEN.match(source, place)
        if match is None:
            raise CannotMake(f"grammar: not understood at {source[place : place + 20]!r}")
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append((kind, match[0]))
        place = match.end()
    return tokens


def _repeated(part: Part, times: str) -> Part:
    if (part.least, part.most) != (1, 1):
        raise CannotMake(f"grammar: {times!r} after a repetition")
    limits: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
    least, most = limits.get(times, (0, 0))
    if times not in limits:
        first, comma, last = times[1:-1].partition(",")
        least = int(first)
        most = (int(last) if last else None) if comma else least
    if most is not None and least > most:
        raise CannotMake(f"grammar: {times!r} is no range")
    return Part(
        text=part.text, chars=part.chars, rule=part.rule, choices=part.choices,
        least=least, most=most,
    )  # fmt: skip
