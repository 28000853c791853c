"""`kvswarm run`: check everything, then measure: one run, or one for each value of a sweep.

In:  `RunRequest`.  Out: run directories, a table, an exit code.
What a person can get wrong is found before anything is made: no run directory, no load.
"""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from kvswarm.commands.checks import check, written_of
from kvswarm.commands.costs import check_costs
from kvswarm.commands.dry_run import plan_of
from kvswarm.commands.guard import guard_run
from kvswarm.commands.load import RunRequest
from kvswarm.commands.measure import measure
from kvswarm.commands.sweep import sweep
from kvswarm.commands.swept import read_swept


def run(request: RunRequest) -> int:
    """Run a load test, or a sweep of them, to its end; give the exit code. Raises KvswarmError."""
    check_costs(request.costs, {})
    if request.in_cluster is not None:
        from kvswarm.commands.in_cluster import run_on_cluster  # noqa: PLC0415 - rarely needed

        return run_on_cluster(request, request.in_cluster)
    if request.hand_over_port is not None:
        from kvswarm.commands.hand_over import (  # noqa: PLC0415 - rarely needed
            hand_over_of,
            handed_over,
        )

        wanted = hand_over_of(request.hand_over_port, request.out)
        here = replace(request, hand_over_port=None, quiet=True)
        return handed_over(lambda: run(here), wanted)
    if request.sweep is not None:
        return sweep(request, read_swept(request.sweep))
    written = written_of(request)
    profile = written.profile
    check(request, profile)
    check_costs(request.costs, profile.cost)
    guard_run(request, written)
    if request.dry_run:
        Console(soft_wrap=True).print_json(data=plan_of(request, profile))
        return 0
    return measure(request, profile)
