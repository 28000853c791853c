"""The flags of `kvswarm validate`, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from kvswarm.guardrails.facts import RUNTIMES

OPTIONS: Final = (
    click.option(
        "--profile", default="standard", show_default=True, metavar="P", help="What is checked."
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Key of the profile."
    ),
    click.option(
        "--model",
        metavar="NAME|DIR|FILE",
        help="The model: its name, directory, or config.json.",
    ),
    click.option(
        "--backend",
        type=click.Choice(list(RUNTIMES)),
        help="The model server on KServe; default: vLLM wherever it runs.",
    ),
    click.option(
        "--runtime-version",
        metavar="V",
        help="vLLM's version; default: that of the backend's image, or the newest known.",
    ),
    click.option("--gpu", metavar="NAME", help="The GPU, such as A100-80GB; cpu for none."),
    click.option("--mig", metavar="SLICE", help="A slice of the GPU, such as 1g.10gb."),
    click.option("--replicas", type=click.IntRange(min=0), metavar="N", help="Fewest replicas."),
    click.option(
        "--mode", type=click.Choice(["standard", "knative"]), help="KServe's mode of deployment."
    ),
    click.option("--strict", is_flag=True, help="Exit with 2 on warnings, too."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts."),
    click.option("--explain", metavar="RULE", help="Tell all about a rule, such as KVS012."),
)


def validate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
