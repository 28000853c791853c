"""Texts of regular expressions and of grammars: matched, varied, bounded; the rest is refused."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.simulator.grammar import Grammar
from kvswarm.simulator.patterns import PatternTexts
from kvswarm.simulator.refusal import CannotMake

UNHURRIED = settings(deadline=None, max_examples=200)
ATOMS = st.sampled_from(
    ["a", "\\.", ".", "\\d", "\\w", "\\s", "\\S", "[a-f]", "[^a-z]", "[^\\d\\n]", "\u6c34", "[\\dx]"]
)  # fmt: skip


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions of expressions."""
    times = st.sampled_from(["?", "*", "+", "{2}", "{1,3}", "{2,}", "+?", "*+"])
    return st.one_of(
        st.builds("(?:{}){}".format, inner, times),
        st.builds("({}|{})".format, inner, inner),
        st.builds("{}{}".format, inner, inner),
        st.builds("(?i:{})".format, inner),
    )


@UNHURRIED
@given(pattern=st.recursive(ATOMS, composed, max_leaves=8), seed=st.integers(0, 2**32))
def test_every_text_is_matched_by_its_expression(pattern: str, seed: int) -> None:
    """Python's own engine is the judge; possessive repeats may leave nothing to match."""
    try:
        text = PatternTexts(pattern).whole(random.Random(seed))  # noqa: S311 - no secret
    except CannotMake:
        assert "*+" in pattern
        return
    assert re.fullmatch(pattern, text)


def whole(pattern: str, count: int = 50) -> set[str]:
    """Texts of an expression."""
    texts = PatternTexts(pattern)
    return {texts.whole(random.Random(seed)) for seed in range(count)}  # noqa: S311 - no secret


def test_where_case_does_not_count_a_set_leaves_out_both_cases() -> None:
    """`[^a-z]` has no letter then, nor `[^a]` an A."""
    for text in whole("(?i:[^a-z]{40})") | whole("(?i)[^a-z]{40}"):
        assert not re.search("[A-Za-z]", text)
    assert not any("A" in text or "a" in text for text in whole("(?i:[^a]{200})"))
    assert any("A" in text for text in whole("(?i:x(?-i:[^a]{200}))"))


def test_texts_vary_over_all_that_is_allowed() -> None:
    """Branches, counts and characters are all drawn."""
    assert whole("yes|no") == {"yes", "no"}
    assert whole("^a{1,3}$") == {"a", "aa", "aaa"}
    assert whole(r"(?P<q>['x]).(?P=q)") != whole(r"['x].['x]")
    assert all(text[0] == text[-1] for text in whole(r"(['x])[0-9]\1"))
    assert len(whole(r"\d{3}-\d{4}")) == 50


@pytest.mark.parametrize(
    "pattern", ["(?=a)b", "(?<!a)b", "(a)?(?(1)b|c)", "(", "a{1000000}", "(?:(?:a{900}){900}){900}"]
)
def test_an_expression_that_cannot_be_drawn_is_refused(pattern: str) -> None:
    """Lookarounds, conditions, what is none, and what would fill the memory."""
    with pytest.raises(CannotMake):
        PatternTexts(pattern).whole(random.Random(0))  # noqa: S311 - no secret


SUM = r"""
root ::= term (" + " term)* "\n"   # a sum
term ::= number | "(" root2 ")"
root2 ::= term " - " term
number ::= [1-9] [0-9]{0,2}
"""


def sentences(source: str, count: int = 60) -> set[str]:
    """Texts of a grammar."""
    grammar = Grammar(source)
    return {grammar.draw(random.Random(seed)) for seed in range(count)}  # noqa: S311 - no secret


def test_texts_of_a_grammar_are_in_its_language() -> None:
    """Another reader of the same language is the judge: Python's, of sums."""
    texts = sentences(SUM)
    assert len(texts) > 40
    assert any("(" in text for text in texts)
    assert any(" + " in text for text in texts)
    for text in texts:
        assert text.endswith("\n")
        assert re.fullmatch(r"[0-9 +()\n-]+", text)
        assert isinstance(eval(text, {"__builtins__": {}}), int)  # noqa: S307 - digits and signs


def test_repetitions_and_escapes_of_a_grammar() -> None:
    """`?`, `{n}`, `{n,m}`, and a quote within a text."""
    assert sentences('root ::= "a"? "\\""') == {'"', 'a"'}
    assert sentences('root ::= ("ab" | "c"){2}') == {"abab", "abc", "cab", "cc"}
    assert sentences("root ::= [xy]{1,2}") == {"x", "y", "xx", "xy", "yx", "yy"}


@pytest.mark.parametrize(
    "source",
    [
        'start: "a"', 'other ::= "a"', "root ::= missing", "root ::= root", 'root ::= ("a"',
        'root ::= "a" )', "root ::= *", 'root ::= "a"{3,1}', 'root ::= "a"**', 'root ::= "a',
        "", "root", 'root ::= (("a"{999}){999}){999}',
    ],
)  # fmt: skip
def test_a_grammar_that_is_not_understood_is_refused(source: str) -> None:
    """Lark's syntax, unknown rules, endless rules, open groups, texts without end."""
    with pytest.raises(CannotMake):
        Grammar(source).draw(random.Random(0))  # noqa: S311 - no secret
