"""What requests do beside sending a prompt: the keys of features, and the rules between them.

In:  merged values that the schema accepts, with every file inlined; where to report problems.
Out: the features' parts of a `Profile`. Where something was reported they are not to be used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonschema
from jsonschema import Draft202012Validator

from kvswarm.profiles.features import (
    Constraint,
    Conversation,
    Images,
    StructuredOutput,
    Tool,
    ToolCalling,
)
from kvswarm.profiles.model import Load
from kvswarm.profiles.problems import KeyPath

Report = Callable[[KeyPath, str, str], None]

FORMS: Final = ("schema", "pydantic", "regex", "choice", "grammar")
"""Keys of a constraint of which it has exactly one."""
CHAT_ONLY: Final = ("tools", "tool_calling", "conversation", "images")


def resolve_features(values: Mapping[str, Any], load: Load, report: Report) -> dict[str, Any]:
    """Give the fields of a `Profile` that are features."""
    if values.get("endpoint") == "completions":
        for key in CHAT_ONLY:
            if key in values:
                report((key,), "goes with the chat endpoint only", "Use endpoint: chat.")
    features = {
        "structured_output": _structured_output(values, report),
        "tool_calling": _tool_calling(values, report),
        "conversation": _conversation(values),
        "images": _images(values),
        "adapters": {name: float(weight) for name, weight in values.get("adapters", {}).items()},
    }
    if values.get("adapters") and not any(values["adapters"].values()):
        report(("adapters",), "has no weight above 0", "Give at least one a weight, such as 1.")
    _check_dialogues(features, load, report)
    return features


def _check_dialogues(features: Mapping[str, Any], load: Load, report: Report) -> None:
    tools = features["tool_calling"]
    if features["conversation"] is not None and tools is not None:
        report(
            ("conversation",),
            "does not go together with tools",
            "Leave one of the two out; tool_calling.second_turn has the model answer a result.",
        )
    dialogue: KeyPath = ()
    if features["conversation"] is not None:
        dialogue = ("conversation",)
    elif tools is not None and tools.second_turn:
        dialogue = ("tool_calling", "second_turn")
    if dialogue and load.open_loop:
        report(
            dialogue,
            f"needs users who wait for answers; pattern {load.pattern} has arrivals at a rate",
            "Use pattern: steady with concurrency, or levels of concurrency.",
        )


def _structured_output(values: Mapping[str, Any], report: Report) -> StructuredOutput | None:
    given = values.get("structured_output")
    if given is None:
        return None
    short = [key for key in ("schema", "pydantic") if key in given]
    entries = given.get("constraints", [])
    if short or not entries:
        report(
            ("structured_output",),
            "needs exactly one of constraints, schema and pydantic",
            "Give a list under constraints, or one schema: FILE, or one pydantic: module:Model.",
        )
        return None
    constraints = [
        _constraint(entry, ("structured_output", "constraints", place), place, report)
        for place, entry in enumerate(entries)
    ]
    names = [constraint.name for constraint in constraints]
    for name in sorted({name for name in names if names.count(name) > 1}):
        report(
            ("structured_output", "constraints"),
            f"has two constraints with the name {name!r}",
            "Give each a name of its own.",
        )
    return StructuredOutput(
        constraints=tuple(constraints),
        via=given.get("via", "response_format"),
        control=given.get("control", True),
    )


def _constraint(entry: Mapping[str, Any], path: KeyPath, place: int, report: Report) -> Constraint:
    forms = [key for key in FORMS if key in entry]
    if len(forms) != 1:
        report(
            path,
            f"has {' and '.join(forms) if forms else 'no form'}; a constraint has exactly one",
            f"Give one of {', '.join(FORMS)}.",
        )
        return Constraint(name="", kind="json", ask="")
    form, value = forms[0], entry[forms[0]]
    if form in {"schema", "pydantic"}:
        _check_schema(value, (*path, form), report)
        name = entry.get("name") or str(value.get("title") or f"schema-{place + 1}")
        ask = f"Invent one {name} and give it as JSON."
        return Constraint(name=name, kind="json", ask=entry.get("ask", ask), json=value)
    name = entry.get("name") or f"{form}-{place + 1}"
    if form == "regex":
        ask = f"Answer with nothing but one text that matches {value}"
        return Constraint(name=name, kind="regex", ask=entry.get("ask", ask), regex=value)
    if form == "choice":
        ask = f"Answer with nothing but one of: {', '.join(value)}"
        return Constraint(name=name, kind="choice", ask=entry.get("ask", ask), choice=tuple(value))
    ask = "Answer with one sentence of this grammar:\n" + value
    return Constraint(name=name, kind="grammar", ask=entry.get("ask", ask), grammar=value)


def _check_schema(schema: Mapping[str, Any], path: KeyPath, report: Report) -> None:
    try:
        Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        report(
            path,
            f"is no JSON Schema: {error.json_path}: {error.message}",
            "Mend it; draft 2020-12 is meant.",
        )


def _tool_calling(values: Mapping[str, Any], report: Report) -> ToolCalling | None:
    if "tools" not in values:
        if "tool_calling" in values:
            report(
                ("tool_calling",),
                "has no tools to call",
                "Give tools, or extend the profile tool-calling, which has some.",
            )
        return None
    given = values.get("tool_calling", {})
    tools = []
    for place, entry in enumerate(values["tools"]):
        function = entry["function"]
        path: KeyPath = ("tools", place, "function", "parameters")
        _check_schema(function.get("parameters", {}), path, report)
        tools.append(_tool(entry))
    choice = given.get("choice", "auto")
    choices = {choice: 1.0} if isinstance(choice, str) else dict(choice)
    if not any(choices.values()):
        report(("tool_calling", "choice"), "has no weight above 0", "Give one a weight above 0.")
    parallel = given.get("parallel", False)
    if parallel and len(tools) < 2:  # noqa: PLR2004 - two at once
        report(
            ("tool_calling", "parallel"),
            "asks for two functions at once, but there is one tool",
            "Give another tool, or leave out parallel.",
        )
    strict = [
        entry["function"]["strict"] for entry in values["tools"] if "strict" in entry["function"]
    ]
    return ToolCalling(
        tools=tuple(tools),
        choices={name: float(weight) for name, weight in choices.items()},
        strict=given.get("strict", all(strict)),
        parallel=parallel,
        no_call_share=float(given.get("no_call_share", 0.0)),
        second_turn=given.get("second_turn", False),
    )


def _tool(entry: Mapping[str, Any]) -> Tool:
    function = entry["function"]
    result = entry.get("result", {"status": "ok"})
    return Tool(
        name=function["name"],
        ask=entry.get(
            "ask", f"Call the function {function['name']} with arguments that you invent."
        ),
        description=function.get("description", ""),
        parameters=function.get("parameters", {"type": "object", "properties": {}}),
        result=result if isinstance(result, str) else json.dumps(result),
    )


def _conversation(values: Mapping[str, Any]) -> Conversation | None:
    given = values.get("conversation")
    if given is None:
        return None
    return Conversation(
        turns=int(given["turns"]), think_time_s=float(given.get("think_time_s", 0.0))
    )


def _images(values: Mapping[str, Any]) -> Images | None:
    given = values.get("images")
    if given is None:
        return None
    counts, sizes = given.get("count", 1), given.get("size", "512x512")
    pairs = [size.split("x") for size in (sizes if isinstance(sizes, list) else [sizes])]
    return Images(
        counts=tuple(int(count) for count in (counts if isinstance(counts, list) else [counts])),
        sizes=tuple((int(width), int(height)) for width, height in pairs),
    )
