"""sweep.json: what was swept, and what came of each value.

In:  outcomes of runs.  Out: `Sweep`, as plain data on disk; `sweep.schema.json` describes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.commands.series_file import Outcome, read_series, write_series
from kvswarm.commands.swept import SWEEP_FILE

SCHEMA_PATH: Final = Path(__file__).with_name("sweep.schema.json")
SCHEMA_VERSION: Final = 1


class ValueRun(Outcome, kw_only=True):
    """One value and its run; `text` is the value as it was written."""

    value: Any


class Sweep(msgspec.Struct, kw_only=True):
    """sweep.json."""

    schema_version: int = SCHEMA_VERSION
    key: str
    profile: str
    seed: int | None
    """Of every run; None where it is what is swept."""
    target: str
    """The URL, the command of the server, or `simulator`."""
    values: list[ValueRun]
    notes: list[str] = []

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        write_series(self, folder / SWEEP_FILE, SCHEMA_PATH)


def read_sweep(folder: Path) -> Sweep:
    """Read what an earlier sweep wrote. Raises RunDirError where it is damaged or not ours."""
    return read_series(folder / SWEEP_FILE, Sweep, SCHEMA_VERSION)
