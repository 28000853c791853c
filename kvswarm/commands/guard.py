"""The rules before a run or a deployment: errors refuse it, warnings are told once.

In:  a profile as it was written, what is known of the server, and which rules matter.
Out: lines on standard error; a ProfileError where there are errors.

A run against a server that is there already is held to what its load and its requests are: how that
server was started is its own affair, and the run's claims tell what it is. Where backend and
version are not known, rules that depend on them warn.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import click

from kvswarm.commands.load import RunRequest
from kvswarm.guardrails.check import Checked, findings_of, refuse
from kvswarm.guardrails.deployments import deployment_of
from kvswarm.guardrails.facts import Server, facts_of
from kvswarm.guardrails.rule import Finding, Scope
from kvswarm.kserve.checkpoints import VLLM_VERSIONS
from kvswarm.kserve.wanted import Wanted
from kvswarm.profiles.load import Written
from kvswarm.serving.versions import NEWEST, vllm_version

OF_RUN: Final[tuple[Scope, ...]] = ("load", "requests")
OF_SERVED: Final[tuple[Scope, ...]] = (*OF_RUN, "server")
OF_DEPLOYED: Final[tuple[Scope, ...]] = (*OF_SERVED, "deployment")


def guard_run(request: RunRequest, written: Written, told: set[str] | None = None) -> None:
    """Hold a run to the rules. Raises ProfileError.

    `told`: what was told before, and is not told again; a sweep has many runs of one profile.
    """
    if not request.validated:
        return
    server, scopes = Server(certain=False), OF_RUN
    if request.serve is not None:
        version = vllm_version(request.serve.version)
        server, scopes = Server(version=version, model=request.values.get("model")), OF_SERVED
    guard(written, server, scopes, told=told)


def guard_deployed(wanted: Wanted, written: Written, told: set[str] | None = None) -> None:
    """Hold what is to be deployed to the rules. Raises ProfileError."""
    version = wanted.vllm_version or VLLM_VERSIONS.get(wanted.backend, str(NEWEST))
    server = Server(
        backend=wanted.backend,
        version=vllm_version(version),
        model=wanted.source.model,
        deployment=deployment_of(wanted),
    )
    guard(written, server, OF_DEPLOYED, told=told)


def guard(
    written: Written, server: Server, scopes: Collection[Scope], *, told: set[str] | None = None
) -> None:
    """Hold a profile to the rules of some scopes. Raises ProfileError where there are errors."""
    checked = Checked(written, findings_of(facts_of(written, server), scopes))
    told = set() if told is None else told
    for line in (_line(finding) for finding in checked.warnings):
        if line not in told:
            told.add(line)
            click.echo(line, err=True)
    refuse(checked, written.profile.name)


def _line(finding: Finding) -> str:
    return f"kvswarm: {finding.rule.id}, {finding.place}: {finding.message}\n  {finding.fix}"
