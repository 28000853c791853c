"""Texts that match a regular expression, drawn with a seed.

In:  an expression in Python's syntax.  Out: texts; every one is matched before it is given.
Not: lookarounds and conditions, which are refused rather than guessed at.
Source: the parse tree of Python's own `re` (`re._parser`, 3.11 and later). ECMA 262, which JSON
Schema names, is the same for what schemas use; where it is not (`\\p{L}`), `re` refuses it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from kvswarm.simulator.refusal import CannotMake

PRINTABLE: Final = "".join(map(chr, range(32, 127)))
SPACES: Final = " \t\n\r\f\v"
WORD: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
DIGITS: Final = "0123456789"
CATEGORIES: Final = {
    "CATEGORY_DIGIT": DIGITS,
    "CATEGORY_NOT_DIGIT": "".join(c for c in PRINTABLE if c not in DIGITS),
    "CATEGORY_SPACE": SPACES,
    "CATEGORY_NOT_SPACE": "".join(c for c in PRINTABLE if c not in SPACES),
    "CATEGORY_WORD": WORD,
    "CATEGORY_NOT_WORD": "".join(c for c in PRINTABLE if c not in WORD),
}
MAX_CHARS: Final = 100_000
TRIES: Final = 60
SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""No text has these: they are no characters in UTF-8."""
REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})


class PatternTexts:
    """Texts of one expression. Raises CannotMake where it has parts that cannot be drawn."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        try:
            self.compiled = re.compile(pattern)
            parser: Any = re._parser  # type: ignore[attr-defined]  # noqa: SLF001 - the tree
            self._tree = parser.parse(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise CannotMake(f"regular expression {pattern!r}: {error}") from error
        self._check(self._tree)

    def whole(self, rng: random.Random) -> str:
        """A text that the expression matches from end to end. Raises CannotMake."""
        return self.draw(rng, lambda text: self.compiled.fullmatch(text) is not None)

    def draw(self, rng: random.Random, accept: Callable[[str], bool]) -> str:
        """A text that `accept` takes. Raises CannotMake where none was found."""
        for attempt in range(TRIES):
            drawing = _Drawing(rng, spread=3 + 2 * attempt, flags=self.compiled.flags)
            text = drawing.text(self._tree)
            if accept(text) and SURROGATE.search(text) is None:
                return text
        raise CannotMake(f"regular expression {self.pattern!r}: no text found that meets it")

    def _check(self, tree: Any) -> None:
        """Refuse what `_Drawing` knows nothing of."""
        for op, argument in tree:
            name = str(op)
            if name == "BRANCH":
                for branch in argument[1]:
                    self._check(branch)
            elif name in REPEATS:
                self._check(argument[2])
            elif name == "SUBPATTERN":
                self._check(argument[3])
            elif name == "ATOMIC_GROUP":
                self._check(argument)
            elif name not in {"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "GROUPREF"}:
                raise CannotMake(f"regular expression {self.pattern!r}: {name} is not supported")


@lru_cache(maxsize=1024)
def pattern_texts(pattern: str) -> PatternTexts:
    """The texts of an expression; parsed once. Raises CannotMake."""
    return PatternTexts(pattern)


class _Drawing:
    """One walk over a parse tree."""

    def __init__(self, rng: random.Random, spread: int, flags: int) -> None:
        self._rng = rng
        self._spread = spread
        """Repetitions over the least, where the expression sets no limit."""
        self._flags = flags
        """Those of `re` that hold where the walk is."""
        self._groups: dict[int, str] = {}
        self._left = MAX_CHARS

    def text(self, tree: Any) -> str:
        """Draw a text of a sequence."""
        return "".join(self._one(str(op), argument) for op, argument in tree)

    def _one(self, name: str, argument: Any) -> str:
        if name == "BRANCH":
            text = self.text(self._rng.choice(argument[1]))
        elif name in REPEATS:
            text = self._repeat(*argument)
        elif name == "SUBPATTERN":
            text = self._group(*argument)
        elif name == "ATOMIC_GROUP":
            text = self.text(argument)
        elif name == "GROUPREF":
            text = self._groups.get(argument, "")
        elif name == "AT":
            text = ""
        else:
            text = self._char(name, argument)
        return text

    def _group(self, number: int | None, added: int, dropped: int, tree: Any) -> str:
        around = self._flags
        self._flags = (around | added) & ~dropped
        text = self.text(tree)
        self._flags = around
        if number is not None:
            self._groups[number] = text
        return text

    def _char(self, name: str, argument: Any) -> str:
        self._count()
        if name == "LITERAL":
            return chr(argument)
        if name == "NOT_LITERAL":
            return self._not_in([("LITERAL", argument)], PRINTABLE)
        if name == "ANY":
            return self._rng.choice(PRINTABLE)
        return self._of_set(argument)

    def _repeat(self, least: int, most: int, tree: Any) -> str:
        texts = []
        for _ in range(self._rng.randint(least, min(int(most), least + self._spread))):
            self._count()
            texts.append(self.text(tree))
        return "".join(texts)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise CannotMake(f"a regular expression of more than {MAX_CHARS} characters")

    def _of_set(self, items: Any) -> str:
        """A character of a set such as `[a-z_]` or `[^"]`."""
        names = [str(op) for op, _ in items]
        if names[0] == "NEGATE":  # always the first
            return self._not_in(items[1:], PRINTABLE + SPACES[1:3])
        op, argument = self._rng.choice(items)
        if str(op) == "LITERAL":
            return chr(argument)
        if str(op) == "CATEGORY":
            return self._rng.choice(CATEGORIES[str(argument)])
        return chr(self._rng.randint(*argument))

    def _not_in(self, items: Any, among: str) -> str:
        """One of some characters that a set does not have, whatever its case where none counts."""
        left = [c for c in among if not _in_set(c, items)]
        if self._flags & re.IGNORECASE:
            left = [c for c in left if not _in_set(c.swapcase(), items)]
        if not left:
            raise CannotMake("a set of characters without a printable one")
        return self._rng.choice(left)


def _in_set(char: str, items: Any) -> bool:
    for op, argument in items:
        if str(op) == "LITERAL" and ord(char) == argument:
            return True
        if str(op) == "RANGE" and argument[0] <= ord(char) <= argument[1]:
            return True
        if str(op) == "CATEGORY" and char in CATEGORIES[str(argument)]:
            return True
    return False
