"""`kvswarm run`: check everything, then measure: one run, or one for each value of a sweep.

In:  `RunRequest`.  Out: run directories, a table, an exit code.
What a person can get wrong is found before anything is made: no run directory, no load.
"""

from __future__ import annotations

from rich.console import Console

from kvswarm.commands.checks import check, written_of
from kvswarm.commands.dry_run import plan_of
from kvswarm.commands.guard import guard_run
from kvswarm.commands.load import RunRequest
from kvswarm.commands.measure import measure
from kvswarm.commands.sweep import sweep


def run(request: RunRequest) -> int:
    """Run a load test, or a sweep of them, to its end; give the exit code. Raises KvswarmError."""
    if request.sweep is not None:
        return sweep(request, request.sweep)
    written = written_of(request)
    profile = written.profile
    check(request, profile)
    guard_run(request, written)
    if request.dry_run:
        Console(soft_wrap=True).print_json(data=plan_of(request, profile))
        return 0
    return measure(request, profile)
