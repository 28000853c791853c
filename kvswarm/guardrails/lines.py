"""Where a key stands: file, line and column, or the flag that gave it.

Values keep their places through `extends`, so the file is the one that set the value; a value of
`--set` is told by that flag. A key that is not there is told by what it would stand in.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvswarm.profiles.load import Written
from kvswarm.profiles.problems import KeyPath, Place


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a file, or a flag of the command line."""

    file: str | None
    line: int | None
    column: int | None
    flag: str | None


def spot_of(written: Written, path: KeyPath) -> Spot:
    """Find where the value at `path`, or the nearest thing around it, was given."""
    return spot_at(written.document.place(path))


def spot_at(place: Place) -> Spot:
    """Tell a place of a file from a flag: flags begin with --."""
    if place.source.startswith("--"):
        return Spot(None, None, None, place.source)
    return Spot(place.source, place.line, place.column, None)
