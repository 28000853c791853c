"""From the journal to requests.parquet: one row per record, every field, nothing invented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.analysis.finish import finish
from kvswarm.analysis.table import ROWS_PER_GROUP, SCHEMA, TableReport, finish_table, to_table
from kvswarm.errors import RunDirError
from kvswarm.records import Record, encode_batch, pack_u32
from kvswarm.rundir import JournalWriter, RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, failed, good, run_info, unsent, write_run

LISTS = {
    "itl_us": pa.uint32(), "event_tokens": pa.uint16(), "read_lag_us": pa.uint32(),
    "late_index": pa.uint32(), "late_us": pa.uint32(),
}  # fmt: skip
UNITS = ("_ns", "_us", "_ms", "_s", "_tokens", "_index")
WITHOUT_UNIT = {
    "index", "worker", "phase", "scenario", "endpoint", "error_kind", "error_detail", "http_status",
    "finish_reason", "replica", "events", "coalesced_events", "clock", "resent", "output_valid",
    "unstamped_reads", "variant", "case", "group", "turn", "output_score", "output_detail",
    "trace_id",
}  # fmt: skip
"""Names, texts and counts; every other column must carry its unit."""


def table_of(path: Path, batches: list[list[Record]]) -> pa.Table:
    """Write a journal, finish its table, read it."""
    run = write_run(path, batches)
    finish_table(run)
    return pq.read_table(run.requests)


def test_every_record_is_one_row_with_all_its_fields(tmp_path: Path) -> None:
    """Good ones, failed ones and those that were never sent, in the order they came."""
    records = [
        good(4, at_ms=3.5, gaps_ms=(10.0, 0.0, 4e6), retry_after_s=1.5, replica="pod-7",
             output_valid=False, clock_step_us=-900, packed_event_tokens=b"\x02\x00\x01\x01",
             packed_late_index=pack_u32([0, 2]), packed_late_us=pack_u32([7, 2**32 - 1])),
        unsent(1, error_detail='quoted "é" \u2028 <b>'),
        failed(2, "http_429", http_status=429, phase="warmup"),
    ]  # fmt: skip
    rows = table_of(tmp_path, [records[:1], [], records[1:]]).to_pylist()
    assert len(rows) == 3
    for row, record in zip(rows, records, strict=True):
        for name, value in row.items():
            wanted: Any = getattr(record, name)
            assert value == (wanted.tolist() if name in LISTS else wanted), name


def test_no_field_of_a_record_is_left_out() -> None:
    """A field that is shipped and not kept is lost in silence."""
    fields = {field.name.removeprefix("packed_") for field in msgspec.structs.fields(Record)}
    derived = {"ttft_ms", "ttft_from_intended_ms", "tpot_ms", "e2e_ms"}
    assert set(SCHEMA.names) == fields | derived


def test_columns_have_the_types_that_readers_rely_on(tmp_path: Path) -> None:
    """Moments are whole ns, and lists hold unsigned numbers of a fixed width."""
    schema = table_of(tmp_path, [[good(0)]]).schema
    assert schema.equals(SCHEMA)
    assert schema.metadata[b"schema_version"] == b"1"
    for name, kind in LISTS.items():
        assert schema.field(name).type.value_type == kind, name
    for name in schema.names:
        kind = schema.field(name).type
        if name.endswith("_ns"):
            assert kind == pa.int64(), name
        if name.endswith(("_ms", "_s")):
            assert kind == pa.float64(), name
        assert name in WITHOUT_UNIT or name.endswith(UNITS), f"{name} carries no unit"


def test_moments_keep_every_nanosecond(tmp_path: Path) -> None:
    """As floats they would lose a quarter of a us."""
    (sent_ns,) = table_of(tmp_path, [[good(0, at_ms=0.000001)]])["sent_ns"].to_pylist()
    assert sent_ns == START_NS + 1


def test_what_is_missing_is_null_and_not_zero(tmp_path: Path) -> None:
    """A latency that nobody measured must not pull an average down."""
    row = table_of(tmp_path, [[unsent(0)]]).to_pylist()[0]
    for name in ("sent_ns", "first_token_ns", "ttft_ms", "e2e_ms", "tpot_ms", "completion_tokens",
                 "http_status", "connect_us", "output_valid"):  # fmt: skip
        assert row[name] is None, name
    assert row["itl_us"] == []


def test_pandas_reads_the_table_as_a_person_would_expect(tmp_path: Path) -> None:
    """The docs show this; figures of it are those of the summary."""
    run = write_run(tmp_path, [[good(i, ttft_ms=100.0 + i) for i in range(9)] + [unsent(9)]])
    summary = finish(tmp_path)
    frame = pd.read_parquet(run.requests)
    ok = frame[frame["error_kind"].isna() & (frame["phase"] == "measure")]
    assert ok["ttft_ms"].quantile(0.5) == pytest.approx(summary["ttft_ms"]["p50"], abs=0.001)
    gaps_us = np.concatenate(ok["itl_us"].to_numpy())
    assert gaps_us.mean() / 1000 == summary["itl_ms"]["mean"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=12))
def test_each_row_keeps_its_own_gaps(gap_lists: list[list[int]]) -> None:
    """They lie in one array, cut by offsets: a shift by one would give them to the neighbour."""
    records = [
        good(i, packed_itl_us=pack_u32(gaps), packed_late_us=pack_u32(gaps[::-1]))
        for i, gaps in enumerate(gap_lists)
    ]
    table = to_table(records)
    assert table["itl_us"].to_pylist() == gap_lists
    assert table["late_us"].to_pylist() == [gaps[::-1] for gaps in gap_lists]


# -- crashes -----------------------------------------------------------------------------------


def test_a_cut_journal_gives_a_table_of_its_whole_batches(tmp_path: Path) -> None:
    """And the report says that its end is missing."""
    run = write_run(tmp_path, [[good(0), good(1)], [good(2)], [good(3)]])
    whole = run.journal.read_bytes()
    run.journal.write_bytes(whole[:-1])
    assert finish_table(run) == TableReport(rows=3, cut_short=True)
    assert pq.read_table(run.requests)["index"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("kept_bytes", [0, 5])
def test_a_journal_that_was_cut_in_its_header_gives_an_empty_table(
    tmp_path: Path, kept_bytes: int
) -> None:
    """The run crashed as it began: no rows, no traceback."""
    run = write_run(tmp_path, [[good(0)]], run_info(ended=None))
    run.journal.write_bytes(run.journal.read_bytes()[:kept_bytes])
    summary = finish(tmp_path)
    assert pq.read_table(run.requests).num_rows == 0
    assert summary["requests"]["sent"] == 0
    assert summary["verdict"]["status"] == "invalid"


def test_a_cut_run_stays_cut_when_its_figures_are_made_again(tmp_path: Path) -> None:
    """The journal is gone by then: what it told must not go with it."""
    run = write_run(tmp_path, [[good(0)], [good(1)]])
    run.journal.write_bytes(run.journal.read_bytes()[:-1])
    first = finish(tmp_path)
    assert any("journal" in reason for reason in first["verdict"]["reasons"])
    assert finish(tmp_path) == first


def test_the_journal_goes_when_the_table_is_whole_and_not_before(tmp_path: Path) -> None:
    """Killed between the two, the run has both; the journal is the truth then."""
    run = write_run(tmp_path, [[good(0)], [good(1)]])
    journal = run.journal.read_bytes()
    run.requests.write_bytes(b"half a table")
    finish_table(run)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["requests.parquet", "run.json"]
    first = pq.read_table(run.requests)
    run.journal.write_bytes(journal)
    assert finish_table(run) == finish_table(run) == TableReport(rows=2)
    assert pq.read_table(run.requests).equals(first)


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    """Its journal is still written: taken away, the rest of the run would go nowhere."""
    run = RunDir(tmp_path)
    run.write_info(run_info(ended=None, ended_ns=None))
    journal = JournalWriter(run.journal)
    journal.append(encode_batch([good(0)]))
    with pytest.raises(RunDirError, match="still going on") as caught:
        finish(tmp_path)
    assert "Ctrl-C" in caught.value.fix
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["requests.journal", "run.json"]
    journal.append(encode_batch([good(1)]))
    journal.close()
    assert finish(tmp_path)["requests"]["ok"] == 2


def test_two_reports_at_once_both_tell_all(tmp_path: Path) -> None:
    """`kvswarm run` makes one at its end, just when somebody has lost patience."""
    records = [good(i) for i in range(20_000)]
    run = write_run(tmp_path, [records[start : start + 500] for start in range(0, 20_000, 500)])
    command = [sys.executable, "-m", "kvswarm", "report", "--json", str(tmp_path)]
    reports = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    told = [report.communicate()[0] for report in reports]
    assert [report.returncode for report in reports] == [0, 0, 0]
    assert told == [run.summary.read_bytes()] * 3
    assert pq.read_table(run.requests)["index"].to_pylist() == list(range(20_000))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "report.html", "requests.parquet", "run.json", "summary.json",
    ]  # fmt: skip


def test_a_finished_table_is_left_as_it_is(tmp_path: Path) -> None:
    """`kvswarm report` may be asked for any number of times."""
    run = write_run(tmp_path, [[good(0), good(1)]])
    finish_table(run)
    before = run.requests.read_bytes()
    assert finish_table(run).rows == 2
    assert run.requests.read_bytes() == before


def test_a_row_that_came_twice_is_kept_once(tmp_path: Path) -> None:
    """A worker may send a batch again when it did not hear of its arrival."""
    run = write_run(tmp_path, [[good(0), good(1)], [good(1), good(2)], [good(0), good(1)]])
    assert finish_table(run) == finish_table(run) == TableReport(rows=3, duplicates=3)
    assert pq.read_table(run.requests)["index"].to_pylist() == [0, 1, 2]


def test_large_runs_are_written_in_row_groups(tmp_path: Path) -> None:
    """Memory stays bounded; a group of which every row came before holds none."""
    records = [unsent(i) for i in range(2 * ROWS_PER_GROUP + 5)]
    size = ROWS_PER_GROUP // 4
    batches = [records[start : start + size] for start in range(0, len(records), size)]
    run = write_run(tmp_path, [*batches[:4], *batches])
    summary = finish(tmp_path)
    table = pq.read_metadata(run.requests)
    groups = [table.row_group(place).num_rows for place in range(table.num_row_groups)]
    assert sum(groups) == len(records) == summary["requests"]["sent"]
    assert max(groups) < ROWS_PER_GROUP + size
    assert len(groups) >= 3
    assert pq.read_table(run.requests)["index"].to_pylist() == list(range(len(records)))


def test_a_folder_with_neither_journal_nor_table_is_refused(tmp_path: Path) -> None:
    """Naming both files, so that a person sees what is missing."""
    run = RunDir(tmp_path)
    run.write_info(run_info())
    with pytest.raises(RunDirError, match=r"neither requests\.journal nor requests\.parquet"):
        finish(tmp_path)
