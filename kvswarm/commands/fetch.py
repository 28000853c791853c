"""`kvswarm fetch`: the results of a run on a cluster that somebody left there.

In:  a run's name and namespace.
Out: what `kvswarm run --in-cluster` gives: the run directory, a table, the run's exit code.
A run that still goes on is attended to its end, as if whoever started it had stayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvswarm.commands.in_cluster import collected, concluded, say, stoppable
from kvswarm.commands.load import RunRequest
from kvswarm.errors import RunDirError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.placing import find_run, remove_run
from kvswarm.rundir import RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """What `kvswarm fetch` was asked for."""

    namespace: str
    run: str
    context: str | None = None
    out: Path | None = None
    as_json: bool = False


def fetch(request: FetchRequest) -> int:
    """Fetch the results; give the run's exit code. Raises KvswarmError."""
    cluster = Cluster.connect(request.context)
    of = find_run(cluster, request.namespace, request.run)
    target = request.out or RUNS / of.directory
    if target.exists() and any(target.iterdir()):
        raise RunDirError(
            f"{target}: the run directory holds files already",
            fix="Give --out a directory that is new or empty.",
        )
    say(f"Run {of.name} in namespace {of.namespace} of {cluster.server}")
    with stoppable() as wishes:
        state = collected(of, target, wishes, lambda: remove_run(of))
    return concluded(state, target, RunRequest(values={}, as_json=request.as_json))
