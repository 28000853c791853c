"""Whether a text could go on to be a JSON document: what a cut answer is told by.

In:  text.  Out: True where some text after it makes one JSON document of it, False otherwise.
One pass without recursion, so that neither length nor depth of an answer matters. Patterns are
possessive (`*+`): no text makes them go back and forth.
Source: RFC 8259. `NaN` and `Infinity` are no JSON.
"""

from __future__ import annotations

import re
from typing import Final

_BLANKS: Final = re.compile(r"[ \t\n\r]*+")
_CHARS: Final = r'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+'
_STRING: Final = re.compile(_CHARS + '"')
_CUT_STRING: Final = re.compile(_CHARS + r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
_WHOLE: Final = r"(?:0|[1-9][0-9]*+)"
_SCALAR: Final = re.compile(
    rf"-?{_WHOLE}(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![0-9.eE+-])|true|false|null"
)
_CUT_NUMBER: Final = re.compile(rf"-?(?:{_WHOLE}(?:\.[0-9]*+|(?:\.[0-9]++)?[eE][+-]?[0-9]*+)?)?\Z")
_WORDS: Final = ("true", "false", "null")
_CLOSES: Final = {"{": "}", "[": "]"}

# What may come next.
_VALUE: Final = "value"
_VALUE_OR_END: Final = "value or end"
"""Just after `[`."""
_NAME: Final = "name"
_NAME_OR_END: Final = "name or end"
"""Just after `{`."""
_COLON: Final = "colon"
_AFTER: Final = "after a value"


def json_beginning(text: str) -> bool:
    """Tell whether `text` is the beginning of a JSON document, or a whole one."""
    stack: list[str] = []
    state, place = _VALUE, 0
    while True:
        place = _end_of(_BLANKS, text, place)
        if place == len(text):
            return True
        char = text[place]
        if state is _AFTER and not stack:
            return False
        if _ends(char, state, stack):
            stack.pop()
            state, place = _AFTER, place + 1
        elif state is _AFTER or state is _COLON:
            if char != ("," if state is _AFTER else ":"):
                return False
            state = _NAME if state is _AFTER and stack[-1] == "{" else _VALUE
            place += 1
        elif state in (_VALUE, _VALUE_OR_END) and char in _CLOSES:
            stack.append(char)
            state = _NAME_OR_END if char == "{" else _VALUE_OR_END
            place += 1
        else:
            is_name = state in (_NAME, _NAME_OR_END)
            if is_name and char != '"':
                return False
            end = _end_of(_STRING if char == '"' else _SCALAR, text, place)
            if end < 0:
                return _is_cut_scalar(text, place)
            state, place = (_COLON if is_name else _AFTER), end


def _ends(char: str, state: str, stack: list[str]) -> bool:
    """Whether `char` closes what is open: not after a comma or a colon."""
    open_states = (_AFTER, _VALUE_OR_END, _NAME_OR_END)
    return bool(stack) and state in open_states and char == _CLOSES[stack[-1]]


def _end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Where a match at `place` ends; -1 where there is none."""
    found = pattern.match(text, place)
    return -1 if found is None else found.end()


def _is_cut_scalar(text: str, place: int) -> bool:
    """Whether the text ends within a string, a number or a word that begins at `place`."""
    if text[place] == '"':
        return _CUT_STRING.match(text, place) is not None
    rest = text[place : place + len("false")]
    if any(word.startswith(rest) for word in _WORDS):
        return True
    return _CUT_NUMBER.match(text, place) is not None
