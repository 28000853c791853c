"""Read requests.parquet in pieces, as numpy arrays, with what the figures need of each.

In:  the table of a run.  Out: `Rows`, one per row group.
Moments are those of the master's clock: where a worker's was off by more than could be measured,
its rows are shifted. Latencies never are, for both ends of each are of one clock.
Missing numbers are NaN in float arrays. Arrays of events are flat, over all rows of the piece;
`starts` says where each row's events begin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, RunInfo

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NUMBERS: Final = (
    "index", "intended_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "connect_us",
    "send_spread_us", "prompt_tokens", "completion_tokens", "reasoning_tokens", "events",
    "first_event_tokens", "coalesced_events", "clock_step_us", "unstamped_reads", "ttft_ms",
    "ttft_from_intended_ms", "tpot_ms", "e2e_ms", "cached_tokens", "group", "worker",
)  # fmt: skip
MOMENTS: Final = ("intended_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns")
TEXTS: Final = (
    "phase", "error_kind", "clock", "scenario", "variant", "case", "output_score", "output_detail",
)  # fmt: skip
LISTS: Final = ("itl_us", "read_lag_us", "late_index", "late_us")


@dataclass(frozen=True)
class Rows:
    """Some rows of the table; all arrays of numbers and texts have one element per row."""

    numbers: dict[str, Floats]
    texts: dict[str, NDArray[np.object_]]
    lists: dict[str, tuple[Integers, Integers]]
    """Name -> flat values, and offsets of the rows in them; shapes (total,) and (rows + 1,)."""
    output_valid: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.numbers["index"])

    def __getitem__(self, name: str) -> Floats:
        return self.numbers[name]

    @cached_property
    def ok(self) -> Flags:
        """Requests that succeeded."""
        flags: Flags = np.array([kind is None for kind in self.texts["error_kind"]], dtype=bool)
        return flags

    @cached_property
    def measured(self) -> Flags:
        """Requests of the measured phase."""
        flags: Flags = self.texts["phase"] == "measure"
        return flags

    @property
    def good(self) -> Flags:
        """Requests that enter latencies: measured and successful."""
        return self.ok & self.measured

    @cached_property
    def output_tokens(self) -> Floats:
        """Output tokens of each row; where the server told no count, its events stand in."""
        return told_or_events(self["completion_tokens"], self["events"])

    def of(self, name: str, wanted: Flags) -> Floats:
        """The values of a column in the wanted rows, where they are not missing."""
        values = self.numbers[name][wanted]
        return values[~np.isnan(values)]

    def flat(self, name: str, wanted: Flags) -> Integers:
        """The values of a list column over the wanted rows."""
        values, offsets = self.lists[name]
        return values[np.repeat(wanted, np.diff(offsets))]


def told_or_events(completion_tokens: Floats, events: Floats) -> Floats:
    """Output tokens; where the server told no count (NaN), token-bearing events stand in."""
    tokens: Floats = np.where(np.isnan(completion_tokens), events, completion_tokens)
    return tokens


@contextlib.contextmanager
def open_table(run: RunDir) -> Iterator[pq.ParquetFile]:
    """Open requests.parquet. Raises RunDirError where it is damaged, while it is read too."""
    try:
        with pq.ParquetFile(run.requests) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are no text
        raise RunDirError(
            f"{run.requests}: cannot be read: {error}",
            fix="Restore the file from a copy: the journal that it was made of is gone.",
        ) from error


def read_rows(run: RunDir) -> Iterator[Rows]:
    """Give the table's row groups. Raises RunDirError where it is damaged."""
    names = [*NUMBERS, *TEXTS, *LISTS, "output_valid"]
    offsets_ns = clock_offsets_ns(run.read_info())
    with open_table(run) as file:
        there = set(file.schema_arrow.names)
        wanted = [name for name in names if name in there]
        for table in _groups(file, wanted):
            rows = _rows(table)
            if offsets_ns:
                ahead = ahead_ns(rows["worker"], offsets_ns)
                for name in MOMENTS:
                    rows.numbers[name] = rows[name] - ahead
            yield rows


def _groups(file: pq.ParquetFile, wanted: Sequence[str]) -> Iterator[pa.Table]:
    """The row groups; the next one is read and unpacked while this one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[pa.Table] | None = None
        for group in range(file.num_row_groups):
            this, ahead = ahead, pool.submit(file.read_row_group, group, columns=wanted)
            if this is not None:
                yield this.result()
        if ahead is not None:
            yield ahead.result()


def clock_offsets_ns(info: RunInfo) -> dict[int, int]:
    """By worker, how far its clock was ahead of the master's; those that agree are left out.

    Workers of one machine have one clock: what is measured of them is noise, below the round trip.
    """
    return {
        worker.worker: worker.clock_offset_us * 1000
        for worker in info.workers
        if worker.clock_offset_us is not None
        and worker.clock_rtt_us is not None
        and abs(worker.clock_offset_us) > worker.clock_rtt_us
    }


def ahead_ns(workers: Floats, offsets_ns: dict[int, int]) -> Floats:
    """How far the clock of each row's worker was ahead, ns."""
    ahead: Floats = np.zeros(len(workers))
    for worker, offset_ns in offsets_ns.items():
        ahead[workers == worker] = offset_ns
    return ahead


def _rows(table: pa.Table) -> Rows:
    def column(name: str) -> Any:
        if name not in table.column_names:  # a run from before it was recorded
            return pa.nulls(len(table), pa.float64() if name in NUMBERS else pa.string())
        return table.column(name).combine_chunks()

    return Rows(
        numbers={name: _floats(column(name)) for name in NUMBERS},
        texts={name: column(name).to_numpy(zero_copy_only=False) for name in TEXTS},
        lists={name: _flat(column(name)) for name in LISTS},
        output_valid=column("output_valid").to_numpy(zero_copy_only=False),
    )


def _floats(column: Any) -> Floats:
    # Moments of 1.8e18 ns lose up to 128 ns as floats; the latencies were computed from integers.
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _flat(column: Any) -> tuple[Integers, Integers]:
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy().astype(np.int64)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]
