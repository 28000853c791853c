"""The commands that read finished runs: parse, call. See `cli.py`."""

from __future__ import annotations

from typing import Final

import click


@click.command()
@click.argument("runs", nargs=-1, metavar="BASELINE [FEATURE=]RUN_DIR...")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def impact(runs: tuple[str, ...], as_json: bool) -> int:
    """Tell what each feature of serving did, measured, beside what is usually claimed of it.

    Example: kvswarm impact runs/fp16 runs/awq runs/ngram
    """
    from kvswarm.commands.impact import impact as show  # noqa: PLC0415 - keeps --help quick

    return show(runs, as_json=as_json)


COMMANDS: Final = (impact,)
