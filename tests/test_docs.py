"""docs/command-line.md has a line for every command and flag, and none for what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from kvswarm.cli import commands

PAGE = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## kvswarm (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_the_page_has_a_section_for_every_command() -> None:
    """A command that is not documented is one that nobody finds."""
    assert set(SECTIONS) == set(commands.commands)


@pytest.mark.parametrize("name", commands.commands)
def test_the_section_has_a_line_for_every_flag_with_its_default(name: str) -> None:
    """And an example to paste."""
    assert f"    kvswarm {name}" in SECTIONS[name]
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \|(.*)\|$", SECTIONS[name], re.MULTILINE))
    options = [p for p in commands.commands[name].params if isinstance(p, click.Option)]
    assert set(rows) == {option.opts[0] for option in options}
    for option in options:
        if option.show_default:
            assert f"| {option.default} |" in rows[option.opts[0]], option.name
