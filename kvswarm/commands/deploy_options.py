"""The flags of `kvswarm deploy` beside those of `kvswarm manifest`, and of `kvswarm teardown`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

CONTEXT: Final = click.option(
    "--context", metavar="C", help="Entry of the kubeconfig; default: its current one."
)
SECONDS: Final = click.FloatRange(min=0, min_open=True)

DEPLOY: Final = (
    CONTEXT,
    click.option(
        "--dry-run",
        type=click.Choice(["client", "server"]),
        is_flag=False,
        flag_value="client",
        help="Print the manifests; =server: have the API server judge them. Changes nothing.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=SECONDS,
        default=1800.0,
        show_default=True,
        metavar="S",
        help="Seconds to wait until it is ready.",
    ),
    click.option(
        "--schedule-timeout",
        "schedule_timeout_s",
        type=SECONDS,
        default=300.0,
        show_default=True,
        metavar="S",
        help="Seconds that a pod may find no node.",
    ),
    click.option("--keep", is_flag=True, help="Leave what was made where it does not get ready."),
    click.option("--force", is_flag=True, help="Also change what kvswarm does not manage."),
    click.option(
        "--no-validate",
        "skip_rules",
        is_flag=True,
        help="Deploy also what `kvswarm validate` refuses.",
    ),
    click.option(
        "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where deployment.json goes."
    ),
)
TEARDOWN: Final = (
    click.option("--namespace", required=True, metavar="N", help="Namespace of the service."),
    click.option("--service", required=True, metavar="S", help="Its name."),
    CONTEXT,
    click.option(
        "--timeout",
        "timeout_s",
        type=SECONDS,
        default=300.0,
        show_default=True,
        metavar="S",
        help="Seconds to wait until its pods are gone.",
    ),
    click.option("--force", is_flag=True, help="Also remove what kvswarm does not manage."),
)


def deploy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those of `deploy`."""
    return _with(DEPLOY, command)


def teardown_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those of `teardown`."""
    return _with(TEARDOWN, command)


def _with(options: tuple[Any, ...], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
