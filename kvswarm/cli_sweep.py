"""`kvswarm sweep`: the flags of `kvswarm run` that go with it, and its own; thin, like `cli.py`."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

WITHOUT: Final = frozenset(
    {
        "sweeps", "baseline", "list_profiles", "hand_over_port", "master", "expect_workers",
        "master_bind_host", "master_bind_port", "in_cluster", "workers", "image",
        "image_pull_secret", "secret_env", "results_claim", "data_claim", "worker_cpus",
        "worker_memory", "master_cpus", "master_memory", "away_from_gpus", "node_selector",
        "toleration", "account", "deadline", "cold", "cold_timeout", "metrics_port",
        "metrics_host", "interleave", "block",
    }
)  # fmt: skip
"""Flags of `kvswarm run`, by name, that are of one run or of a run on a cluster."""
OPTIONS: Final = (
    click.Option(
        ["--over", "overs"],
        multiple=True,
        metavar="KEY=V1,V2,...",
        help="One run per value of a key of the profile; repeatable, for every combination.",
    ),
    click.Option(["--profiles"], metavar="P1,P2,...", help="One run per profile, by name or file."),
    click.Option(
        ["--search"],
        type=click.Choice(["rate", "concurrency"]),
        help="Find the highest load that meets the SLOs, instead.",
    ),
    click.Option(
        ["--slo", "slos"],
        multiple=True,
        metavar="NAME=MS",
        help="With --search: a limit such as ttft_p95_ms=300; default: the profile's slo.",
    ),
    click.Option(
        ["--goodput"],
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="With --search: share of requests that must meet all SLOs of requests; default: 0.99.",
    ),
    click.Option(
        ["--precision"],
        type=click.FloatRange(0, 1, min_open=True),
        metavar="SHARE",
        help="With --search: stop where the bracket is so narrow; default: 0.05.",
    ),
    click.Option(
        ["--from", "start"],
        type=click.FloatRange(0, min_open=True),
        metavar="LOAD",
        help="With --search: the first load; default: the profile's.",
    ),
    click.Option(
        ["--most"],
        type=click.FloatRange(0, min_open=True),
        metavar="LOAD",
        help="With --search: the highest load to try; default: 4096.",
    ),
    click.Option(
        ["--blocks"],
        type=click.IntRange(2, 20),
        metavar="N",
        help="With --search: most runs at one load; default: 5.",
    ),
)


def sweep_command(run: click.Command) -> click.Command:
    """Make the command, with the options of `kvswarm run` that it shares."""
    shared = [option for option in run.params if option.name not in WITHOUT]
    return click.Command(
        "sweep",
        params=[*shared[:1], *OPTIONS, *shared[1:]],
        callback=_sweep,
        help="Run over values of keys, or search the highest load that meets the SLOs.\n\n"
        "Example: kvswarm sweep --profile standard --over concurrency=1,2,4,8",
    )


def _sweep(**values: Any) -> int:
    from kvswarm.commands.sweep_asked import sweep_asked  # noqa: PLC0415 - keeps --help quick

    return sweep_asked(values, sys.argv[1:])
