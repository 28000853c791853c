"""Constraints in turn, in pairs with a control that asks for the same."""

from __future__ import annotations

import re
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.profiles.features import Constraint, StructuredOutput
from kvswarm.profiles.load import load_profile
from kvswarm.workload.answers import Answer
from kvswarm.workload.drafts import Draft
from kvswarm.workload.requests import ExpectForm, LLMRequest
from kvswarm.workload.structured import StructuredFeature

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMS = (
    Constraint(name="a schema", kind="json", ask="Give JSON.", json=SCHEMA),
    Constraint(name="digits", kind="regex", ask="Give digits.", regex="[0-9]+"),
    Constraint(name="yes or no", kind="choice", ask="Say yes or no.", choice=("yes", "no")),
    Constraint(name="lists", kind="grammar", ask="Give a list.", grammar='root ::= "x"'),
)


def shaped(spec: StructuredOutput, number: int) -> Draft:
    """A draft as the feature leaves it."""
    draft = Draft(number=number, rng=np.random.default_rng(number), messages=[])
    StructuredFeature(spec).shape(draft)
    return draft


@pytest.mark.parametrize(
    ("via", "number", "members"),
    [
        (
            "response_format",
            0,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a_schema", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ("structured_outputs", 0, {"structured_outputs": {"json": SCHEMA}}),
        ("response_format", 1, {"structured_outputs": {"regex": "[0-9]+"}}),
        ("response_format", 2, {"structured_outputs": {"choice": ["yes", "no"]}}),
        ("structured_outputs", 3, {"structured_outputs": {"grammar": 'root ::= "x"'}}),
    ],
)
def test_each_form_goes_as_the_server_takes_it(
    via: str, number: int, members: dict[str, object]
) -> None:
    """A member that a server does not know is ignored in silence, and nothing is constrained."""
    draft = shaped(StructuredOutput(constraints=FORMS, via=via, control=False), number)
    assert msgspec.json.decode(msgspec.json.encode(draft.members)) == members
    assert draft.expectation == ExpectForm(constraint=FORMS[number])
    assert (draft.case, draft.asks) == (FORMS[number].name, [FORMS[number].ask])
    assert (draft.variants, draft.group) == (["constrained"], None)


def test_without_a_control_every_request_is_constrained_in_turn() -> None:
    """No form may be met more often than another."""
    spec = StructuredOutput(constraints=FORMS, control=False)
    drafts = [shaped(spec, number) for number in range(40)]
    assert [draft.case for draft in drafts] == [form.name for form in FORMS] * 10
    assert all(draft.expectation for draft in drafts)


@given(pair=st.integers(0, 10**9), count=st.integers(1, 4))
def test_a_pair_differs_in_the_constraint_alone(pair: int, count: int) -> None:
    """Else the difference of their latencies would not be the constraint's."""
    spec = StructuredOutput(constraints=FORMS[:count])
    two = [shaped(spec, 2 * pair), shaped(spec, 2 * pair + 1)]
    by_variant = {draft.variants[0]: draft for draft in two}
    assert set(by_variant) == {"constrained", "control"}
    assert {draft.case for draft in two} == {FORMS[pair % count].name}
    assert {draft.group for draft in two} == {pair}
    assert two[0].asks == two[1].asks
    assert by_variant["constrained"].members
    assert by_variant["constrained"].expectation
    assert not by_variant["control"].members
    assert by_variant["control"].expectation is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_neither_of_a_pair_always_comes_first(count: int) -> None:
    """Whoever comes first meets a server that has not seen the other: it must even out."""
    spec = StructuredOutput(constraints=FORMS[:count])
    rounds = 200
    firsts: dict[str, list[str]] = {form.name: [] for form in FORMS[:count]}
    for pair in range(rounds * count):
        draft = shaped(spec, 2 * pair)
        firsts[str(draft.case)].append(draft.variants[0])
    for order in firsts.values():
        # Even within every two rounds, and yet in no rhythm that the load could fall in with.
        twos = [tuple(order[place : place + 2]) for place in range(0, rounds, 2)]
        counted = Counter(twos)
        assert set(counted) == {("control", "constrained"), ("constrained", "control")}
        assert min(counted.values()) > rounds / 2 * 0.3
        assert twos[:20] != twos[20:40]


@given(name=st.text(min_size=1))
def test_the_name_of_a_schema_is_one_that_openai_takes(name: str) -> None:
    """People name constraints as they like; a server would refuse the request."""
    form = Constraint(name=name, kind="json", ask="", json=SCHEMA)
    draft = shaped(StructuredOutput(constraints=(form,), control=False), 0)
    sent = draft.members["response_format"]["json_schema"]["name"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", sent)


def test_a_conversation_keeps_its_group() -> None:
    """It finds its next turn by it."""
    draft = Draft(number=7, rng=np.random.default_rng(0), messages=[], group=7)
    StructuredFeature(StructuredOutput(constraints=FORMS)).shape(draft)
    assert draft.group == 7


def test_nothing_comes_after_an_answer() -> None:
    """A form takes one request."""
    request = LLMRequest(
        index=0,
        endpoint="chat",
        body={},
        input_tokens=1,
        input_tokens_exact=False,
        output_tokens=1,
        scenario="s",
    )
    feature = StructuredFeature(StructuredOutput(constraints=FORMS))
    assert feature.follow_up(request, Answer(text="{}")) is None


def test_the_packaged_profile_goes_from_flat_to_nested_and_fits_a_body() -> None:
    """Its schemas go as they stand in their files."""
    spec = load_profile("structured-output").structured_output
    assert spec is not None
    assert len(spec.constraints) >= 6
    assert {form.kind for form in spec.constraints} == {"json", "regex", "choice"}
    for place, form in enumerate(spec.constraints):
        drafts = [shaped(spec, 2 * place), shaped(spec, 2 * place + 1)]
        members = next(draft.members for draft in drafts if draft.members)
        sent = msgspec.json.decode(msgspec.json.encode(members))
        if form.kind == "json":
            assert sent["response_format"]["json_schema"]["schema"] == form.json
            assert sent["response_format"]["json_schema"]["name"] == form.name
        else:
            assert set(sent["structured_outputs"]) == {form.kind}
