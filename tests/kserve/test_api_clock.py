"""The API server's clock, bounded by the Date of its answers; and when it was away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvswarm.clusterlog import AwayEntry, ClockEntry
from kvswarm.kserve.api_clock import FIRST_ANSWERS, ClockBounds, ClockKeeper
from kvswarm.kserve.cluster import Answered

S = 1_000_000_000
START_NS = 1_764_000_000 * S
TRIPS = st.tuples(st.integers(0, 10 * S), st.integers(0, S // 5), st.integers(0, S // 5))
"""When it was asked, the way there, and the way back."""


def answer(ahead_ns: int, asked_ns: int, there_ns: int = 0, back_ns: int = 0) -> Answered:
    """What a server says whose clock is ahead by so much."""
    moment_ns = START_NS + asked_ns + there_ns
    return Answered(
        asked_ns=START_NS + asked_ns,
        answered_ns=moment_ns + back_ns,
        date_s=(moment_ns + ahead_ns) // S,
    )


@given(st.integers(-100 * S, 100 * S), st.lists(TRIPS, min_size=1, max_size=12))
def test_the_true_difference_lies_within_the_bounds(
    ahead_ns: int, trips: list[tuple[int, int, int]]
) -> None:
    """However long each way takes, and whenever it is asked."""
    bounds = ClockBounds.of(answer(ahead_ns, *trips[0]))
    for trip in trips[1:]:
        bounds = bounds.narrowed(answer(ahead_ns, *trip))
    assert bounds.least_ns <= ahead_ns <= bounds.most_ns


@given(st.integers(-100 * S, 100 * S))
def test_answers_spread_over_a_second_narrow_it_down(ahead_ns: int) -> None:
    """Eight of them, 0.13 s apart, tell it to 0.13 s or less."""
    bounds = ClockBounds.of(answer(ahead_ns, 0))
    for k in range(1, FIRST_ANSWERS):
        bounds = bounds.narrowed(answer(ahead_ns, k * 130_000_000))
    assert bounds.most_ns - bounds.least_ns <= 130_000_000


def test_a_clock_that_was_set_is_found_anew() -> None:
    """Bounds of before and after cannot both hold."""
    bounds = ClockBounds.of(answer(0, 0)).narrowed(answer(60 * S, S))
    assert bounds.least_ns <= 60 * S <= bounds.most_ns


def test_an_absence_is_written_once_it_is_over() -> None:
    """From the last answer before it to the first after it; said to a person once."""
    keeper = ClockKeeper(START_NS)
    assert keeper.answered(answer(0, S)) == []
    assert [keeper.missed(), keeper.missed()] == [True, False]
    entry = AwayEntry(time_ns=START_NS + 9 * S, since_ns=START_NS + S)
    assert keeper.answered(answer(0, 9 * S)) == [entry]
    assert keeper.missed()
    away, clock = keeper.ended(START_NS + 12 * S)
    assert away == AwayEntry(time_ns=START_NS + 12 * S, since_ns=START_NS + 9 * S)
    assert isinstance(clock, ClockEntry)
