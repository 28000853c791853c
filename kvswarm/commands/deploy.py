"""`kvswarm deploy` and `kvswarm teardown`: a profile's server on a cluster, and off it again.

In:  the flags of the command line.
Out: progress on standard error; on standard output where the service is, and lines to paste.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from kvswarm.commands.guard import guard_deployed
from kvswarm.commands.manifest import decide, placed, show, typed_request
from kvswarm.kserve.applying import command_line, judge
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import Deployment, DeployOptions, deploy
from kvswarm.kserve.deployment_file import default_directory, new_directory
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.teardown import TeardownOptions, teardown
from kvswarm.profiles.load import load_written
from kvswarm.profiles.overrides import Overrides

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
OTHERS: Final = frozenset(
    {"context", "dry_run", "timeout_s", "schedule_timeout_s", "keep", "force", "skip_rules", "out"}
)
"""Flags that say nothing of what is deployed."""


def deploy_typed(values: Mapping[str, Any]) -> None:
    """Deploy by the flags. Raises UsageError, ProfileError, RunDirError or ClusterError."""
    request = typed_request(values)
    written = load_written(request.profile, Overrides(settings=request.settings))
    decided = decide(request, written.profile)
    if not values["skip_rules"]:
        guard_deployed(placed(request, written.profile)[0], written)
    if values["dry_run"] == "client":
        show(decided)
        return
    for note in decided.notes:
        tell(note)
    cluster = Cluster.connect(values["context"])
    if values["dry_run"] == "server":
        show_judged(cluster, decided, force=values["force"])
        return
    directory = values["out"] or default_directory(request.service)
    new_directory(directory)
    options = DeployOptions(
        timeout_s=values["timeout_s"],
        schedule_timeout_s=values["schedule_timeout_s"],
        keep=values["keep"],
        force=values["force"],
        directory=directory,
        context=values["context"],
        flags=recorded_flags(values),
    )
    with ending_as_interrupts():
        deployment = deploy(cluster, decided, options, tell)
    show_deployment(deployment, request.profile, values["context"])


def recorded_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given or are the default, for deployment.json."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in OTHERS and value is not None
    }


def show_judged(cluster: Cluster, decided: Manifests, *, force: bool) -> None:
    """Print what the API server would do with each document. Raises ClusterError."""
    for judged in judge(cluster, decided.documents, force=force):
        if judged.is_new:
            click.echo(f"would make {judged.made.words}")
        elif judged.changes:
            click.echo(f"would change {judged.made.words}:")
        else:
            click.echo(f"{judged.made.words} would stay as it is")
        for change in judged.changes:
            click.echo(f"  {change}")
        for field in judged.dropped:
            click.echo(f"  this cluster knows no {field}, and would leave it out")


def show_deployment(deployment: Deployment, profile: str, context: str | None) -> None:
    """Print where it is, and what to do next."""
    times = ", ".join(
        f"{name.removesuffix('_s')} {value:.1f} s"
        for name, value in deployment.phases.items()
        if value is not None
    )
    tell(f"ready: {times}")
    if deployment.file is not None:
        tell(f"written: {deployment.file}")
    namespace, service = deployment.namespace, deployment.service
    click.echo(f"URL: {deployment.url or 'the cluster does not say where it is reached'}")
    run = command_line("run", namespace, service, context)
    click.echo(f"Measure it: {run} --profile {shlex.quote(profile)}")
    click.echo(f"Remove it:  {command_line('teardown', namespace, service, context)}")


def teardown_typed(values: Mapping[str, Any]) -> None:
    """Remove by the flags. Raises ClusterError."""
    cluster = Cluster.connect(values["context"])
    options = TeardownOptions(force=values["force"], timeout_s=values["timeout_s"])
    with ending_as_interrupts():
        removed = teardown(cluster, values["namespace"], values["service"], options, tell)
    if not removed:
        click.echo(
            f"nothing to remove: no service {values['service']} in namespace {values['namespace']}"
        )


def tell(line: str) -> None:
    """Say a line to the person, beside what is for a pipe."""
    click.echo(f"kvswarm: {line}", err=True)


@contextlib.contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """Make SIGTERM and SIGHUP the same as Ctrl-C, unless they are ignored, as under nohup."""
    before = {
        kind: signal.signal(kind, signal.default_int_handler)
        for kind in ENDING
        if signal.getsignal(kind) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
