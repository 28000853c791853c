"""What an exporter makes a file of: a run's summary, and its measured requests as columns.

In:  a finished run directory.  Out: `Source`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvswarm.analysis.blocks import Floats, Integers
from kvswarm.analysis.rows import Flags, open_table, told_or_events
from kvswarm.analysis.summary_file import read_summary
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, RunInfo

NUMBERS: Final = (
    "index", "intended_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "ttft_ms",
    "tpot_ms", "e2e_ms", "prompt_tokens", "completion_tokens", "asked_input_tokens", "events",
    "http_status", "connect_us",
)  # fmt: skip
TEXTS: Final = ("error_kind", "error_detail")
PERCENTS: Final = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True)
class Source:
    """A run that was finished."""

    info: RunInfo
    summary: dict[str, Any]
    numbers: dict[str, Floats]
    """Columns of the measured requests in the order of their numbers; NaN: missing."""
    texts: dict[str, Any]
    gaps_us: Integers
    """Gaps of all these requests, one after the other."""
    gap_offsets: Integers
    """Where each request's gaps begin; one more than requests."""

    def __len__(self) -> int:
        return len(self.numbers["index"])

    def __getitem__(self, name: str) -> Floats:
        return self.numbers[name]

    @cached_property
    def ok(self) -> Flags:
        """Which requests succeeded."""
        flags: Flags = np.array([kind is None for kind in self.texts["error_kind"]], dtype=bool)
        return flags

    @cached_property
    def output_tokens(self) -> Floats:
        """Output tokens; where the server told no count, the events, as in the summary."""
        return told_or_events(self["completion_tokens"], self["events"])

    @cached_property
    def starts_s(self) -> Floats:
        """When each request was sent, in s after the first."""
        sent = self["sent_ns"]
        since: Floats = (sent - np.fmin.reduce(sent)) / 1e9
        return since

    def gaps_of(self, place: int) -> Integers:
        """Gaps of the request at a place, in us."""
        return self.gaps_us[self.gap_offsets[place] : self.gap_offsets[place + 1]]

    def good(self, name: str) -> Floats:
        """A column's values, of requests that succeeded and have one."""
        values = self[name][self.ok]
        return values[~np.isnan(values)]

    @cached_property
    def good_gaps_ms(self) -> Floats:
        """All gaps of requests that succeeded, in ms."""
        values: Floats = self.gaps_us[np.repeat(self.ok, np.diff(self.gap_offsets))] / 1e3
        return values

    @property
    def load(self) -> dict[str, Any]:
        """The profile's load; empty where it is not known."""
        load: dict[str, Any] = self.info.profile.get("load", {})
        return load

    @property
    def concurrency(self) -> int | None:
        """Users of a closed loop."""
        told = self.info.imported
        return self.load.get("concurrency") if told is None else told.concurrency

    @property
    def rate_rps(self) -> float | None:
        """Arrivals per second of an open loop."""
        told = self.info.imported
        return self.load.get("rate_rps") if told is None else told.rate_rps

    @property
    def goodput_rps(self) -> float | None:
        """Requests per second that met every SLO; None where the run had none."""
        goodput = self.summary["goodput"]
        told: float | None = goodput["requests_per_s"]
        return told if goodput["slo_share"] else None

    @property
    def made_by(self) -> str:
        """The tool that measured, and its version."""
        told = self.info.imported
        name, version = ("kvswarm", self.info.versions.get("kvswarm"))
        if told is not None:
            name, version = told.tool, told.version
        return name if version is None else f"{name} {version}"


def read_source(run: RunDir) -> Source:
    """Read a run for export. Raises RunDirError where it is not finished or has no requests."""
    info = run.read_info()
    summary = read_summary(run)
    with open_table(run) as file:
        table = file.read(columns=[*NUMBERS, *TEXTS, "phase", "itl_us"])
    table = table.filter(pc.equal(table.column("phase"), "measure")).sort_by("index")
    if not len(table):
        raise RunDirError(
            f"{run.path}: holds no measured requests to export",
            fix="An imported run of which only sums are known cannot be exported; give the "
            "tool's own file.",
        )
    gaps = table.column("itl_us").combine_chunks()
    if isinstance(gaps, pa.ChunkedArray):
        gaps = pa.concat_arrays(gaps.chunks)
    lengths = gaps.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return Source(
        info=info,
        summary=summary,
        numbers={
            name: table.column(name).cast(pa.float64(), safe=False).to_numpy() for name in NUMBERS
        },
        texts={name: table.column(name).to_pylist() for name in TEXTS},
        gaps_us=gaps.flatten().to_numpy(zero_copy_only=False).astype(np.int64),
        gap_offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
    )


def plain(values: Floats, *, whole: bool = False) -> list[Any]:
    """An array as JSON holds it: null for what is missing, and whole numbers where they are."""
    return [
        None if math.isnan(value) else round(value) if whole else value for value in values.tolist()
    ]


def spread(values: Floats) -> dict[str, float] | None:
    """Mean, std (of the population), min, max, sum, count and percentiles by percent.

    None where there are no values. Percentiles as numpy's default, as all of kvswarm's are.
    """
    if not len(values):
        return None
    quantiles = np.percentile(values, PERCENTS).tolist()
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "sum": float(values.sum()),
        "count": len(values),
        **{f"p{percent:g}": value for percent, value in zip(PERCENTS, quantiles, strict=True)},
    }
