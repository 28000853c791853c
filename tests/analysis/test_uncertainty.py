"""What the rows say of their own uncertainty, against simulated streams whose truth is known.

A server's packets reach the kernel at known times. One reader polls all sockets now and then: what
came since the poll before is one read, stamped with its last packet. So a row knows of an event
that shared its read with later bytes that it came in (stamp - late, stamp], and no more.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from kvswarm.analysis.rows import Rows, read_rows
from kvswarm.analysis.summary import Totals, _intervals, _measure
from kvswarm.analysis.table import finish_table
from kvswarm.analysis.uncertainty import spread_gaps_us
from kvswarm.analysis.verdict import Evidence, Interval, judge
from kvswarm.profiles.model import VerdictLimits
from kvswarm.records import Record, pack_u32

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, unsent, write_run

US = 1000


@dataclass(frozen=True)
class Stream:
    """What truly happened, in us: when it left, when each packet came, and which end an event."""

    noted_sent: int
    true_sent: int
    packets: tuple[int, ...]
    ends_event: tuple[bool, ...]

    @property
    def events(self) -> list[int]:
        """True arrivals of the events: of the last packet of each."""
        return [t for t, ends in zip(self.packets, self.ends_event, strict=True) if ends]


def record_of(index: int, stream: Stream, polls: Sequence[int]) -> Record:
    """What a client notes of a stream if it reads at these moments, in us."""
    stamps, lates = [], []
    reads = itertools.groupby(
        zip(stream.packets, stream.ends_event, strict=True),
        key=lambda packet: bisect_left(polls, packet[0]),
    )
    for poll, group in reads:
        read = list(group)
        stamp = read[-1][0]
        empty_at = max(stream.noted_sent, polls[poll - 1] if poll else 0)
        for place, (_, ends) in enumerate(read):
            if ends:
                stamps.append(stamp)
                lates.append(stamp - empty_at if place < len(read) - 1 else 0)
    late = [place for place, bound in enumerate(lates) if bound]
    changes: dict[str, Any] = {
        "events": len(stamps),
        "packed_read_lag_us": b"",
        "packed_late_index": pack_u32(late),
        "packed_late_us": pack_u32([lates[place] for place in late]),
        "send_spread_us": stream.true_sent - stream.noted_sent,
        "coalesced_events": len(late),
    }
    return good(
        index,
        at_ms=stream.noted_sent / US,
        ttft_ms=(stamps[0] - stream.noted_sent) / US,
        gaps_ms=[(b - a) / US for a, b in itertools.pairwise(stamps)],
        **changes,
    )


def rows_of(records: Sequence[Record]) -> Rows:
    """The rows as analysis reads them from the file."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), [records])
        finish_table(run)
        (rows,) = read_rows(run)
    return rows


def intervals_of(rows: Rows) -> dict[str, Interval]:
    """What the verdict hears of."""
    totals = Totals()
    _measure(rows, totals)
    return {interval.name: interval for interval in _intervals(totals)}


def seen_ms(gaps_ms: Sequence[int], late_ms: dict[int, int], **changes: Any) -> Record:
    """A row as it was seen; `late_ms` is by event."""
    return good(
        0,
        gaps_ms=gaps_ms,
        packed_late_index=pack_u32(list(late_ms)),
        packed_late_us=pack_u32([bound * US for bound in late_ms.values()]),
        **changes,
    )


@pytest.mark.parametrize(
    ("rows", "spread_ms"),
    [
        # Nothing shared a read.
        ([seen_ms([10, 0, 20], {})], [10, 0, 20]),
        # Four events in one read at 40, the socket empty at 0: at 10, 20, 30 and 40.
        ([seen_ms([40, 0, 0, 0], {1: 40, 2: 40, 3: 40})], [10, 10, 10, 10]),
        # The socket was seen empty 4 ms before the read: the server sent them together.
        ([seen_ms([40, 0, 0, 0], {1: 4, 2: 4, 3: 4})], [37, 1, 1, 1]),
        # The read at 30 ends within an event, so both of its events are late; the next is another.
        ([seen_ms([30, 0, 30, 0, 0], {1: 30, 2: 30, 3: 30, 4: 30})], [10, 10, 20, 10, 10]),
        # The first event too: the gap after it grows as it moves to the front.
        ([seen_ms([0, 10], {0: 20})], [10, 10]),
        # A row that ends late and one that begins late are two reads.
        ([seen_ms([20], {1: 20}), seen_ms([0], {0: 20})], [10, 10]),
        # Rows without events or gaps have none; failures shift nothing of their neighbours'.
        (
            [
                unsent(1),
                seen_ms([20], {1: 20}),
                seen_ms([50, 0], {1: 50}, error_kind="stall"),
                good(2, gaps_ms=()),
                seen_ms([20, 5], {1: 10}),
            ],
            [10, 15, 10],
        ),
    ],
)
def test_events_of_one_read_are_spread_over_the_time_in_which_they_came(
    rows: list[Record], spread_ms: list[int]
) -> None:
    """By hand."""
    table = rows_of([structs.replace(row, index=i) for i, row in enumerate(rows)])
    assert (spread_gaps_us(table, table.good) / US).tolist() == spread_ms


@st.composite
def polls_and_streams(draw: st.DrawFn) -> tuple[list[int], list[Stream]]:
    """Any server and any reader: packets and polls at any moments, events in one or two packets."""
    streams = []
    for _ in range(draw(st.integers(1, 4))):
        gaps = draw(st.lists(st.integers(1, 30_000), min_size=1, max_size=14))
        noted = draw(st.integers(0, 40_000))
        spread = draw(st.sampled_from([0, 10, 3000]))
        packets = tuple(itertools.accumulate(gaps, initial=noted + spread + 1))[1:]
        ends = [draw(st.booleans()) for _ in packets]
        ends[-1] = True
        sent = noted + draw(st.integers(0, spread))
        streams.append(Stream(noted, sent, packets, tuple(ends)))
        # The note covers the truth: the spread is what send took, at least.
    steps = draw(st.lists(st.integers(1, 60_000), max_size=30))
    polls = list(itertools.accumulate(steps, initial=1))
    polls.append(max(polls[-1], *(stream.packets[-1] for stream in streams)) + 1)
    return polls, streams


@settings(deadline=None, max_examples=60)
@given(polls_and_streams())
def test_the_true_ttft_lies_within_what_is_stated(
    case: tuple[list[int], list[Stream]],
) -> None:
    """Whatever the server and the reader do: p50 and p99 of the truth are between low and high."""
    polls, streams = case
    rows = rows_of([record_of(i, stream, polls) for i, stream in enumerate(streams)])
    true_ms = [(stream.events[0] - stream.true_sent) / US for stream in streams]
    intervals = intervals_of(rows)
    for name, share in (("TTFT p50", 0.5), ("TTFT p99", 0.99)):
        interval = intervals[name]
        assert interval.low_ms - 1e-6 <= np.quantile(true_ms, share) <= interval.high_ms + 1e-6


@settings(deadline=None, max_examples=60)
@given(polls_and_streams())
def test_each_spread_event_lies_where_the_true_one_may(
    case: tuple[list[int], list[Stream]],
) -> None:
    """In (stamp - late, stamp] of its own event; those of one read evenly, in their order."""
    polls, streams = case
    records = [record_of(i, stream, polls) for i, stream in enumerate(streams)]
    rows = rows_of(records)
    spread = spread_gaps_us(rows, np.ones(len(rows), dtype=bool))
    assert (spread >= 0).all()
    for record, stream in zip(records, streams, strict=True):
        gaps, spread = spread[: record.events - 1], spread[record.events - 1 :]
        late = np.zeros(record.events, dtype=np.int64)
        late[record.late_index] = record.late_us
        # The last event stands where it does by the gaps from it back to the first.
        seen = np.concatenate(([0], np.cumsum(record.itl_us.astype(np.int64))))
        first = stream.events[0] - seen_first(record, stream)
        assert -late[0] <= first <= 0
        true_gaps = np.diff(stream.events)
        bound = late[:-1] + late[1:]
        assert (np.abs(gaps - true_gaps) <= bound).all()
        assert (gaps[bound == 0] == true_gaps[bound == 0]).all()
        assert abs(gaps.sum() - seen[-1]) <= late[0] + late[-1]
    assert not len(spread)


def seen_first(record: Record, stream: Stream) -> int:
    """The stamp of the first event, in us of the simulation."""
    ttft_ms = record.ttft_ms
    assert ttft_ms is not None
    return round(ttft_ms * US) + stream.noted_sent


@st.composite
def even_servers(draw: st.DrawFn) -> tuple[int, list[int], list[Stream]]:
    """Servers that send every `period` us, read by one who is sometimes slow."""
    period = draw(st.integers(1000, 40_000))
    ttft = draw(st.integers(5_000, 200_000))
    count = draw(st.integers(2, 40))
    starts = draw(st.lists(st.integers(0, period * 3), min_size=1, max_size=6))
    streams = [
        Stream(
            start, start, tuple(start + ttft + i * period for i in range(count)), (True,) * count
        )
        for start in starts
    ]
    end = max(stream.packets[-1] for stream in streams) + 1
    prompt = draw(st.integers(50, period))
    polls, place = [1], 0
    pauses = draw(st.lists(st.integers(50, period * 6), max_size=40))
    while polls[-1] < end:
        slow = place % 2 and place // 2 < len(pauses)
        for _ in range(1 if slow else draw(st.integers(1, 12))):
            polls.append(polls[-1] + (pauses[place // 2] if slow else prompt))
        place += 1
    return period, polls, streams


@settings(deadline=None, max_examples=120)
@given(even_servers())
def test_a_figure_that_is_off_is_doubted(case: tuple[int, list[int], list[Stream]]) -> None:
    """The promise of the verdict: off by more than 5 % or 2 ms at p99, a run is not valid."""
    period, polls, streams = case
    records = [record_of(i, stream, polls) for i, stream in enumerate(streams)]
    intervals = intervals_of(rows_of(records))
    verdict = judge(Evidence(intervals=tuple(intervals.values())), VerdictLimits())
    true_ttft_ms = np.quantile(
        [(stream.events[0] - stream.true_sent) / US for stream in streams], 0.99
    )
    for name, true_ms in (("TTFT p99", true_ttft_ms), ("ITL p99", period / US)):
        error_ms = abs(intervals[name].high_ms - true_ms)
        if error_ms > 2.0 or error_ms / true_ms > 0.05:
            assert verdict.status != "valid", (name, true_ms, intervals)
