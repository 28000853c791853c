"""Commands that exchange runs with other tools; like `cli.py`, thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

EXPORTED: Final = ("vllm-bench", "aiperf", "guidellm", "genai-bench", "benchmark-report")
IMPORTED: Final = ("vllm-bench", "aiperf", "guidellm")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", type=click.Choice(EXPORTED), required=True, help="Whose file."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option("--no-detail", is_flag=True, help="Leave out what is per request.")
def export(run: Path, format_name: str, out: Path | None, no_detail: bool) -> None:
    """Write a run as a result file of another tool.

    Example: kvswarm export runs/RUN --format vllm-bench --out result.json
    """
    from kvswarm.commands.exchange import export as export_run  # noqa: PLC0415 - keeps --help quick

    export_run(run, format_name, out=out, detail=not no_detail)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", type=click.Choice(IMPORTED), help="Whose file; default: detected."
)
@click.option("--part", type=click.IntRange(min=1), metavar="N", help="Which run of the file.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run directory itself."
)
def import_file(file: Path, format_name: str | None, part: int | None, out: Path | None) -> None:
    """Make a run directory of another tool's result file, marked as what it is.

    Example: kvswarm import result.json
    """
    from kvswarm.commands.exchange import ImportRequest  # noqa: PLC0415 - keeps --help quick
    from kvswarm.commands.exchange import import_file as import_run  # noqa: PLC0415

    import_run(ImportRequest(path=file, format_name=format_name, part=part, out=out))


COMMANDS: Final = (export, import_file)
"""In the order of the help."""
