"""The flags that `kvswarm run` shares with plain Locust, for whatever command starts such a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, Final

import click

from kvswarm.swarm.options import OPTIONS, Option

INTERLEAVE: Final = "Two targets: blocks of requests go to the one and the other in turn."


class Processes(click.IntRange):
    """A number of processes, or `auto`: one for each usable core but one."""

    name = "processes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it. Raises click.UsageError."""
        if value == "auto":
            return usable_cores() - 1 if usable_cores() > 2 else None  # noqa: PLR2004 - one is one
        return super().convert(value, param, ctx)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_options(
    command: Callable[..., Any], *, without: Collection[str] = ()
) -> Callable[..., Any]:
    """Add the options that `run` shares with plain Locust; `without`: names of those left out."""
    for option in reversed(OPTIONS):
        if option.name not in without:
            command = _flag(option)(command)
    return command


def _flag(option: Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    settings: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.kind is bool:
        settings = {"help": option.help, "is_flag": True}
    elif option.choices is not None:
        settings = {"help": option.help, "type": click.Choice(option.choices)}
    else:
        settings["type"] = option.kind
    if option.repeated:
        settings["multiple"] = True
    if option.name == "interleave":
        settings |= {"nargs": 2, "metavar": "URL_A URL_B", "help": INTERLEAVE}
    if option.name == "profile":
        settings.update(default="standard", show_default=True)
    return click.option(f"--{option.name}", option.key, **settings)


def interleaved_url(url: str | None, values: MutableMapping[str, Any]) -> str | None:
    """Take the first target out of `--interleave URL_A URL_B`; the second one stays in the values.

    Raises click.UsageError where there is another target.
    """
    if values.get("interleave") is None:
        if values.get("block") is not None:
            raise click.UsageError("--block goes with --interleave.")
        return url
    if url is not None:
        raise click.UsageError("--interleave with --url: it names both targets itself.")
    first, values["interleave"] = values["interleave"]
    return str(first)
