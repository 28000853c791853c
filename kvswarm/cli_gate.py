"""The command that CI calls; like `cli.py`, thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path

import click


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
