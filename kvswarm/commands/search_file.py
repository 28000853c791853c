"""search.json: what was searched, every load that was tried with its runs, and what was found.

In:  what runs showed.  Out: `Search`, as plain data on disk; `search.schema.json` describes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from kvswarm.analysis.capacity import BlockCount, Judgement, Kind, Plan, State, Tried, bracket_of
from kvswarm.analysis.targets import Target
from kvswarm.commands.series_file import Outcome, read_series, write_series

SCHEMA_PATH: Final = Path(__file__).with_name("search.schema.json")
SCHEMA_VERSION: Final = 1
SEARCH_FILE: Final = "search.json"
UNITS: Final = {"rate": "requests/s", "concurrency": "users"}


class BlockRun(Outcome, kw_only=True):
    """One run at a load."""

    seed: int
    requests: int = 0
    met: list[float] = msgspec.field(default_factory=list)
    saturated: str | None = None
    unusable: str | None = None

    def count(self) -> BlockCount:
        """What it showed."""
        return BlockCount(
            requests=self.requests,
            met=tuple(self.met),
            saturated=self.saturated,
            unusable=self.unusable,
        )


class Share(msgspec.Struct, kw_only=True):
    """The share of requests that met a target, with its interval."""

    share: float
    low: float
    high: float


class Level(msgspec.Struct, kw_only=True):
    """One load, and what its runs showed."""

    load: float
    state: State | None = None
    reason: str = "not run yet"
    intervals: list[Share] = []
    runs: list[BlockRun] = msgspec.field(default_factory=list)

    def take(self, judgement: Judgement) -> None:
        """Note what is to be said of it."""
        self.state, self.reason = judgement.state, judgement.reason
        self.intervals = [
            Share(share=each.share, low=each.low, high=each.high) for each in judgement.intervals
        ]


class Result(msgspec.Struct, kw_only=True):
    """What was found."""

    status: Literal["found", "none meets the targets", "all meet the targets"]
    load: float | None
    next_load: float | None
    requests: int
    runs: int


class Search(msgspec.Struct, kw_only=True):
    """search.json."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    profile: str
    target: str
    seed: int
    start: float
    most: float
    precision: float
    blocks: int
    slos: list[Target]
    levels: list[Level] = []
    result: Result | None = None
    notes: list[str] = []

    @property
    def plan(self) -> Plan:
        """What decides."""
        return Plan(
            kind=self.kind,
            start=self.start,
            most=self.most,
            precision=self.precision,
            blocks=self.blocks,
            shares=tuple(target.share for target in self.slos),
        )

    @property
    def unit(self) -> str:
        """Of a load."""
        return UNITS[self.kind]

    def runs(self) -> list[BlockRun]:
        """All runs in order."""
        return [run for level in self.levels for run in level.runs]

    def tried(self) -> list[Tried]:
        """The loads of which something is known."""
        return [
            Tried(load=level.load, passed=level.state == "pass")
            for level in self.levels
            if level.state is not None
        ]

    def conclude(self) -> None:
        """Note what was found, once there is no other load to try."""
        found = bracket_of(self.tried())
        for level in self.levels:
            if level.load == found.high and level.state == "cannot tell":
                self.notes = [f"The server may do {level.load:g} {self.unit}: it was not settled."]
        self.result = Result(
            status="none meets the targets"
            if found.low is None
            else "all meet the targets"
            if found.high is None
            else "found",
            load=found.low,
            next_load=found.high,
            requests=sum(run.requests for run in self.runs()),
            runs=len(self.runs()),
        )

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        write_series(self, folder / SEARCH_FILE, SCHEMA_PATH)


def read_search(folder: Path) -> Search:
    """Read what an earlier search wrote. Raises RunDirError where it is damaged or not ours."""
    return read_series(folder / SEARCH_FILE, Search, SCHEMA_VERSION)
