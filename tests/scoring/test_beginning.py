"""What could go on to be a JSON document, held against JSON itself."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvswarm.scoring.beginning import json_beginning

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
# Enough to end whatever token is open, then to give what an object still wants.
TOKEN_TAILS = [
    "", "0", '"', '0"', '00"', '000"', '0000"', 'n"', "rue", "ue", "e", "alse", "lse", "se",
    "ull", "ll", "l",
]  # fmt: skip
FILLERS = ["", "0", ":0", '"":0']


def is_document(text: str) -> bool:
    """Whether JSON reads it."""

    def refuse(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def closers(text: str) -> str:
    """What closes the brackets that are open outside strings."""
    stack: list[str] = []
    is_inside, is_escaped = False, False
    for char in text:
        if is_escaped:
            is_escaped = False
        elif is_inside:
            is_escaped, is_inside = char == "\\", char != '"'
        elif char == '"':
            is_inside = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]" and stack:
            stack.pop()
    return "".join(reversed(stack))


def can_go_on(text: str) -> bool:
    """The oracle: try every way in which a text may have to go on."""
    ways = (text + tail + filler for tail, filler in itertools.product(TOKEN_TAILS, FILLERS))
    return any(is_document(way + closers(way)) for way in ways)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_every_prefix_of_a_document_is_a_beginning(
    *, value: Any, ascii_only: bool, indent: int | None
) -> None:
    """An answer may be cut anywhere: that is no fault of its form."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert all(json_beginning(text[:end]) for end in range(len(text) + 1))


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '"', "0", "1.5", "-", "null", "tr", " "]
)
RAGGED = st.text(alphabet='{}[]",:\\ \n01.eE+-tfnu"a') | st.lists(PIECES).map("".join)


@given(text=RAGGED)
@example("1,2")
@example("{},{}")
@example("01")
@example("1.e")
@example('"\\u12')
@example('{"a":1,}')
@example("[-]")
@example("tru e")
@example("\ufeff{}")
def test_a_beginning_is_what_can_go_on_to_be_a_document_and_nothing_else(text: str) -> None:
    """Junk with finish_reason length is junk all the same."""
    assert json_beginning(text) == can_go_on(text)


@given(
    value=st.dictionaries(st.text(), SCALARS, min_size=1),
    junk=st.sampled_from(["}", "]", "NaN", "'", "//", "}}", ",,", "```", "None"]),
    data=st.data(),
)
def test_junk_in_a_document_is_told_from_a_cut_one(
    value: dict[str, Any], junk: str, data: st.DataObject
) -> None:
    """Wherever it stands outside strings, no continuation mends it."""
    text = json.dumps(value)
    place = data.draw(st.integers(0, len(text)))
    broken = text[:place] + junk + text[place:]
    assert json_beginning(broken) == can_go_on(broken)


@given(text=st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    """It reads what a model wrote."""
    assert json_beginning(text) in (True, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, True),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, True),
        ("[" * 50_000 + "]" * 50_001, False),
        ('"' + "a" * 1_000_000, True),
        ('"' + "\\n" * 300_000 + "\x01", False),
        ("1" * 1_000_000 + "x", False),
    ],
    ids=["lists", "objects", "one too many", "text", "bad text", "bad number"],
)
def test_neither_depth_nor_length_matters(*, text: str, expected: bool) -> None:
    """Models ramble; a scanner that recursed or went back would never come to an end."""
    assert json_beginning(text) is expected
