"""One variant of a comparison: deployed, measured, taken down, and what is told of that.

In:  a `Planned` variant, and the cluster.
Out: its run directory and its deployment.json; its outcome, filled as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from kvswarm.commands.compare_file import VariantRun
from kvswarm.commands.compare_plan import CompareRequest, Plan, Planned
from kvswarm.commands.measure import measure
from kvswarm.commands.series import Measured
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import DeployOptions, deployed, torn
from kvswarm.rundir import RunDir


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


def measured(
    stage: Stage, each: Planned, outcome: VariantRun, write: Callable[[], None]
) -> Measured:
    """How the run of one variant is made."""

    def make(run: RunDir, base: Path | None) -> int:
        outcome.started_ns, outcome.ended_ns = time.time_ns(), None
        outcome.deployment, outcome.phases_s = None, {}
        try:
            for other in stage.plan.planned:
                torn(stage.cluster, stage.plan.namespace, other.service)
            options = DeployOptions()
            with deployed(stage.cluster, each.manifests, options, stage.say) as deployment:
                write()
                values = {**each.run.values, "out": str(run.path)}
                return measure(replace(each.run, values=values, baseline=base), each.profile)
        finally:
            outcome.ended_ns = time.time_ns()
            _take_server(run, outcome)

    return make


def _take_server(run: RunDir, outcome: VariantRun) -> None:
    """What the run found of the server."""
    if not run.run_json.exists():
        return
    target = run.read_info().target
    outcome.runtime_version = target.server_version
    if target.service is not None and target.service.image is not None:
        outcome.image = target.service.image
