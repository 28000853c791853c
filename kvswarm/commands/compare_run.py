"""One variant of a comparison: deployed, measured, taken down, and what is told of that.

In:  a `Planned` variant, and the cluster.
Out: its run directory and its deployment.json; its outcome, filled as it goes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from kvswarm.commands.compare_file import VariantRun
from kvswarm.commands.compare_plan import CompareRequest, Plan, Planned
from kvswarm.commands.deploy import recorded_flags
from kvswarm.commands.measure import measure
from kvswarm.commands.series import Measured
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import DeployOptions, deployed
from kvswarm.kserve.deployment_file import NAME as FILE_NAME
from kvswarm.kserve.refusals import ClusterError
from kvswarm.kserve.teardown import TeardownOptions, teardown
from kvswarm.rundir import RunDir

DEPLOYMENTS: Final = "deployments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where variants are deployed, and where that is written and told."""

    cluster: Cluster
    folder: Path
    plan: Plan
    request: CompareRequest
    console: Console

    def say(self, line: str) -> None:
        """Tell how it goes."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def options(self, each: Planned, directory: Path) -> DeployOptions:
        """How a variant is deployed."""
        flags = self.request.manifest
        return DeployOptions(
            timeout_s=flags["timeout_s"],
            schedule_timeout_s=flags["schedule_timeout_s"],
            directory=directory,
            context=self.request.context,
            flags={
                **recorded_flags(flags),
                "backend": each.variant.backend,
                "model": each.variant.model,
                "service": each.service,
            },
        )


def measured(
    stage: Stage, each: Planned, outcome: VariantRun, write: Callable[[], None]
) -> Measured:
    """How the run of one variant is made."""

    def make(run: RunDir, base: Path | None) -> int:
        directory = _new_directory(stage.folder / DEPLOYMENTS, each.variant.directory)
        outcome.started_ns, outcome.ended_ns = time.time_ns(), None
        outcome.deployment = str((directory / FILE_NAME).relative_to(stage.folder))
        outcome.phases_s = {}
        write()
        try:
            for other in stage.plan.planned:  # one that an earlier call left has the GPU
                teardown(
                    stage.cluster,
                    stage.plan.namespace,
                    other.service,
                    TeardownOptions(),
                    stage.say,
                )
            return _deployed_and_measured(stage, each, outcome, run, base, directory)
        finally:
            outcome.ended_ns = time.time_ns()
            _take_deployment(stage.folder, outcome)
            _take_server(run, outcome)

    return make


def _deployed_and_measured(  # noqa: PLR0913, PLR0917 - what one variant is
    stage: Stage,
    each: Planned,
    outcome: VariantRun,
    run: RunDir,
    base: Path | None,
    directory: Path,
) -> int:
    """Deploy, measure, take down. What was measured stands, also where the last fails."""
    code: int | None = None
    try:
        with deployed(stage.cluster, each.manifests, stage.options(each, directory), stage.say):
            values = {**each.run.values, "out": str(run.path)}
            code = measure(replace(each.run, values=values, baseline=base), each.profile)
    except ClusterError as error:
        if code is None:
            raise
        outcome.notes.append(f"its service could not be removed: {error}")
        stage.say(f"kvswarm: {error}")
    return code


def _new_directory(parent: Path, name: str) -> Path:
    """A directory for another try of the same variant's deployment: the earlier ones stay."""
    directory, number = parent / name, 1
    while directory.exists():
        number += 1
        directory = parent / f"{name}-{number}"
    directory.mkdir(parents=True)
    return directory


def _take_deployment(folder: Path, outcome: VariantRun) -> None:
    """How far the deployment came, and how fast."""
    path = folder / (outcome.deployment or "")
    if not path.is_file():
        outcome.deployment = None
        return
    phases = json.loads(path.read_bytes())["phases"]
    outcome.phases_s = {name.removesuffix("_s"): value for name, value in phases.items()}


def _take_server(run: RunDir, outcome: VariantRun) -> None:
    """What the run found of the server."""
    if not run.run_json.exists():
        return
    target = run.read_info().target
    outcome.runtime_version = target.server_version
    if target.service is not None and target.service.image is not None:
        outcome.image = target.service.image
