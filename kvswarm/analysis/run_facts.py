"""What summary.json says of a run besides its figures: the section `run`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kvswarm.origin import ImportedInfo
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunInfo


def run_facts(
    info: RunInfo, profile: Profile | None, imported: ImportedInfo | None
) -> dict[str, Any]:
    """The section; `profile` None and `imported` where another tool measured the run."""
    return {
        "id": info.run_id,
        "profile": profile.name if profile else None,
        "pattern": profile.load.pattern if profile else None,
        "model": info.target.model,
        "target": info.target.base_url,
        "endpoint": info.target.endpoint,
        "simulator": info.target.simulator,
        "seed": info.seed,
        "started": moment(info.started_ns),
        "ended_at": moment(info.ended_ns),
        "ended": info.ended,
        "notes": info.notes,
        "imported": {"tool": imported.tool, "version": imported.version, "file": imported.file}
        if imported
        else None,
    }


def moment(ns: int | None) -> str | None:
    """A moment in ns of CLOCK_REALTIME as UTC by ISO 8601; None where there is none."""
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).isoformat() if ns is not None else None
