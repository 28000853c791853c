"""Make requests.parquet of a run's journal: one row per request, failures too.

In:  `requests.journal`, batches of `records.Record` in the order of their arrival.
Out: `requests.parquet`, in row groups; the journal goes when the table is whole.
Not: figures (`summary.py`).

Runs with bounded memory: one row group at a time. A journal that was cut short by a crash gives
what is whole; a batch that came twice is kept once. While the run goes on there is no table: the
journal is its writer's. Two that finish a run at once make the same table, each in its own file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kvswarm.analysis.rows import open_table
from kvswarm.errors import RunDirError
from kvswarm.records import SCHEMA_VERSION, Record
from kvswarm.rundir import JournalReader, RunDir, check_version

ROWS_PER_GROUP: Final = 4096

PLAIN: Final = {
    "index": pa.int64(), "worker": pa.int32(), "phase": pa.string(), "scenario": pa.string(),
    "endpoint": pa.string(), "intended_ns": pa.int64(), "sent_ns": pa.int64(),
    "first_byte_ns": pa.int64(), "first_token_ns": pa.int64(), "last_token_ns": pa.int64(),
    "end_ns": pa.int64(), "connect_us": pa.int64(), "send_spread_us": pa.int64(),
    "error_kind": pa.string(), "error_detail": pa.string(), "http_status": pa.int32(),
    "retry_after_s": pa.float64(), "finish_reason": pa.string(), "replica": pa.string(),
    "asked_input_tokens": pa.int64(), "asked_output_tokens": pa.int64(),
    "prompt_tokens": pa.int64(), "completion_tokens": pa.int64(), "reasoning_tokens": pa.int64(),
    "cached_tokens": pa.int64(), "events": pa.int64(), "first_event_tokens": pa.int64(),
    "coalesced_events": pa.int64(), "clock": pa.string(), "clock_step_us": pa.int64(),
    "resent": pa.int32(), "output_valid": pa.bool_(), "unstamped_reads": pa.int64(),
    "variant": pa.string(), "case": pa.string(), "group": pa.int64(), "turn": pa.int32(),
    "output_score": pa.string(), "output_detail": pa.string(), "trace_id": pa.string(),
}  # fmt: skip
"""Columns that are fields of a Record, with their types."""
ADDED: Final = frozenset(
    {"variant", "case", "group", "turn", "output_score", "output_detail", "trace_id"}
)
"""Columns that tables of older runs may lack."""
DERIVED: Final = ("ttft_ms", "ttft_from_intended_ms", "tpot_ms", "e2e_ms")
"""Columns computed from a Record, in ms."""
LISTS: Final = {
    "itl_us": "<u4", "event_tokens": "<u2", "read_lag_us": "<u4", "late_index": "<u4",
    "late_us": "<u4",
}  # fmt: skip
"""Columns of one number per event or gap, with their types in a Record."""
SCHEMA: Final = pa.schema(
    [
        *((name, kind) for name, kind in PLAIN.items()),
        *((name, pa.float64()) for name in DERIVED),
        *((name, pa.list_(pa.from_numpy_dtype(np.dtype(kind)))) for name, kind in LISTS.items()),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


@dataclass(frozen=True, slots=True)
class TableReport:
    """What making the table showed."""

    rows: int
    duplicates: int = 0
    cut_short: bool = False


def finish_table(run: RunDir) -> TableReport:
    """Turn the journal into the table, unless that was done.

    Raises RunDirError where the run goes on, where neither file is there, or one is damaged.
    """
    if run.going_on:
        raise RunDirError(
            f"{run.path}: the run is still going on",
            fix="Wait for its end, or stop it with Ctrl-C or SIGTERM: what was measured is kept.",
        )
    try:
        return _make_table(run)
    except FileNotFoundError as error:  # no journal, or another report was quicker
        if not run.requests.exists():
            raise RunDirError(
                f"{run.path}: holds neither requests.journal nor requests.parquet",
                fix="The run measured nothing, or these files were moved away.",
            ) from error
        return _report_of(run)


def _make_table(run: RunDir) -> TableReport:
    """Write the table whole or not at all. Raises FileNotFoundError where there is no journal."""
    reader = JournalReader(run.journal)
    seen: set[int] = set()
    duplicates = 0
    unfinished = run.path / f".requests.parquet.{os.getpid()}"
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
            for records in _groups(reader):
                fresh = []
                for record in records:
                    if record.index in seen:
                        duplicates += 1
                    else:
                        seen.add(record.index)
                        fresh.append(record)
                writer.write_table(to_table(fresh))
            # The journal goes; what it told must still be there when the figures are made again.
            writer.add_key_value_metadata(
                {"duplicates": str(duplicates), "cut_short": str(int(reader.cut_short))}
            )
        unfinished.replace(run.requests)
    finally:
        unfinished.unlink(missing_ok=True)
    run.journal.unlink(missing_ok=True)
    return TableReport(len(seen), duplicates, reader.cut_short)


def _report_of(run: RunDir) -> TableReport:
    """What making the table showed then. Raises RunDirError where it is not one of ours."""
    with open_table(run) as file:
        columns, table = list(file.schema_arrow), file.metadata
        noted = {key.decode(): text.decode() for key, text in (table.metadata or {}).items()}
    check_version(run.requests, noted.get("schema_version"))
    names = {column.name for column in columns}
    wrong = [
        column.name
        for column in SCHEMA
        if column not in columns and not (column.name in ADDED and column.name not in names)
    ]
    if wrong:
        raise RunDirError(
            f"{run.requests}: these columns are not as kvswarm writes them: {', '.join(wrong)}",
            fix="Restore the file from a copy.",
        )
    return TableReport(
        table.num_rows, int(noted.get("duplicates", "0")), noted.get("cut_short") == "1"
    )


def _groups(reader: JournalReader) -> Iterator[list[Record]]:
    group: list[Record] = []
    for batch in reader:
        group.extend(batch)
        if len(group) >= ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def to_table(records: Sequence[Record]) -> pa.Table:
    """Records as a table with SCHEMA."""
    columns: list[Any] = [
        pa.array([getattr(record, name) for record in records], type=kind)
        for name, kind in PLAIN.items()
    ]
    columns += [
        pa.array([getattr(record, name) for record in records], type=pa.float64())
        for name in DERIVED
    ]
    columns += [_lists(records, name, np.dtype(kind)) for name, kind in LISTS.items()]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _lists(records: Sequence[Record], name: str, kind: np.dtype[Any]) -> pa.ListArray:
    """One list per record, from the packed bytes: no number becomes a Python object."""
    packed = [getattr(record, f"packed_{name}") for record in records]
    offsets = np.zeros(len(packed) + 1, dtype=np.int32)
    np.cumsum([len(piece) // kind.itemsize for piece in packed], out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(np.frombuffer(b"".join(packed), dtype=kind))
    )
