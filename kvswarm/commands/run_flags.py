"""The flags that `kvswarm run` shares with plain Locust, for whatever command starts such a run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click

from kvswarm.swarm.options import OPTIONS


def run_options(
    command: Callable[..., Any], *, without: Collection[str] = ()
) -> Callable[..., Any]:
    """Add the options that `run` shares with plain Locust; `without`: names of those left out."""
    for option in reversed(OPTIONS):
        if option.name in without:
            continue
        settings: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
        if option.kind is bool:
            settings = {"help": option.help, "is_flag": True}
        elif option.choices is not None:
            settings = {"help": option.help, "type": click.Choice(option.choices)}
        else:
            settings["type"] = option.kind
        if option.repeated:
            settings["multiple"] = True
        if option.name == "profile":
            settings.update(default="standard", show_default=True)
        command = click.option(f"--{option.name}", option.key, **settings)(command)
    return command
