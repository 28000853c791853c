"""`kvswarm report`: make the figures of a run directory and show them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from kvswarm.analysis.estimates import keep_estimate
from kvswarm.analysis.finish import finish
from kvswarm.analysis.formats import write_formats
from kvswarm.analysis.gates import exit_code
from kvswarm.analysis.summary_file import read_summary
from kvswarm.analysis.terminal import render
from kvswarm.commands.cost_options import cost_asked
from kvswarm.commands.costs import keep_costs
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir


def report_typed(path: Path, values: dict[str, Any]) -> int:
    """`report` by the flags; what they say of costs is kept. Raises KvswarmError."""
    run = RunDir(path)
    keep_costs(run, cost_asked(values))
    formats, png = values.pop("formats"), values.pop("png")
    code = report(path, **values)
    written = []
    if formats is not None:
        written += write_formats(run, read_summary(run), formats)
    if png:
        from kvswarm.commands.pictures import write_pictures  # noqa: PLC0415 - rarely needed

        written += write_pictures(run, read_summary(run))
    for each in written:
        click.echo(f"Wrote {each}", err=True)
    return code


def report(
    path: Path,
    *,
    as_json: bool,
    baseline: Path | None = None,
    estimate: Path | None = None,
    quiet: bool = False,
) -> int:
    """Make table, summary and page of a run, and show figures; give the exit code they ask for.

    `baseline`: a run of the same workload to compare with. `estimate`: a file of `kvswarm validate
    --json` to hold the figures against; it is kept. `quiet`: show nothing. Raises RunDirError where
    one of the two is no run directory, UsageError where workloads differ or no estimate is there.
    """
    if estimate is not None:
        run = RunDir(path)
        run.read_info()
        keep_estimate(run, estimate)
    summary = finish(path, baseline)
    if as_json and not quiet:
        packed = msgspec.json.format(msgspec.json.encode(summary), indent=2)
        sys.stdout.write(packed.decode() + "\n")
    elif not quiet:
        console = Console()
        render(summary, console)
        console.print(f"Run directory: {path}", soft_wrap=True)
    return exit_code(summary)


def show(path: Path, *, as_json: bool) -> None:
    """Show the figures of a run directory that has them. Raises RunDirError."""
    summary_path = RunDir(path).summary
    try:
        text = summary_path.read_text("utf-8")
        summary = msgspec.json.decode(text)
    except (OSError, msgspec.DecodeError) as error:
        raise RunDirError(
            f"{summary_path}: cannot be read: {error}", fix=f"Remake it: kvswarm report {path}"
        ) from error
    if as_json:
        sys.stdout.write(text)
        return
    console = Console()
    render(summary, console)
    console.print(f"Run directory: {path}", soft_wrap=True)
