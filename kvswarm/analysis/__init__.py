"""Figures from run directories alone: table, summary, verdict, report; `load` for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvswarm.analysis.dataset import Dataset


def load(path: Path | str) -> Dataset:
    """Load a run directory, or a folder of them at any depth, as a data set of DataFrames.

    `load("runs").runs` has one row per run; see `kvswarm.analysis.dataset.Dataset` for the others.
    Raises RunDirError where no finished run is there.
    """
    from kvswarm.analysis.dataset import load_dataset  # noqa: PLC0415 - pandas only where wanted

    return load_dataset(Path(path))
