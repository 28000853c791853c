"""The command line: parse, call, print. Everything else is elsewhere, and imported when needed."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Any

import click

import kvswarm
from kvswarm import cli_analysis, cli_cluster, cli_sweep
from kvswarm.commands.compare_options import CompareCommand, compare_flags
from kvswarm.commands.cost_options import cost_options
from kvswarm.commands.in_cluster_options import in_cluster_options
from kvswarm.commands.run_flags import Processes, run_options
from kvswarm.commands.service_options import service_options
from kvswarm.commands.validate_options import validate_options
from kvswarm.errors import EXIT_INTERRUPTED, KvswarmError, UsageError
from kvswarm.serving.versions import NEWEST


class Commands(click.Group):
    """A group that names the nearest command when one is unknown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises click.UsageError."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near and "Did you mean" not in error.message:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kvswarm.__version__, prog_name="kvswarm")
def commands() -> None:
    """Load-test LLMs on KServe and other OpenAI-compatible servers: figures you can bet on."""


@commands.command()
@run_options
@click.option("--url", metavar="URL", help="The server's root, or its /v1 or /openai/v1 base.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Header of every request; repeatable. Never written to the run directory.",
)
@click.option(
    "--processes",
    type=Processes(min=1),
    metavar="P|auto",
    help="Load-generating processes on this machine; auto: one for each usable core but one.",
)
@click.option("--master", is_flag=True, help="Let `kvswarm worker` processes make the load.")
@click.option(
    "--expect-workers", type=click.IntRange(min=1), metavar="N", help="Wait for so many workers."
)
@click.option("--master-bind-host", metavar="H", help="Address for workers to connect to.")
@click.option(
    "--master-bind-port", type=click.IntRange(1, 65535), metavar="P", help="Port for workers."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="RUN_DIR",
    help="Compare with this earlier run of the same workload.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=V1,V2,...",
    help="One run per value of a key of the profile, and a table of them.",
)
@click.option(
    "--serve",
    metavar="'COMMAND'",
    help="Start this server for the run, with the flags that the profile wants, and stop it after.",
)
@click.option(
    "--serve-version",
    metavar="VERSION",
    help="vLLM's version, whose flags it takes; default: the newest known.",
)
@click.option(
    "--serve-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds to wait for its GET /health; default: 600.",
)
@cost_options
@service_options
@in_cluster_options
@click.option(
    "--hand-over",
    "hand_over_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Let the run's directory be fetched there; with --in-cluster default: 5559.",
)
@click.option(
    "--no-validate", "skip_rules", is_flag=True, help="Run also what `kvswarm validate` refuses."
)
@click.option("--list-profiles", is_flag=True, help="List the packaged profiles and leave.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and do nothing.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print summary.json to standard output, progress to standard error.",
)
def run(list_profiles: bool, **values: Any) -> int:
    """Load-test a streaming LLM endpoint; without --url the embedded simulator.

    Example: kvswarm run --profile standard --url http://127.0.0.1:8000 --concurrency 16
    """
    if list_profiles:
        from kvswarm.commands.profiles import show_profiles  # noqa: PLC0415

        show_profiles(None, as_json=values["as_json"])
        return 0
    from kvswarm.commands.run import run as run_load  # noqa: PLC0415 - keeps --help quick
    from kvswarm.commands.run_request import request_of  # noqa: PLC0415

    return run_load(request_of(values, sys.argv[1:]))


@commands.command()
@click.option("--master-host", required=True, metavar="H", help="Where `kvswarm run --master` is.")
@click.option(
    "--master-port",
    type=click.IntRange(1, 65535),
    default=5557,
    show_default=True,
    metavar="P",
    help="Its port.",
)
@click.option(
    "--processes",
    type=Processes(min=1),
    default=1,
    show_default=True,
    metavar="P|auto",
    help="Load-generating processes on this machine; auto: one for each usable core but one.",
)
def worker(master_host: str, master_port: int, processes: int | None) -> None:
    """Make load for `kvswarm run --master`; secrets come from this process's environment.

    Example: kvswarm worker --master-host 10.0.0.5 --processes auto
    """
    from kvswarm.commands.worker import WorkerRequest, work  # noqa: PLC0415 - keeps --help quick

    work(WorkerRequest(master_host=master_host, master_port=master_port, processes=processes or 1))


@commands.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="RUN_DIR",
    help="Compare with this run of the same workload.",
)
@click.option(
    "--estimate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold the figures against what `kvswarm validate --json` had estimated.",
)
@cost_options
@click.option(
    "--format",
    "formats",
    metavar="md,csv,xlsx",
    help="Write report.md, figures.csv, figures.xlsx beside report.html.",
)
@click.option("--png", is_flag=True, help="Draw the plots as pictures, into plots/, by Chromium.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json.")
def report(path: Path, **values: Any) -> int:
    """Make or remake the figures of a run directory, also after a crash.

    Example: kvswarm report runs/20260101T120000Z-standard-3f2a91
    """
    from kvswarm.commands.report import report_typed  # noqa: PLC0415

    return report_typed(path, values)


@commands.command()
@click.argument("name", required=False)
@click.option("--use-case", metavar="NAME", help="Recommend profiles for a use case.")
@click.option("--flags", is_flag=True, help="Show how to start a server for the profile NAME.")
@click.option(
    "--vllm-version", metavar="V", default=str(NEWEST), show_default=True, help="With --flags."
)
@click.option("--model", metavar="NAME|DIR", help="With --flags: for drafts and memory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def profiles(  # noqa: PLR0913, PLR0917 - one per flag
    name: str | None,
    use_case: str | None,
    flags: bool,
    vllm_version: str,
    model: str | None,
    as_json: bool,
) -> int:
    """List the packaged profiles, recommend some for a use case, or show one as it is resolved.

    Example: kvswarm profiles --use-case latency
    """
    from kvswarm.commands.profiles import (  # noqa: PLC0415
        show_flags,
        show_profile,
        show_profiles,
    )

    if flags:
        if name is None:
            raise UsageError("--flags: of which profile?", fix="Give its name or file.")
        show_flags(name, vllm_version, model)
    elif name is not None:
        show_profile(name, as_json=as_json)
    else:
        show_profiles(use_case, as_json=as_json)
    return 0


@commands.command()
@validate_options
def validate(**values: Any) -> int:
    """Check a profile for what would crash, lie or waste a GPU hour; exit code 2 on an error.

    Example: kvswarm validate --profile quantization/fp8 --runtime-version 0.24.0
    """
    from kvswarm.commands.validate import validate_typed  # noqa: PLC0415 - keeps --help quick

    return validate_typed(values)


@commands.command(cls=CompareCommand, params=compare_flags())
def compare(**values: Any) -> int:
    """Compare finished runs; or deploy backends or quantizations of a model in turn, and those.

    Example: kvswarm compare runs/fp16 runs/awq

    Example: kvswarm compare --model hf://Qwen/Qwen3-8B --backends vllm tgi --namespace llm
    """
    if values["runs"]:
        from kvswarm.commands.compare_runs import compare_runs_typed  # noqa: PLC0415

        return compare_runs_typed(values)
    from kvswarm.commands.compare import compare_typed  # noqa: PLC0415 - keeps --help quick
    from kvswarm.commands.run_request import redacted  # noqa: PLC0415

    return compare_typed(values, redacted(sys.argv[1:]))


@commands.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> int:
    """Serve a simulated LLM, such as vLLM would; `kvswarm simulate --help` lists its options.

    Example: kvswarm simulate --port 8000 --exact 100 10
    """
    from kvswarm.simulator.__main__ import main as simulator_main  # noqa: PLC0415

    return simulator_main(list(arguments))


@commands.command()
@click.option(
    "--max-streams",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Stop at this many streams.",
)
@click.option(
    "--error-share",
    type=click.FloatRange(min=0.0001, max=1.0),
    default=0.01,
    show_default=True,
    help="Error of TTFT and ITL p99 to stay within.",
)
def calibrate(max_streams: int, error_share: float) -> int:
    """Find how many streams and tokens/s one process on this machine can measure truly.

    Example: kvswarm calibrate --max-streams 1024
    """
    from kvswarm.commands.calibrate import calibrate as run_calibration  # noqa: PLC0415

    return run_calibration(max_streams=max_streams, error_share=error_share)


for each in (*cli_cluster.COMMANDS, *cli_analysis.COMMANDS, cli_sweep.sweep_command(run)):
    commands.add_command(each)


def main() -> None:
    """Entry point: exit codes as documented, no traceback for a person's mistake."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    try:
        code = commands.main(standalone_mode=False)
    except KvswarmError as error:
        click.echo(f"kvswarm: {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    sys.exit(code or 0)
