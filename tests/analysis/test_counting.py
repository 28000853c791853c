"""The counting of values gives what numpy gives of all of them, kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvswarm.analysis.counting import COUNTED_BELOW_US, PERCENTILES, STATISTICS, Tally

EDGE = COUNTED_BELOW_US
VALUES_US = st.one_of(
    st.integers(0, 300),
    st.integers(0, EDGE - 1),
    st.integers(EDGE - 2, EDGE + 2),
    st.integers(EDGE, 2**32 - 1),
)
PIECES = st.lists(st.lists(VALUES_US, max_size=40), max_size=4)


def tally_of(pieces: list[list[int]]) -> Tally:
    """Count the pieces, one after the other."""
    tally = Tally()
    for piece in pieces:
        tally.add(np.array(piece, dtype=np.int64))
    return tally


@settings(deadline=None, max_examples=50)
@given(PIECES.filter(any))
@example([[EDGE - 1, EDGE]])
@example([[5], [2**32 - 1] * 3, [5]])
@example([[EDGE, EDGE + 7], [EDGE + 3]])
def test_statistics_are_those_of_all_values(pieces: list[list[int]]) -> None:
    """Exact, wherever the values lie and however they came: numpy's default percentile."""
    values_ms = np.concatenate([np.array(piece, dtype=float) for piece in pieces]) / 1000
    latency = tally_of(pieces).latency()
    assert set(latency) == set(STATISTICS)
    assert latency["count"] == len(values_ms)
    assert latency["min"] == values_ms.min()
    assert latency["max"] == values_ms.max()
    assert latency["mean"] == pytest.approx(values_ms.mean(), rel=1e-12)
    assert latency["std"] == pytest.approx(values_ms.std(), rel=1e-9, abs=1e-9)
    for name, share in PERCENTILES.items():
        assert latency[name] == pytest.approx(np.quantile(values_ms, share), rel=1e-12), name


@settings(deadline=None, max_examples=50)
@given(PIECES.filter(any), st.floats(0, 1))
def test_any_quantile_is_numpys(pieces: list[list[int]], share: float) -> None:
    """Not only the named ones: the verdict and calibration ask for others."""
    values_us = np.concatenate([np.array(piece, dtype=float) for piece in pieces])
    tally = tally_of(pieces)
    # The rank is a product of floats: between far values its last digit shows.
    tolerance = 1e-12 * (values_us.max() + 1) * len(values_us)
    quantile_us = tally.quantile_us(share)
    assert quantile_us == pytest.approx(np.quantile(values_us, share), abs=tolerance)
    assert tally.quantile_ms(share) == quantile_us / 1000


@settings(deadline=None, max_examples=50)
@given(PIECES, PIECES)
def test_the_order_of_values_and_pieces_does_not_matter(
    before: list[list[int]], after: list[list[int]]
) -> None:
    """Workers ship when they like."""
    one, other = tally_of(before + after), tally_of(after + before)
    assert one.count == other.count
    for share in PERCENTILES.values():
        assert one.quantile_us(share) == other.quantile_us(share)


def test_without_values_nothing_is_known() -> None:
    """Missing is None, never 0."""
    for tally in (Tally(), tally_of([[], []])):
        assert tally.quantile_us(0.5) is None
        assert tally.quantile_ms(0.5) is None
        assert tally.latency() == {**dict.fromkeys(STATISTICS), "count": 0}


def test_values_are_counted_in_whole_microseconds_and_not_below_zero() -> None:
    """Latencies come as fractions of a us; a step of the clock may make one negative."""
    tally = Tally()
    tally.add(np.array([-5.0, 0.4, 2.6, 7.0]))
    tally.add(np.array([4], dtype=np.uint32))
    assert [tally.quantile_us(rank / 4) for rank in range(5)] == [0, 0, 3, 4, 7]


def test_a_million_values_give_the_thousandth_largest() -> None:
    """p999 of many is a rank, not an estimate."""
    values_us = np.random.default_rng(3).gamma(2.0, 9000.0, 1_000_000).astype(np.int64)
    tally = Tally()
    for piece in np.array_split(values_us, 7):
        tally.add(piece)
    assert tally.quantile_us(0.999) == pytest.approx(np.quantile(values_us, 0.999), rel=1e-12)
    assert tally.quantile_us(1.0) == values_us.max()
