"""`kvswarm run`: check everything, then measure: one run, or one for each value of a sweep.

In:  `RunRequest`.  Out: run directories, a table, an exit code.
What a person can get wrong is found before anything is made: no run directory, no load.
"""

from __future__ import annotations

import shlex
from typing import Any

from rich.console import Console

from kvswarm.commands.checks import check, profile_of
from kvswarm.commands.load import RunRequest, plain_command
from kvswarm.commands.measure import measure
from kvswarm.commands.serve import server_command, without_key
from kvswarm.profiles.model import Profile


def run(request: RunRequest) -> int:
    """Run a load test to its end; give the exit code. Raises KvswarmError."""
    profile = profile_of(request)
    check(request, profile)
    if request.dry_run:
        Console(soft_wrap=True).print_json(data=_shown(request, profile))
        return 0
    return measure(request, profile)


def _shown(request: RunRequest, profile: Profile) -> dict[str, Any]:
    """What --dry-run shows: what would run, against what."""
    shown = {
        "profile": profile.to_dict(),
        "target": request.url or "the embedded simulator",
        "locust": plain_command(request, profile, request.out),
    }
    if request.serve is not None:
        command = server_command(request.serve, profile, request.values.get("model"))
        shown["target"] = "a server that is started for the run"
        shown["server"] = without_key(shlex.join(command.at("PORT")))
        shown["server_environment"] = dict(command.environment)
        shown["server_notes"] = list(command.notes)
    return shown
