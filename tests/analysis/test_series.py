"""Growth of counters, levels of gauges: against slow and plain oracles."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.series import (
    SCRAPE_DURATION,
    Level,
    Replica,
    Series,
    Span,
    increase,
    level,
    total_increase,
)

S = 1_000_000_000
START_NS = 1_764_000_000_000_000_000
values_of_a_counter = st.lists(
    st.one_of(st.none(), st.integers(0, 40).map(float)), min_size=2, max_size=30
)
"""One per page; None where the page has no such sample."""


def series_of(values: list[float | None], labels: dict[str, str] | None = None) -> Series:
    """A series with one value a second."""
    there = [(n, value) for n, value in enumerate(values) if value is not None]
    return Series(
        labels or {},
        np.array([START_NS + n * S for n, _ in there], dtype=np.int64),
        np.array([value for _, value in there], dtype=np.float64),
    )


def span_of(first: int, last: int) -> Span:
    """From one second to another."""
    start_ns, end_ns = START_NS + first * S, START_NS + last * S
    return Span(start_ns, end_ns, (start_ns, start_ns), (end_ns, end_ns), whole=True)


def slow_increase(values: list[float | None], first: int, last: int) -> float:
    """Walk the pages one by one, as Prometheus does."""
    before = 0.0  # what appears later began at 0
    for value in values[: first + 1]:
        before = before if value is None else value
    grown = 0.0
    for value in values[first + 1 : last + 1]:
        if value is not None:
            grown += value if value < before else value - before
            before = value
    return grown


@given(values=values_of_a_counter, data=st.data())
def test_growth_is_that_of_a_walk_over_the_pages(
    values: list[float | None], data: st.DataObject
) -> None:
    """Restarts, gaps and late beginnings included."""
    first = data.draw(st.integers(0, len(values) - 2))
    last = data.draw(st.integers(first + 1, len(values) - 1))
    found = increase(series_of(values), span_of(first, last))
    assert found == slow_increase(values, first, last)


@given(steps=st.lists(st.integers(0, 9), min_size=1, max_size=20), data=st.data())
def test_growth_over_a_restart_loses_only_what_no_page_saw(
    steps: list[int], data: st.DataObject
) -> None:
    """Whatever the counter stood at: it is never negative, and never more than was counted."""
    restarts = set(data.draw(st.lists(st.integers(0, len(steps) - 1), max_size=3)))
    total, values = 100.0, [100.0]
    for place, step in enumerate(steps):
        total = float(step) if place in restarts else total + step
        values.append(total)
    counted = sum(steps)
    found = increase(series_of([*values]), span_of(0, len(steps)))
    assert 0 <= found <= counted + 1e-9
    if not restarts:
        assert found == counted


@given(groups=st.lists(st.lists(st.integers(0, 40).map(float), min_size=4, max_size=4), max_size=4))
def test_series_are_summed_after_their_growth(groups: list[list[float]]) -> None:
    """The sum of two counters may rise while one of them was started anew."""
    found = total_increase([series_of([*values]) for values in groups], span_of(0, 3))
    if not groups:
        assert found is None
    else:
        assert found == sum(slow_increase([*values], 0, 3) for values in groups)


def test_one_page_tells_no_growth() -> None:
    """None, not 0."""
    assert total_increase([series_of([5.0])], span_of(0, 0)) is None


@given(
    points=st.lists(
        st.tuples(st.integers(0, 100), st.floats(0, 50)), min_size=2, max_size=20,
        unique_by=lambda point: point[0],
    )
)  # fmt: skip
def test_the_mean_of_a_level_is_over_time(points: list[tuple[int, float]]) -> None:
    """Pages are not evenly spaced: later in a long run they are rarer."""
    points.sort()
    found = Level(
        np.array([START_NS + at * S for at, _ in points], dtype=np.int64),
        np.array([value for _, value in points]),
    )
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert math.isclose(found.mean, area / (points[-1][0] - points[0][0]), abs_tol=1e-9)
    assert found.max == max(value for _, value in points)


@given(
    a=st.lists(st.none() | st.integers(0, 9).map(float), min_size=3, max_size=8),
    b=st.lists(st.none() | st.integers(0, 9).map(float), min_size=3, max_size=8),
    summed=st.booleans(),
)
def test_engines_are_put_together_page_by_page(
    *, a: list[float | None], b: list[float | None], summed: bool
) -> None:
    """Running requests are summed, shares averaged."""
    found = level([series_of(a), series_of(b)], span_of(1, 5), summed=summed)
    wanted = {}
    for place in range(1, 6):
        there = [s[place] for s in (a, b) if place < len(s) and s[place] is not None]
        if there:
            whole = sum(value for value in there if value is not None)
            wanted[START_NS + place * S] = whole if summed else whole / len(there)
    if found is None:
        assert not wanted
    else:
        assert dict(zip(found.times_ns.tolist(), found.values.tolist(), strict=True)) == wanted


def replica(**series: list[list[float | None]]) -> Replica:
    """A replica with these series, one page a second."""
    pages = max(len(values) for group in series.values() for values in group)
    times = np.array([START_NS + n * S for n in range(pages)], dtype=np.int64)
    named = {
        name: [series_of(values, {"n": str(n)}) for n, values in enumerate(group)]
        for name, group in series.items()
    }
    return Replica("r", times, times - S // 10, named)


@pytest.mark.parametrize(
    ("first_s", "last_s", "wanted"),
    [
        (2.5, 4.5, (2, 5, True)),
        (2.0, 4.9, (2, 5, True)),
        (2.0, 4.91, (2, 6, True)),
        (-1.0, 3.0, (0, 4, False)),
        (1.0, 8.95, (1, 9, False)),
    ],
    ids=["between", "asked at the end", "asked before the end", "no page before", "no page after"],
)
def test_the_span_is_from_a_page_read_before_to_a_page_asked_for_after(
    first_s: float, last_s: float, wanted: tuple[int, int, bool]
) -> None:
    """A page that was under way when the last request ended may not have counted it."""
    pages = replica(x_total=[[0.0] * 10])
    span = pages.span(START_NS + round(first_s * S), START_NS + round(last_s * S))
    assert span.start_ns == START_NS + wanted[0] * S
    assert span.end_ns == START_NS + wanted[1] * S
    assert span.whole is wanted[2]


@pytest.mark.parametrize(
    ("series", "several"),
    [
        ({"process_start_time_seconds": [[5.0, 5.0, 9.0, 9.0]]}, False),
        ({"process_start_time_seconds": [[5.0, 9.0, 5.0]]}, True),
        ({"a_total": [[9.0, 1.0, 2.0, 3.0]]}, False),
        ({"a_total": [[90.0, 1.0, 91.0, 2.0, 92.0, 3.0]]}, True),
        ({"a_total": [[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, *([9.0] * 40)]]}, False),
        ({"a_gauge": [[9.0, 1.0, 9.0, 1.0, 9.0, 1.0]]}, False),
    ],
    ids=["restart", "older again", "one fall", "by turns", "a few restarts", "a gauge"],
)
def test_a_page_of_several_servers_is_told_from_one_that_was_started_anew(
    *, series: dict[str, list[list[float | None]]], several: bool
) -> None:
    """Behind a gateway each page may be another replica's."""
    assert replica(**series).several is several


def test_the_name_of_our_own_sample_is_not_a_counter() -> None:
    """How long a page took goes up and down."""
    assert not SCRAPE_DURATION.endswith(("_total", "_count", "_success"))
