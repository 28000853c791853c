"""Keys of what requests do beside sending a prompt: resolved, inlined, refused with a remedy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kvswarm.errors import ProfileError
from kvswarm.profiles.features import Constraint, Conversation, Images, Tool, ToolCalling
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile, profile_from_dict

CLOSED = "requests: 1\nconcurrency: 1\n"
OPEN = "requests: 1\npattern: poisson\nrate_rps: 1\n"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TWO_TOOLS = "tools: [{function: {name: alpha}}, {function: {name: beta}}]\n"

MODEL = '''
"""Stands in for a Pydantic model: the one method of it that is called."""


class Order:
    @classmethod
    def model_json_schema(cls):
        return {"title": "TITLE", "type": "object"}


class Shelf:
    Order = Order


def broken():
    raise RuntimeError


class Broken:
    model_json_schema = broken
'''


def profile_of(folder: Path, text: str, load: str = CLOSED) -> Profile:
    """Write a profile and load it."""
    path = folder / "case.yaml"
    path.write_text(load + text)
    return load_profile(str(path))


def constraints_of(folder: Path, text: str) -> tuple[Constraint, ...]:
    """Constraints of the profile with this `structured_output`."""
    spec = profile_of(folder, f"structured_output: {text}").structured_output
    assert spec is not None
    return spec.constraints


def tools_of(folder: Path, text: str) -> ToolCalling:
    """Tool calling of the profile with these keys."""
    spec = profile_of(folder, text).tool_calling
    assert spec is not None
    return spec


def refusal(folder: Path, text: str, load: str = CLOSED) -> ProfileError:
    """Load a profile that must be refused."""
    with pytest.raises(ProfileError) as caught:
        profile_of(folder, text, load)
    return caught.value


def test_a_profile_without_these_keys_has_none_of_it(tmp_path: Path) -> None:
    """Plain prompts stay plain."""
    profile = profile_of(tmp_path, "")
    assert profile.structured_output is None
    assert profile.tool_calling is None
    assert (profile.conversation, profile.images, profile.adapters) == (None, None, {})


def test_every_form_gets_a_name_and_an_ask(tmp_path: Path) -> None:
    """The figures are told by name, and a prompt that asks for nothing gets nothing."""
    (tmp_path / "thing.json").write_text(json.dumps(SCHEMA))
    text = """
  constraints:
    - schema: thing.json
    - {schema: {title: Bill, type: object}}
    - {schema: {type: object}}
    - {regex: "[0-9]+"}
    - {choice: ["yes", "no"]}
    - {grammar: 'root ::= "x"'}
    - {name: mine, ask: "Say a.", choice: [a]}
"""
    thing, bill, bare, regex, choice, grammar, mine = constraints_of(tmp_path, text)
    assert (thing.name, thing.kind, thing.json) == ("thing", "json", SCHEMA)
    assert thing.ask == "Invent one thing and give it as JSON."
    assert (bill.name, bare.name) == ("Bill", "schema-3")
    assert (regex.name, regex.kind, regex.regex) == ("regex-4", "regex", "[0-9]+")
    assert regex.ask.endswith("[0-9]+")
    assert (choice.name, choice.kind, choice.choice) == ("choice-5", "choice", ("yes", "no"))
    assert choice.ask.endswith("one of: yes, no")
    assert (grammar.name, grammar.kind, grammar.grammar) == (
        "grammar-6",
        "grammar",
        'root ::= "x"',
    )
    assert grammar.ask.endswith('root ::= "x"')
    assert (mine.name, mine.ask) == ("mine", "Say a.")


@pytest.mark.parametrize("text", ["{schema: thing.json}", "{schema: {type: object, properties: {a: {type: integer}}}}"])  # fmt: skip
def test_the_short_form_is_a_list_of_one(tmp_path: Path, text: str) -> None:
    """One schema needs no list."""
    (tmp_path / "thing.json").write_text(json.dumps(SCHEMA))
    (one,) = constraints_of(tmp_path, text)
    assert one.json == SCHEMA
    spec = profile_of(tmp_path, f"structured_output: {text}").structured_output
    assert spec is not None
    assert (spec.via, spec.control) == ("response_format", True)


@pytest.mark.parametrize(
    "text", ["{pydantic: 'shop:Order'}", "{constraints: [{pydantic: 'shop:Shelf.Order'}]}"]
)
def test_the_schema_of_a_model_beside_the_profile_is_taken(tmp_path: Path, text: str) -> None:
    """People have their answers as Pydantic models already."""
    (tmp_path / "shop.py").write_text(MODEL)
    path, modules = list(sys.path), set(sys.modules)
    (one,) = constraints_of(tmp_path, text)
    assert one.json == {"title": "TITLE", "type": "object"}
    assert one.name == text.partition("shop:")[2].partition("'")[0]
    assert one.ask == f"Invent one {one.name} and give it as JSON."
    assert (sys.path, set(sys.modules)) == (path, modules)


def test_models_of_two_folders_are_told_apart(tmp_path: Path) -> None:
    """Two profiles of a mix may each have a `models.py` beside them."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models.py").write_text(MODEL.replace("TITLE", name))
        (found,) = constraints_of(tmp_path / name, "{pydantic: 'models:Order'}")
        assert found.json["title"] == name


def test_packages_of_an_environment_within_the_folder_stay_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pydantic's own core cannot be imported twice, and people have .venv in their projects."""
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "kvswarm_test_package.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    (tmp_path / "shop.py").write_text("import kvswarm_test_package\n" + MODEL)
    constraints_of(tmp_path, "{pydantic: 'shop:Order'}")
    assert sys.modules.pop("kvswarm_test_package")
    assert "shop" not in sys.modules


def test_files_are_relative_to_the_profile_that_names_them(tmp_path: Path) -> None:
    """A profile may be refined from anywhere."""
    below = tmp_path / "below"
    below.mkdir()
    (below / "thing.json").write_text(json.dumps(SCHEMA))
    (below / "shop.py").write_text(MODEL)
    (below / "base.yaml").write_text(
        f"{CLOSED}structured_output: {{constraints: [{{schema: thing.json}}, "
        "{pydantic: 'shop:Order'}]}"
    )
    profile = profile_of(tmp_path, "extends: below/base.yaml\nstructured_output: {control: false}")
    spec = profile.structured_output
    assert spec is not None
    assert [one.json for one in spec.constraints] == [SCHEMA, {"title": "TITLE", "type": "object"}]
    assert spec.control is False
    (tmp_path / "other.json").write_text('{"type": "array"}')
    replaced = "extends: below/base.yaml\nstructured_output: {schema: other.json}"
    (one,) = profile_of(tmp_path, replaced).structured_output.constraints
    assert (one.name, one.json) == ("other", {"type": "array"})


def test_what_files_held_comes_back_from_run_json_without_them(tmp_path: Path) -> None:
    """Workers and later readers have neither the files nor Pydantic."""
    (tmp_path / "thing.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "shop.py").write_text(MODEL)
    text = "structured_output: {constraints: [{schema: thing.json}, {pydantic: 'shop:Order'}]}\n"
    profile = profile_of(tmp_path, text + TWO_TOOLS)
    plain = json.loads(json.dumps(profile.to_dict()))
    for file in ("thing.json", "shop.py"):
        (tmp_path / file).unlink()
    assert profile_from_dict(plain) == profile


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("{}", "structured_output needs exactly one of constraints, schema", "a list under"),
        ("{via: response_format}", "needs exactly one of", "pydantic: module:Model"),
        ("{schema: thing.json, pydantic: 'shop:Order'}", "needs exactly one of", "one schema"),
        ("{schema: thing.json, constraints: [{regex: a}]}", "needs exactly one of", "one schema"),
        ("{constraints: [{name: a}]}", "constraints[0] has no form; a constraint has", "Give one"),
        (
            "{constraints: [{regex: a}, {regex: a, choice: [b]}]}",
            "constraints[1] has regex and choice; a constraint has exactly one",
            "schema, pydantic, regex, choice, grammar",
        ),
        (
            "{constraints: [{name: a, regex: a}, {name: a, regex: b}]}",
            "constraints has two constraints with the name 'a'",
            "a name of its own",
        ),
        ("{schema: {type: text}}", ".schema is no JSON Schema: $.type: 'text' is not", "2020-12"),
        ("{schema: {pattern: '('}}", ".schema is no JSON Schema: $.pattern: '(' is not", "Mend"),
        ("{schema: gone.json}", "gone.json: cannot be read: No such file", "relative to the"),
        ("{schema: bad.json}", "bad.json: is no JSON: Expecting", "a JSON Schema in JSON"),
        ("{schema: latin.json}", "latin.json: is no JSON: 'utf-8'", "a JSON Schema in JSON"),
        ("{schema: list.json}", "list.json: holds no JSON object", "Give a JSON Schema"),
        ("{pydantic: 'gone:Order'}", "pydantic gone:Order: ModuleNotFoundError: No m", "beside"),
        ("{pydantic: 'shop:Gone'}", "pydantic shop:Gone: AttributeError: module 'shop'", "module"),
        ("{pydantic: 'shop:broken'}", "shop:broken: AttributeError: 'function' object", "Pyd"),
        ("{pydantic: 'shop:Broken'}", "pydantic shop:Broken: RuntimeError: ", "installed"),
        ("{pydantic: 'wrong:Order'}", "pydantic wrong:Order: SyntaxError: ", "version 2"),
        ("{pydantic: shop}", "structured_output.pydantic is 'shop'; ", "module:Model"),
        ("{via: json}", "via is 'json'; must be one of response_format", "response_format"),
    ],
)
def test_what_is_wrong_with_a_constraint_is_told(
    tmp_path: Path, text: str, message: str, fix: str
) -> None:
    """With file, key and remedy: before the run, not by a server in the middle of it."""
    (tmp_path / "thing.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "bad.json").write_text("{'type': 'object'}")
    (tmp_path / "latin.json").write_bytes(b'{"title": "Gr\xf6\xdfe"}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "shop.py").write_text(MODEL)
    (tmp_path / "wrong.py").write_text("class Order(:\n")
    error = refusal(tmp_path, f"structured_output: {text}")
    assert f"{tmp_path / 'case.yaml'}:3: " in error.message
    assert message in error.message
    assert fix in error.fix


def test_functions_are_taken_as_openai_has_them(tmp_path: Path) -> None:
    """Tools are pasted from programs; what they lack gets a sensible default."""
    text = """
tools:
  - type: function
    ask: "Use alpha."
    result: {a: 1}
    function:
      name: alpha
      description: "First."
      parameters: {type: object, properties: {a: {type: integer}}}
  - result: "plain text"
    function: {name: beta}
  - function: {name: gamma}
"""
    spec = tools_of(tmp_path, text)
    nothing = {"type": "object", "properties": {}}
    ask = "Call the function {} with arguments that you invent."
    assert spec.tools == (
        Tool(
            name="alpha",
            ask="Use alpha.",
            description="First.",
            parameters=SCHEMA,
            result='{"a": 1}',
        ),
        Tool(name="beta", ask=ask.format("beta"), parameters=nothing, result="plain text"),
        Tool(name="gamma", ask=ask.format("gamma"), parameters=nothing, result='{"status": "ok"}'),
    )
    assert (spec.choices, spec.strict, spec.parallel) == ({"auto": 1.0}, True, False)
    assert (spec.no_call_share, spec.second_turn) == (0.0, False)


def test_how_functions_are_offered_is_taken(tmp_path: Path) -> None:
    """One choice by name, or several by weight."""
    keys = "strict: false, parallel: true, no_call_share: 0.5, second_turn: true"
    spec = tools_of(tmp_path, f"{TWO_TOOLS}tool_calling: {{choice: required, {keys}}}")
    assert (spec.choices, spec.strict, spec.parallel) == ({"required": 1.0}, False, True)
    assert (spec.no_call_share, spec.second_turn) == (0.5, True)
    spec = tools_of(tmp_path, f"{TWO_TOOLS}tool_calling: {{choice: {{auto: 3, named: 1}}}}")
    assert spec.choices == {"auto": 3.0, "named": 1.0}


@pytest.mark.parametrize(
    ("first", "second", "key", "strict"),
    [
        ("true", "true", "", True),
        ("true", "false", "", False),
        ("false", "false", "tool_calling: {strict: true}", True),
        ("true", "true", "tool_calling: {strict: false}", False),
    ],
)
def test_strict_may_stand_in_the_functions_too(
    tmp_path: Path, first: str, second: str, key: str, *, strict: bool
) -> None:
    """OpenAI's place for it is there; the profile's own key wins."""
    text = f"""
tools:
  - function: {{name: alpha, strict: {first}}}
  - function: {{name: beta, strict: {second}}}
{key}
"""
    assert tools_of(tmp_path, text).strict is strict


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("tool_calling: {strict: true}", "tool_calling has no tools to call", "tool-calling"),
        (
            "tools: [{function: {name: a, parameters: {type: text}}}]",
            "tools[0].function.parameters is no JSON Schema: $.type: 'text'",
            "2020-12",
        ),
        (
            TWO_TOOLS + "tool_calling: {choice: {auto: 0}}",
            "tool_calling.choice has no weight above 0",
            "Give one a weight",
        ),
        (
            "tools: [{function: {name: a}}]\ntool_calling: {parallel: true}",
            "tool_calling.parallel asks for two functions at once, but there is one",
            "another tool",
        ),
        (
            TWO_TOOLS + "conversation: {turns: 2}",
            "conversation does not go together with tools",
            "second_turn",
        ),
        ("adapters: {base: 0}", "adapters has no weight above 0", "such as 1"),
        ("tools: [{function: {name: 'a b'}}]", "tools[0].function.name is 'a b'", "function"),
        ("tools: [{function: {}}]", "tools[0].function lacks name", "Give name"),
        ("tool_calling: {choice: none}", "choice is 'none'", "auto, required or named"),
    ],
)
def test_what_is_wrong_with_tools_is_told(
    tmp_path: Path, text: str, message: str, fix: str
) -> None:
    """With file, key and remedy."""
    error = refusal(tmp_path, text)
    assert message in error.message
    assert fix in error.fix


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("conversation: {turns: 2}", "conversation"),
        (TWO_TOOLS + "tool_calling: {second_turn: true}", "tool_calling.second_turn"),
    ],
)
def test_dialogues_need_users_who_wait_for_answers(tmp_path: Path, text: str, key: str) -> None:
    """Arrivals at a rate wait for nothing, so there is no answer to go on from."""
    error = refusal(tmp_path, text, OPEN)
    assert f"{key} needs users who wait for answers; pattern poisson has arrivals" in error.message
    assert "pattern: steady" in error.fix
    assert profile_of(tmp_path, text).has_dialogues


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TWO_TOOLS, "tools"),
        ("conversation: {turns: 2}", "conversation"),
        ("images: {count: 1}", "images"),
    ],
)
def test_what_only_chat_has_is_refused_with_completions(
    tmp_path: Path, text: str, key: str
) -> None:
    """The server would refuse every request."""
    error = refusal(tmp_path, f"endpoint: completions\n{text}")
    assert f"{key} goes with the chat endpoint only" in error.message
    assert error.fix == "Use endpoint: chat."


def test_completions_can_be_constrained(tmp_path: Path) -> None:
    """Both endpoints take structured output."""
    profile = profile_of(tmp_path, "endpoint: completions\nstructured_output: {schema: {}}")
    assert profile.structured_output is not None


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to mend a profile five times."""
    text = f"""
structured_output: {{constraints: [{{name: a}}, {{schema: {{type: 1}}}}]}}
{TWO_TOOLS}tool_calling: {{choice: {{auto: 0}}}}
adapters: {{base: 0}}
"""
    error = refusal(tmp_path, text)
    assert "4 problems" in error.message
    for key in ("constraints[0]", "constraints[1].schema", "tool_calling.choice", "adapters"):
        assert key in error.message


def test_conversations_images_and_adapters_are_taken(tmp_path: Path) -> None:
    """Single values and lists of them."""
    profile = profile_of(
        tmp_path,
        "conversation: {turns: 3, think_time_s: 2}\nadapters: {base: 1, law: 2}\n"
        "images: {count: [1, 3], size: [64x32, 512x512]}",
    )
    assert profile.conversation == Conversation(turns=3, think_time_s=2.0)
    assert profile.adapters == {"base": 1.0, "law": 2.0}
    assert profile.images == Images(counts=(1, 3), sizes=((64, 32), (512, 512)))
    assert profile_of(tmp_path, "images: {}").images == Images(counts=(1,), sizes=((512, 512),))
