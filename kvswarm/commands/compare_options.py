"""The command line of `kvswarm compare`: lists of names, and the flags of `manifest` and `run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from kvswarm.commands.manifest_options import manifest_options
from kvswarm.commands.run_flags import Processes, run_flags
from kvswarm.errors import UsageError

LISTS: Final = ("--backends", "--quantization")
"""Flags that take all words up to the next flag."""
NOT_OF_MANIFEST: Final = frozenset({"backend", "service", "image", "profile", "settings"})
"""Flags of `kvswarm manifest` that are others here, or `run`'s."""
NOT_OF_RUN: Final = frozenset({"model", "metrics-url", "metrics-port", "metrics-host", "out"})
"""Flags of `kvswarm run` that are others here, or have no sense for several servers."""
OWN: Final = (
    click.Option(
        ["--backends"],
        multiple=True,
        metavar="B ...",
        help="Model servers to compare, one after the other; default: vllm.",
    ),
    click.Option(
        ["--quantization", "quantizations"],
        multiple=True,
        metavar="Q ...",
        help="Quantizations to compare: packaged profiles quantization/Q; none for the model.",
    ),
    click.Option(
        ["--model-of", "models_of"],
        multiple=True,
        metavar="Q=URI",
        help="The checkpoint of a quantization; repeatable.",
    ),
    click.Option(
        ["--service"],
        default="compare",
        show_default=True,
        metavar="PREFIX",
        help="What the services' names begin with.",
    ),
    click.Option(
        ["--image", "images"],
        multiple=True,
        metavar="B=IMAGE",
        help="Image in place of a backend's own; repeatable.",
    ),
    click.Option(
        ["--header", "headers"],
        multiple=True,
        metavar="'NAME: VALUE'",
        help="Header of every request; repeatable. Never written to a run directory.",
    ),
    click.Option(["--processes"], type=Processes(min=1), metavar="P|auto", help="As of `run`."),
    click.Option(["--context"], metavar="C", help="Entry of the kubeconfig; default: its current."),
    click.Option(
        ["--token-from-kubeconfig"],
        is_flag=True,
        help="Send the kubeconfig's token to the services, over https alone unless --insecure.",
    ),
    click.Option(["--shuffle"], is_flag=True, help="Run in a random order, which the seed gives."),
    click.Option(
        ["--fail-fast/--keep-going"],
        help="End with the first that cannot be deployed or run; default: go on with the others.",
    ),
    click.Option(["--out"], metavar="DIR", help="The directory; one that was begun goes on."),
    click.Option(["--dry-run"], is_flag=True, help="Print plan and manifests, and do nothing."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print comparison.json."),
)


class ListsCommand(click.Command):
    """A command whose `LISTS` take several words: `--backends vllm tgi`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write each word of a list with its flag, as click wants it."""
        return super().parse_args(ctx, spread_lists(args))


def spread_lists(words: Sequence[str]) -> list[str]:
    """`--backends a b --x` as `--backends a --backends b --x`; words after `--` are left alone."""
    spread: list[str] = []
    flag: str | None = None
    for place, word in enumerate(words):
        if word == "--":
            return [*spread, *words[place:]]
        if word in LISTS:
            flag = word
            if place + 1 == len(words) or words[place + 1].startswith("-"):
                spread.append(word)  # click says that it has no value
        elif word.startswith("-") or flag is None:
            flag = None
            spread.append(word)
        else:
            spread += [flag, word]
    return spread


def names_of(values: Sequence[str]) -> tuple[str, ...]:
    """The names of a list, which may be divided by commas, too."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def pairs_of(flag: str, values: Sequence[str]) -> dict[str, str]:
    """Read `NAME=VALUE`, each once. Raises UsageError."""
    pairs: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} {text}: is not NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{flag} {text}: {name} is given twice", fix="Keep one.")
        pairs[name] = value
    return pairs


def manifest_flags() -> list[click.Parameter]:
    """The flags of `kvswarm manifest` that all variants share."""
    command = click.command()(manifest_options(lambda **_: None))
    return [each for each in command.params if each.name not in NOT_OF_MANIFEST]


def compare_flags() -> list[click.Parameter]:
    """All flags, in the order of the help."""
    return [*OWN, *run_flags(without=NOT_OF_RUN), *manifest_flags()]
