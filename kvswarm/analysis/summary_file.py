"""summary.json of a finished run, as other figures are made of it."""

from __future__ import annotations

import json
from typing import Any

from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir


def read_summary(run: RunDir) -> dict[str, Any]:
    """Read it. Raises RunDirError where it is not there, or damaged."""
    try:
        summary: dict[str, Any] = json.loads(run.summary.read_bytes())
    except (OSError, ValueError) as error:
        raise RunDirError(
            f"{run.summary}: cannot be read: {error}",
            fix=f"Make it with `kvswarm report {run.path}`.",
        ) from error
    return summary
