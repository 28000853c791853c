"""Records: what is shipped comes back, and each derived figure is what its definition says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.records import ERROR_KINDS, Record, decode_batch, encode_batch, pack_u32

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bytes: st.binary(max_size=24),
    bool: st.booleans(),
}
FIELDS = msgspec.structs.fields(Record)
U32S = st.lists(st.integers(0, 2**32 - 1), max_size=30)
KNOWN = st.integers(1_700_000_000 * 10**9, 1_800_000_000 * 10**9)
MOMENTS = st.one_of(st.none(), KNOWN)


def values_of(field_type: Any) -> st.SearchStrategy[Any]:
    """Any value of a field, so that a field added later is covered too."""
    kinds = getattr(field_type, "__args__", (field_type,))
    return st.one_of(*(st.none() if kind is type(None) else BY_TYPE[kind] for kind in kinds))


def records() -> st.SearchStrategy[Record]:
    """Records with anything in any field."""
    return st.builds(Record, **{field.name: values_of(field.type) for field in FIELDS})


def record(**changes: Any) -> Record:
    """The least that a record must hold."""
    plain = {
        "index": 0, "worker": 0, "phase": "measure", "scenario": "s", "endpoint": "chat",
        "intended_ns": 0,
    }  # fmt: skip
    return Record(**{**plain, **changes})


@settings(deadline=None, max_examples=50)
@given(st.lists(records(), max_size=4))
def test_a_batch_comes_back_as_it_was_sent(batch: list[Record]) -> None:
    """Every field of every record, in order: what is lost here is lost from the run."""
    assert decode_batch(encode_batch(batch)) == batch


def test_a_batch_may_be_made_of_any_iterable() -> None:
    """The recorder hands over what it has, list or not."""
    assert decode_batch(encode_batch(iter([record(index=3)]))) == [record(index=3)]


def test_what_was_shipped_before_newer_fields_came_still_reads() -> None:
    """Fields go by position: one more at the end must not make old journals unreadable."""
    required = [field for field in FIELDS if field.required]
    assert FIELDS[: len(required)] == tuple(required), "a field without a default after one with"
    old = list(msgspec.structs.astuple(record(index=9)))[: len(required)]
    (read,) = decode_batch(msgspec.msgpack.encode([old]))
    assert read == record(index=9)


@pytest.mark.parametrize("blob", [b"", b"\x00", b"no batch", msgspec.msgpack.encode([[1, 2]])])
def test_what_is_no_batch_is_refused(blob: bytes) -> None:
    """A reader must never take something else for rows."""
    with pytest.raises(msgspec.DecodeError):
        decode_batch(blob)


@settings(deadline=None, max_examples=50)
@given(U32S, U32S, st.lists(st.integers(0, 2**16 - 1), max_size=30))
def test_sequences_unpack_to_what_was_packed(
    gaps: list[int], lags: list[int], tokens: list[int]
) -> None:
    """Little-endian on every machine, so that a worker of another kind can ship to this one."""
    made = record(
        packed_itl_us=pack_u32(gaps),
        packed_read_lag_us=pack_u32(np.array(lags, dtype=np.int64)),
        packed_late_index=pack_u32(lags),
        packed_late_us=pack_u32(gaps),
        packed_event_tokens=b"".join(count.to_bytes(2, "little") for count in tokens),
    )
    assert made.itl_us.tolist() == made.late_us.tolist() == gaps
    assert made.read_lag_us.tolist() == made.late_index.tolist() == lags
    assert made.event_tokens.tolist() == tokens
    assert made.packed_itl_us == b"".join(gap.to_bytes(4, "little") for gap in gaps)


@settings(deadline=None, max_examples=50)
@given(st.integers(2**32, 2**62))
def test_a_gap_of_more_than_an_hour_is_held_at_the_limit(gap_us: int) -> None:
    """Wrapped around, a stall of 72 minutes would look like a fast token."""
    assert record(packed_itl_us=pack_u32([gap_us, 5])).itl_us.tolist() == [2**32 - 1, 5]


@settings(deadline=None, max_examples=50)
@given(KNOWN, MOMENTS, MOMENTS, MOMENTS, MOMENTS)
def test_latencies_are_differences_of_the_moments_they_name(
    intended: int, sent: int | None, first: int | None, last: int | None, end: int | None
) -> None:
    """TTFT from sent, its corrected form from intended, E2E to the end; missing stays missing."""
    made = record(
        intended_ns=intended, sent_ns=sent, first_token_ns=first, last_token_ns=last, end_ns=end
    )

    def ms(later: int | None, earlier: int | None) -> Any:
        if later is None or earlier is None:
            return None
        return pytest.approx((later - earlier) / 1_000_000, rel=1e-12)

    assert made.ttft_ms == ms(first, sent)
    assert made.ttft_from_intended_ms == ms(first, intended)
    assert made.e2e_ms == ms(end, sent)
    assert made.tpot_ms is None, "the server told no output tokens"


@pytest.mark.parametrize(
    ("completion_tokens", "first_event_tokens", "tpot_ms"),
    [
        (11, None, 30.0),  # 300 ms / (11 - 1): a first event of unknown size counts as one token
        (11, 1, 30.0),
        (11, 5, 50.0),  # 300 ms / (11 - 5): the tokens that came first took none of that time
        (5, 5, None),  # nothing came after the first event
        (1, None, None),
        (0, None, None),
        (None, 1, None),  # events are not tokens: without usage it is not known
    ],
)
def test_tpot_spreads_the_time_after_the_first_event_over_the_tokens_after_it(
    completion_tokens: int | None, first_event_tokens: int | None, tpot_ms: float | None
) -> None:
    """Neither TTFT nor the tokens of the first event are in it."""
    made = record(
        sent_ns=0, first_token_ns=5_000_000_000, last_token_ns=5_300_000_000, end_ns=9_000_000_000,
        completion_tokens=completion_tokens, first_event_tokens=first_event_tokens,
    )  # fmt: skip
    assert made.tpot_ms == tpot_ms


@pytest.mark.parametrize(
    ("event_tokens", "tpot_ms"),
    [
        ([22, 13, 1, 1], 20.0),  # 300 ms / (13 + 1 + 1), and not / (91 - 22)
        ([40, 1], 300.0),
        ([40], None),
    ],
)
def test_tpot_leaves_out_tokens_that_no_event_shows(
    event_tokens: list[int], tpot_ms: float | None
) -> None:
    """A tool-call parser keeps the closing tag: its tokens come after the last event's time."""
    made = record(
        sent_ns=0, first_token_ns=5_000_000_000, last_token_ns=5_300_000_000, end_ns=9_000_000_000,
        completion_tokens=91, first_event_tokens=event_tokens[0],
        packed_event_tokens=np.array(event_tokens, dtype="<u2").tobytes(),
    )  # fmt: skip
    assert made.tpot_ms == tpot_ms


def test_tpot_leaves_them_out_where_each_event_had_one_token() -> None:
    """Then nothing was packed, and the first event's count alone says that the server told."""
    made = record(
        sent_ns=0, first_token_ns=5_000_000_000, last_token_ns=5_300_000_000, end_ns=9_000_000_000,
        completion_tokens=91, first_event_tokens=1, events=11,
    )  # fmt: skip
    assert made.tpot_ms == 30.0


def test_only_a_request_without_an_error_is_ok() -> None:
    """What is ok enters the latencies."""
    assert record().ok
    assert not any(record(error_kind=kind).ok for kind in [*ERROR_KINDS, "http_503"])
