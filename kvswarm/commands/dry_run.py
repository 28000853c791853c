"""What `--dry-run` shows: what would run, against what."""

from __future__ import annotations

import shlex
from typing import Any

from kvswarm.commands.load import RunRequest, plain_command
from kvswarm.commands.serve import server_command, without_key
from kvswarm.profiles.model import Profile


def plan_of(request: RunRequest, profile: Profile) -> dict[str, Any]:
    """Tell the profile, the target and the Locust command of a run that was checked."""
    plan = {
        "profile": profile.to_dict(),
        "target": _target_name(request),
        "locust": plain_command(request, profile, request.out),
    }
    if request.serve is not None:
        command = server_command(request.serve, profile, request.values.get("model"))
        plan["target"] = "a server that is started for the run"
        plan["server"] = without_key(shlex.join(command.at("PORT")))
        plan["server_environment"] = dict(command.environment)
        plan["server_notes"] = list(command.notes)
    return plan


def _target_name(request: RunRequest) -> str:
    if request.service is not None:
        return request.service.shown
    if other := request.values.get("interleave"):
        return f"{request.url} (A) and {other} (B) in turn"
    return request.url or "the embedded simulator"
