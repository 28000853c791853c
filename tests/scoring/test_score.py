"""What is said of an answer: which kind of wrong, where, and never an exception."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.profiles.features import Constraint, Tool
from kvswarm.profiles.load import load_profile
from kvswarm.scoring.kinds import CALL_KINDS, DETAIL_CHARS, FORM_KINDS, KINDS, Score
from kvswarm.scoring.score import score
from kvswarm.stream.deltas import FunctionDelta, ToolCallDelta
from kvswarm.workload.answers import Answer, ToolCall, tool_calls_of
from kvswarm.workload.requests import ExpectCalls, ExpectForm

STRUCTURED = load_profile("structured-output").structured_output
TOOLS = load_profile("tool-calling").tool_calling
assert STRUCTURED is not None
assert TOOLS is not None
ORDER = next(one for one in STRUCTURED.constraints if one.name == "order")
GOOD_ORDER: dict[str, Any] = {
    "number": "AB-123456",
    "placed_at": "2031-05-17T10:00:00Z",
    "customer": {
        "name": "Ada",
        "email": "ada@example.org",
        "address": {"street": "A 1", "city": "B", "country": "GB"},
    },
    "items": [{"sku": "ABC1234", "name": "Lamp", "quantity": 1, "price": 9.5} for _ in range(3)],
    "currency": "EUR",
    "paid": True,
}


def form(constraint: Constraint, text: str, finish_reason: str = "stop") -> Score:
    """Judge a text by a constraint."""
    answer = Answer(text=text, finish_reason=finish_reason)
    return score(ExpectForm(constraint=constraint), answer)


def schema_of(**schema: Any) -> Constraint:
    """A constraint of a schema."""
    return Constraint(name="made", kind="json", ask="", json=schema)


def calls(
    *made: tuple[str, str], due: tuple[str, ...], finish_reason: str = "tool_calls", text: str = ""
) -> Score:
    """Judge calls, given as names and arguments, by the functions that were due."""
    tool_calls = tuple(ToolCall(id="c", name=name, arguments=given) for name, given in made)
    answer = Answer(text=text, tool_calls=tool_calls, finish_reason=finish_reason)
    return score(ExpectCalls(offered=TOOLS.tools, names=due), answer)


def order_with(way: tuple[str | int, ...], value: object) -> str:
    """The good order with one value changed."""
    changed = json.loads(json.dumps(GOOD_ORDER))
    inner = changed
    for part in way[:-1]:
        inner = inner[part]
    inner[way[-1]] = value
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (
            order_with(("items", 2, "price"), "9.5"),
            '$.items[2].price: is \'9.5\'; the schema wants type "number"',
        ),
        (
            order_with(("customer", "address"), {"street": "A"}),
            "$.customer.address: lacks city, country",
        ),
        (
            order_with(("customer", "vip"), 1),
            "$.customer: has what the schema does not know: 'vip'",
        ),
        (
            order_with(("currency",), "CHF"),
            "$.currency: is 'CHF'; the schema wants enum [\"EUR\", \"USD\", \"GBP\", \"JPY\"]",
        ),
        (
            order_with(("placed_at",), "2031-02-30T10:00:00Z"),
            "$.placed_at: is '2031-02-30T10:00:00Z'; the schema wants format \"date-time\"",
        ),
        (order_with(("items",), []), "$.items: is a list of 0; the schema wants minItems 1"),
        ("Sure! {}", "no JSON at char 0: Expecting value, at 'Sure! {}'"),
        ('{"number": "AB', "no JSON at char 11: Unterminated string starting at, at '\"AB'"),
        ("", "no JSON at char 0: Expecting value"),
        ('{"a": 1, "a": 2}', "the name 'a' stands twice in one object"),
        ("[Infinity]", "Infinity is no JSON"),
        ("1" * 5000, "holds a number of too many digits"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep to be read"),
    ],
)  # fmt: skip
def test_the_detail_says_where_and_what(text: str, detail: str) -> None:
    """A person mends a prompt or a schema by it."""
    found = form(ORDER, text)
    assert (found.kind, found.valid, found.detail) == ("invalid", False, detail)


def test_of_several_forms_the_one_that_fits_best_tells_what_is_wrong() -> None:
    """That none of three fits would say nothing."""
    events = next(one for one in STRUCTURED.constraints if one.name == "events")
    payment = {"kind": "payment", "amount": -1, "currency": "EUR"}
    found = form(events, json.dumps({"events": [payment]}))
    assert found.detail == "$.events[0].amount: is -1; the schema wants minimum 0"
    contact = next(one for one in STRUCTURED.constraints if one.name == "contact")
    found = form(contact, json.dumps({"name": "A", "phone": None, "company": 3}))
    assert found.detail == "$.company: is 3; it fits none, or too many, of 2 forms"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", ["2023-02-29", "2024-2-29", "20240229", "٢٠٢٤-02-29", ""]),
        ("time", "23:59:60.5+02:00", ["24:00:00Z", "10:00:00", "10:00Z", "10:00:00.٢Z"]),
        ("date-time", "2024-02-29t10:00:00z", ["2024-02-30T10:00:00Z", "2024-02-29 10:00:00Z"]),
        ("email", "ada@example.org", ["ada", "@example.org", "ada@", "ada@a b"]),
        ("uuid", "3F2504e0-4f89-41d3-9a0c-0305e82c3301", ["3f2504e04f8941d39a0c0305e82c3301", "x"]),
        ("uri", "https://a.org/%20?b=[1]", ["a.org/b", "https://a b", "http://%2", ""]),
        ("ipv4", "192.0.2.1", ["192.0.2", "192.0.2.256"]),
        ("ipv6", "2001:db8::1", ["2001:db8", "192.0.2.1"]),
    ],
)
def test_formats_are_checked_without_packages_of_their_own(
    name: str, good: str, bad: list[str]
) -> None:
    """The same answer must get the same score on every machine."""
    constraint = schema_of(format=name)
    assert form(constraint, json.dumps(good)).valid is True
    assert form(constraint, "5").valid is True  # a format is about strings
    assert [form(constraint, json.dumps(text)).kind for text in bad] == ["invalid"] * len(bad)


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind"),
    [
        ('{"number": "AB', "length", "truncated"),
        ("", "length", "truncated"),
        ('{"number": AB', "length", "invalid"),
        ('{"number": 1}', "length", "invalid"),
        (json.dumps(GOOD_ORDER), "length", "valid"),
        (f"\n {json.dumps(GOOD_ORDER)}\r\n", "stop", "valid"),
    ],
)
def test_an_answer_that_max_tokens_cut_is_told_from_one_that_is_wrong(
    text: str, finish_reason: str, kind: str
) -> None:
    """The one asks for more max_tokens, the other for another model."""
    assert form(ORDER, text, finish_reason).kind == kind


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind"),
    [
        ("2031-05-17", "stop", "valid"),
        ("2031-05-17", "length", "valid"),
        ("2031-05", "length", "truncated"),
        ("2031-05", "stop", "invalid"),
        (" 2031-05-17", "stop", "invalid"),
        ("2031-05-17\n", "stop", "invalid"),
    ],
)
def test_a_regular_expression_is_about_the_whole_answer(
    text: str, finish_reason: str, kind: str
) -> None:
    """A date with a remark is no date."""
    date = Constraint(name="d", kind="regex", ask="", regex="20[0-9]{2}-[0-9]{2}-[0-9]{2}")
    assert form(date, text, finish_reason).kind == kind


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind"),
    [
        ("positive", "stop", "valid"),
        ("Positive", "stop", "invalid"),
        ("pos", "length", "truncated"),
        ("pos", "stop", "invalid"),
        ("bad", "length", "invalid"),
        ("", "length", "truncated"),
    ],
)
def test_a_choice_is_taken_to_the_letter(text: str, finish_reason: str, kind: str) -> None:
    """The program that reads it compares strings."""
    choice = Constraint(name="c", kind="choice", ask="", choice=("negative", "positive"))
    assert form(choice, text, finish_reason).kind == kind


@pytest.mark.parametrize(
    ("constraint", "detail"),
    [
        (Constraint(name="g", kind="grammar", ask="", grammar="root ::= x"), "against grammars"),
        (Constraint(name="r", kind="regex", ask="", regex=r"\p{L}+"), "Python cannot read"),
        (schema_of(**{"$ref": "#/$defs/gone"}), "refers to '/$defs/gone', which is not in it"),
        (schema_of(**{"$ref": "#"}), "nested too deep"),
        (schema_of(pattern=r"\p{L}"), "cannot be applied: error: bad escape"),
    ],
)
def test_what_cannot_be_checked_counts_neither_way(constraint: Constraint, detail: str) -> None:
    """To call it valid would flatter the model, to call it invalid would wrong it."""
    found = form(constraint, '"abc"')
    assert (found.kind, found.valid) == ("unchecked", None)
    assert detail in str(found.detail)


def test_a_number_that_python_cannot_compute_with_is_not_checked() -> None:
    """JSON has numbers of any size, and jsonschema divides them as floats."""
    found = form(schema_of(multipleOf=0.5), "1" + 400 * "0")
    assert (found.kind, found.valid) == ("unchecked", None)
    assert "OverflowError" in str(found.detail)


def test_names_that_a_model_made_up_are_shown_fit_for_a_table() -> None:
    """They stand in the path of what is wrong; a lone surrogate breaks a whole file."""
    constraint = schema_of(additionalProperties={"type": "integer"})
    found = form(constraint, json.dumps({"a\n\ud800\u00e9": "x"}))
    assert found.detail is not None
    assert found.detail.isprintable()
    assert found.detail.endswith(": is 'x'; the schema wants type \"integer\"")
    assert r"a\n\ud800é" in found.detail


def test_no_schema_makes_it_ask_the_network() -> None:
    """It runs where latencies are measured, and a schema is anybody's."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/schema.json"
        found = form(schema_of(**{"$ref": url}), "1")
        server.shutdown()
        thread.join()
    assert (found.kind, asked) == ("unchecked", [])


WEATHER = ("get_weather", '{"city": "Lisbon", "unit": "celsius"}')
UNITS = ("convert_units", '{"value": 26.2, "from_unit": "mile", "to_unit": "km"}')


@pytest.mark.parametrize(
    ("made", "due", "kind", "detail"),
    [
        ([WEATHER], ["get_weather"], "valid", None),
        ([UNITS, WEATHER], ["get_weather", "convert_units"], "valid", None),
        ([], [], "valid", None),
        ([], ["get_weather"], "no_call", "due: get_weather; the answer is 'Hm.'"),
        ([WEATHER], [], "unwanted_call", "called 'get_weather'; no function was right"),
        ([("get_wether", "{}")], ["get_weather"], "unknown_function", "'get_wether' was not"),
        ([("get_weather", "{")], ["get_weather"], "bad_json", "arguments of get_weather: no JSON"),
        ([("get_weather", "")], ["get_weather"], "bad_json", "no JSON at char 0"),
        ([("get_weather", "[]")], ["get_weather"], "bad_json", "arguments of get_weather: no obj"),
        (
            [("get_weather", '{"city": "Lisbon", "unit": "kelvin"}')],
            ["get_weather"],
            "bad_arguments",
            "get_weather: $.unit: is 'kelvin'; the schema wants enum",
        ),
        ([UNITS], ["get_weather"], "wrong_function", "called 'convert_units'; due: get_weather"),
        ([WEATHER, WEATHER], ["get_weather"], "wrong_function", "'get_weather', 'get_weather'"),
        # Of several things that are wrong, the first kind counts, whichever call it is in.
        ([("get_weather", "{"), ("gone", "")], ["get_weather"], "unknown_function", "'gone'"),
        ([("convert_units", "{}")], ["get_weather"], "bad_arguments", "$: lacks value, from_unit"),
    ],
)
def test_calls_are_judged_by_the_first_thing_that_is_wrong(
    made: list[tuple[str, str]], due: list[str], kind: str, detail: str | None
) -> None:
    """Each answer counts once, for what has to be mended first."""
    found = calls(*made, due=tuple(due), text="" if made else "Hm.")
    assert (found.kind, found.valid) == (kind, kind == "valid")
    assert (found.detail is None) if detail is None else (detail in str(found.detail))


@pytest.mark.parametrize(
    ("made", "due", "text", "kind"),
    [
        ([], ["get_weather"], "", "truncated"),
        ([], ["get_weather"], "I think that", "no_call"),
        ([], ["get_weather"], '<tool_call>{"name": "get_w', "truncated"),
        ([], ["get_weather"], " [TOOL_CALLS]", "truncated"),
        ([("", "")], ["get_weather"], "", "truncated"),
        ([("get_weather", "")], ["get_weather"], "", "truncated"),
        ([("get_weather", '{"city": "Lis')], ["get_weather"], "", "truncated"),
        ([("get_weather", '["city')], ["get_weather"], "", "bad_json"),
        ([("get_weather", "{city")], ["get_weather"], "", "bad_json"),
        ([("get_weather", '{"ci'), UNITS], ["get_weather", "convert_units"], "", "bad_json"),
        ([WEATHER], ["get_weather", "convert_units"], "", "truncated"),
        ([UNITS], ["get_weather"], "", "wrong_function"),
        ([WEATHER], ["get_weather"], "", "valid"),
        ([], [], "It is", "valid"),
    ],
)
def test_calls_that_max_tokens_cut_are_told_from_wrong_ones(
    made: list[tuple[str, str]], due: list[str], text: str, kind: str
) -> None:
    """Only what came last can have been cut, and only where it could have gone on to be right."""
    assert calls(*made, due=tuple(due), text=text, finish_reason="length").kind == kind


def test_a_tool_without_parameters_takes_any_object() -> None:
    """There is no schema to break."""
    tool = Tool(name="ping", ask="", parameters={})
    answer = Answer(tool_calls=(ToolCall(id="", name="ping", arguments='{"a": 1}'),))
    assert score(ExpectCalls(offered=(tool,), names=("ping",)), answer).kind == "valid"


TEXTS = st.text() | st.text(alphabet='{}[]":,\\u0 1.eE-tfnNaI') | st.sampled_from(["{}", "[]", ""])
FINISH = st.sampled_from(["stop", "length", "tool_calls", None, "content_filter"])
NAMES = st.sampled_from([tool.name for tool in TOOLS.tools]) | TEXTS
FRAGMENTS = st.lists(
    st.builds(
        ToolCallDelta,
        index=st.integers(-1, 2),
        id=st.none() | st.text(),
        function=st.none()
        | st.builds(FunctionDelta, name=st.none() | NAMES, arguments=st.none() | TEXTS),
    )
)


def check_fit_for_a_table(found: Score, kinds: Mapping[str, str]) -> None:
    """A score must go into a row, whatever the model wrote."""
    assert found.kind in kinds
    assert found.valid is {"valid": True, "unchecked": None}.get(found.kind, False)
    if found.detail is not None:
        assert found.detail.isprintable()
        assert len(found.detail) <= DETAIL_CHARS
        found.detail.encode("utf-8")


@given(
    constraint=st.sampled_from(STRUCTURED.constraints),
    text=TEXTS | st.text(alphabet=st.characters(categories=["Cs", "Cc", "L"])),
    finish_reason=FINISH,
)
def test_no_text_makes_scoring_fail(
    constraint: Constraint, text: str, finish_reason: str | None
) -> None:
    """A failure of ours would be a hole in the figures."""
    answer = Answer(text=text, finish_reason=finish_reason)
    check_fit_for_a_table(score(ExpectForm(constraint=constraint), answer), FORM_KINDS)


@given(
    changes=st.dictionaries(
        st.sampled_from([*GOOD_ORDER, "x" * 400, "\ud800"]),
        st.recursive(st.none() | st.floats() | st.text(), st.lists),
    )
)
def test_no_value_makes_scoring_fail(changes: dict[str, Any]) -> None:
    """The detail quotes values: long, endless and broken ones too."""
    text = json.dumps({**GOOD_ORDER, **changes})
    check_fit_for_a_table(form(ORDER, text), FORM_KINDS)


@given(
    fragments=FRAGMENTS,
    text=TEXTS,
    finish_reason=FINISH,
    due=st.sampled_from([(), ("get_weather",), ("get_weather", "send_message")]),
)
def test_no_calls_make_scoring_fail(
    fragments: list[ToolCallDelta], text: str, finish_reason: str | None, due: tuple[str, ...]
) -> None:
    """Parsers of tool calls give the strangest pieces."""
    made = tool_calls_of(fragments)
    answer = Answer(text=text, tool_calls=made, finish_reason=finish_reason)
    found = score(ExpectCalls(offered=TOOLS.tools, names=due), answer)
    check_fit_for_a_table(found, CALL_KINDS)


def test_the_page_on_scoring_tells_every_kind_in_the_same_words() -> None:
    """What stands in a row must be found, and no kind that is gone."""
    page = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text("utf-8")
    rows = dict(
        [cell.strip() for cell in line.strip("|").split("|")][:2]
        for line in page.splitlines()
        if line.startswith("| `")
    )
    assert {name.strip("`"): said for name, said in rows.items()} == KINDS
