"""sweep.json: what was swept, and what came of each value.

In:  outcomes of runs.  Out: `Sweep`, as plain data on disk; `sweep.schema.json` describes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.analysis.knee import KINDS, Curve, Point, curve_of, point_of
from kvswarm.analysis.report_sweep import sweep_page
from kvswarm.analysis.saturation import saturation_of
from kvswarm.commands.series_file import Outcome, read_series, write_series
from kvswarm.commands.swept import SWEEP_FILE
from kvswarm.rundir import RunDir, write_atomically

SCHEMA_PATH: Final = Path(__file__).with_name("sweep.schema.json")
SCHEMA_VERSION: Final = 1
PAGE_FILE: Final = "report.html"


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
    curves: list[Curve] = []
    """Where a rate or a concurrency is swept: one for each combination of the other keys."""

    def write(self, folder: Path) -> None:
        """Write it and its page, each whole or not at all."""
        self.curves = curves_of(self, folder)
        write_series(self, folder / SWEEP_FILE, SCHEMA_PATH)
        page = sweep_page(msgspec.to_builtins(self))
        write_atomically(folder / PAGE_FILE, page.encode())


def read_sweep(folder: Path) -> Sweep:
    """Read what an earlier sweep wrote. Raises RunDirError where it is damaged or not ours."""
    return read_series(folder / SWEEP_FILE, Sweep, SCHEMA_VERSION)


def curves_of(sweep: Sweep, folder: Path) -> list[Curve]:
    """Make the curves of the runs that are done; none where no load is swept."""
    keys = sweep.key.split(", ")
    kind = next((key for key in keys if key in KINDS), None)
    if kind is None:
        return []
    points: dict[str, list[Point]] = {}
    for entry in sweep.values:
        values = entry.value if len(keys) > 1 else {kind: entry.value}
        others = [f"{key}={value}" for key, value in values.items() if key != kind]
        run = RunDir(folder / entry.directory)
        is_load = type(values[kind]) in {int, float}
        if is_load and entry.status == "done" and run.summary.exists():
            point = _point(run, values[kind], open_loop=kind == "rate_rps")
            points.setdefault(" ".join(others), []).append(point)
    return [curve_of(label, kind, found) for label, found in points.items()]


@cache
def _point(run: RunDir, load: float, *, open_loop: bool) -> Point:
    """The point of a run that is done, and so is what it is: its table is read once."""
    summary = json.loads(run.summary.read_bytes())
    queued = saturation_of(run, open_loop=open_loop) is not None
    return point_of(load, summary, queued=queued)
