"""The command line of `kvswarm compare`: lists of names, and the flags of `manifest` and `run`.

With run directories it compares those, and none of the flags of deployments and loads has a sense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from kvswarm.commands.deploy_options import deploy_options
from kvswarm.commands.manifest_options import manifest_options
from kvswarm.commands.run_flags import Processes, run_options
from kvswarm.errors import UsageError

LISTS: Final = ("--backends", "--quantization")
"""Flags that take all words up to the next flag."""
NOT_OF_MANIFEST: Final = frozenset(
    {
        "backend", "service", "image", "profile", "settings", "list_clusters", "canary_percent",
        "canary_model", "canary_image",
    }
)  # fmt: skip
"""Flags of `kvswarm manifest` that are others here, or `run`'s, or have no sense here."""
NOT_OF_RUN: Final = frozenset(
    {"model", "metrics-url", "metrics-port", "metrics-host", "out", "interleave", "block"}
)
"""Flags of `kvswarm run` that are others here, or have no sense for several servers."""
OF_DEPLOY: Final = frozenset({"timeout_s", "schedule_timeout_s", "skip_rules"})
"""Flags of `kvswarm deploy` that hold for each deployment."""
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


RUNS: Final = "runs"
OF_RUNS: Final = (
    click.Argument([RUNS], nargs=-1, metavar="[RUN_DIR]..."),
    click.Option(
        ["--baseline"],
        type=click.Path(path_type=Path),
        metavar="RUN_DIR",
        help="The finished run that others are compared with; default: the first.",
    ),
    click.Option(
        ["--html"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Also write the comparison of finished runs as a page.",
    ),
)
WITH_RUNS: Final = frozenset({RUNS, "baseline", "html", "as_json", "help"})
"""Parameters that have a sense with finished runs."""


class CompareCommand(click.Command):
    """A command whose `LISTS` take several words: `--backends vllm tgi`; or run directories."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write each word of a list with its flag, as click wants it. Raises click.UsageError."""
        words = spread_lists(args)
        typed, _, order = self.make_parser(ctx).parse_args(args=list(words))
        if isinstance(runs := typed.get(RUNS), tuple) and runs:  # click has a word for unset
            ctx.meta[RUNS] = True
            others = [each.opts[0] for each in order if each.name not in WITH_RUNS]
            if others:
                raise click.UsageError(
                    f"{', '.join(dict.fromkeys(others))} with run directories: finished runs are "
                    "compared as they are. Leave the flags away, or the directories, to deploy "
                    "and measure.",
                    ctx,
                )
        else:
            for param in order:
                if param in OF_RUNS[1:]:
                    raise click.UsageError(
                        f"{param.opts[0]}: is for finished runs. Name their directories, too.", ctx
                    )
        return super().parse_args(ctx, words)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters, or those alone that have a sense with finished runs."""
        params = super().get_params(ctx)
        if RUNS not in ctx.meta:
            return params
        return [param for param in params if param.name in WITH_RUNS]


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


def compare_flags() -> list[click.Parameter]:
    """All flags, in the order of the help."""
    of_run = _flags(lambda command: run_options(command, without=NOT_OF_RUN))
    of_manifest = [each for each in _flags(manifest_options) if each.name not in NOT_OF_MANIFEST]
    of_deploy = [each for each in _flags(deploy_options) if each.name in OF_DEPLOY]
    return [*OF_RUNS, *OWN, *of_run, *of_manifest, *of_deploy]


def _flags(add: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[click.Parameter]:
    """The flags that a decorator adds to a command."""
    return click.command()(add(lambda **_: None)).params
