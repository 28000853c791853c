"""The commands that read finished runs, or make some of other tools' files: parse, call.

See `cli.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

EXPORTED: Final = ("vllm-bench", "aiperf", "guidellm", "genai-bench", "benchmark-report")
IMPORTED: Final = ("vllm-bench", "aiperf", "guidellm")


@click.command()
@click.argument("runs", nargs=-1, metavar="BASELINE [FEATURE=]RUN_DIR...")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def impact(runs: tuple[str, ...], as_json: bool) -> int:
    """Tell what each feature of serving did, measured, beside what is usually claimed of it.

    Example: kvswarm impact runs/fp16 runs/awq runs/ngram
    """
    from kvswarm.commands.impact import impact as show  # noqa: PLC0415 - keeps --help quick

    return show(runs, as_json=as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--slo",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Limits on figures of the run, and what may not get worse.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run of the same workload that `regression` of the file compares with.",
)
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML there."
)
@click.option("--markdown", metavar="FILE|-", help="Append Markdown there; -: print it instead.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def gate(  # noqa: PLR0913, PLR0917 - one per flag
    run: Path,
    slo: Path,
    baseline: Path | None,
    junit: Path | None,
    markdown: str | None,
    as_json: bool,
) -> int:
    """Hold a finished run against SLOs and a baseline: 0 passed, 1 failed, 3 invalid.

    Example: kvswarm gate runs/candidate --slo slo.yaml --baseline runs/main
    """
    from kvswarm.commands.gate import GateRequest  # noqa: PLC0415 - keeps --help quick
    from kvswarm.commands.gate import gate as gate_run  # noqa: PLC0415

    return gate_run(
        GateRequest(
            run=run,
            slo=slo,
            baseline=baseline,
            junit=junit,
            markdown=markdown,
            as_json=as_json,
        )
    )


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


COMMANDS: Final = (impact, gate, export, import_file)
"""In the order of the help."""
