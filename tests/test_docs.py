"""docs/command-line.md has a line for every command and flag, and none for what is not there."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import click
import pytest

from kvswarm.cli import commands
from kvswarm.commands.compare_file import SCHEMA_PATH as COMPARISON_SCHEMA_PATH
from kvswarm.commands.sweep_file import SCHEMA_PATH

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "command-line.md").read_text("utf-8")
OTHERS = re.compile(r"The flags of \[`kvswarm (\w+)`\]\(#kvswarm-\w+\)(?: but ([^:]*?))?,? and:")
"""Where a command has those of another, but for some."""
SECTIONS = dict(
    re.findall(r"^## kvswarm ([\w ]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
)


def every_command(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """All commands by what is typed, those within groups included."""
    found = {}
    for name, command in group.commands.items():
        found[f"{before}{name}"] = command
        if isinstance(command, click.Group):
            found |= every_command(command, f"{before}{name} ")
    return found


COMMANDS = every_command(commands)


def test_the_page_has_a_section_for_every_command() -> None:
    """A command that is not documented is one that nobody finds."""
    assert set(SECTIONS) == set(COMMANDS)


def rows_of(name: str) -> dict[str, str]:
    """The lines of a command's own table, by flag."""
    return dict(re.findall(r"^\| `(--[\w-]+)` \|(.*)\|$", SECTIONS[name], re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_has_a_line_for_every_flag_with_its_default(name: str) -> None:
    """And an example to paste."""
    assert f"    kvswarm {name}" in SECTIONS[name]
    rows = rows_of(name)
    if (others := OTHERS.search(SECTIONS[name])) is not None:
        without = re.findall(r"`(--[\w-]+)`", others[2] or "")
        assert set(without) <= set(rows_of(others[1]))
        shared = {flag: row for flag, row in rows_of(others[1]).items() if flag not in without}
        rows = shared | rows
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    assert set(rows) == {option.opts[0] for option in options}
    for option in options:
        if option.show_default:
            assert f"| {option.default} |" in rows[option.opts[0]], option.name


def test_every_member_of_sweep_json_has_a_line() -> None:
    """By its path, and no line of one that is gone."""
    schema = json.loads(SCHEMA_PATH.read_text("utf-8"))
    rows = re.findall(
        r"^\| (`.*?) \|", SECTIONS["run"].partition("In `sweep.json`")[2], re.MULTILINE
    )
    value = schema["properties"]["values"]["items"]["properties"]
    paths = {name for name in schema["properties"] if name != "values"}
    paths |= {f"values[].{name}" for name in value if name != "figures"}
    paths |= {f"values[].figures.{name}" for name in value["figures"]["properties"]}
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == paths


def test_every_member_of_comparison_json_has_a_line() -> None:
    """In docs/kserve.md, by its path."""
    schema = json.loads(COMPARISON_SCHEMA_PATH.read_text("utf-8"))["properties"]
    table = (DOCS / "kserve.md").read_text("utf-8").partition("In `comparison.json`")[2]
    rows = re.findall(r"^\| (`.*?) \|", table.partition("\n#")[0], re.MULTILINE)
    paths = {name for name in schema if name not in {"cluster", "machine", "variants"}}
    for name in ("cluster", "machine"):
        paths |= {f"{name}.{member}" for member in schema[name]["properties"]}
    paths |= {f"variants[].{name}" for name in schema["variants"]["items"]["properties"]}
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == paths


def test_every_member_of_a_comparison_of_runs_is_in_its_page() -> None:
    """By its name, in the row of what it is part of."""
    page = (DOCS / "comparing.md").read_text("utf-8").partition("## The comparison as JSON")[2]
    told = set(re.findall(r"`([\w.\[\]]+)`", page))

    def names(schema: dict[str, Any]) -> set[str]:
        own = schema.get("properties", {})
        parts = [*own.values(), *([schema["items"]] if "items" in schema else [])]
        return set(own).union(*(names(part) for part in parts))

    schema = resources.files("kvswarm.analysis").joinpath("run_comparison.schema.json")
    known = names(json.loads(schema.read_text("utf-8")))
    assert known <= {name.rpartition(".")[2].removesuffix("[]") for name in told}
