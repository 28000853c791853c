"""Power over time makes energy: exact on straight lines, told where nobody looked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.power import GpuPower, by_counter, by_power
from kvswarm.analysis.series import Series

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, S

WATTS = st.floats(0.0, 1500.0)
SECONDS = st.floats(0.0, 9.0)


def series(points: dict[float, float]) -> Series:
    """Values at seconds since the load began."""
    times_ns = np.array([START_NS + round(at_s * S) for at_s in points], dtype=np.int64)
    return Series({}, times_ns, np.array([*points.values()], dtype=np.float64))


def at(seconds: float) -> int:
    return START_NS + round(seconds * S)


def slow_integral(points: dict[float, float], begin_s: float, end_s: float) -> float:
    """By many small steps: what the formula must come to."""
    edges = np.linspace(begin_s, end_s, 20_001)
    middles = (edges[1:] + edges[:-1]) / 2
    watts = np.interp(middles, [*points], [*points.values()])
    return float(watts.sum() * (end_s - begin_s) / 20_000)


@given(st.lists(WATTS, min_size=10, max_size=10), SECONDS, SECONDS)
def test_the_integral_is_that_of_straight_lines_between_pages(
    watts: list[float], one_s: float, other_s: float
) -> None:
    """Also where the window begins and ends between two pages."""
    begin_s, end_s = min(one_s, other_s), max(one_s, other_s) + 0.001
    points = {float(second): value for second, value in enumerate(watts)}
    points[20.0] = watts[-1]  # far later: not asked for
    found = by_power(series(points), at(begin_s), at(end_s))
    wanted = slow_integral(points, begin_s, min(end_s, 9.0))
    assert found.energy_j == pytest.approx(wanted, rel=1e-3, abs=0.5)


@given(st.lists(WATTS, min_size=3, max_size=12), st.floats(0.5, 8.5))
def test_the_parts_of_a_window_make_the_whole(watts: list[float], cut_s: float) -> None:
    """No page counts twice or not at all, wherever a window is cut."""
    points = {float(second): value for second, value in enumerate(watts)}
    end_s = len(watts) - 1.0
    cut_s = min(cut_s, end_s)
    power = series(points)
    whole = by_power(power, at(0.0), at(end_s))
    first, second = by_power(power, at(0.0), at(cut_s)), by_power(power, at(cut_s), at(end_s))
    assert first.energy_j + second.energy_j == pytest.approx(whole.energy_j)
    assert whole.observed_share == pytest.approx(1.0)
    assert max(each.observed_share for each in (whole, first, second)) <= 1.0
    assert first.observed_s + second.observed_s == pytest.approx(end_s)


@given(st.floats(0.0, 500.0), st.floats(0.0, 40.0), st.integers(2, 40))
def test_a_ramp_is_exact_however_often_it_is_read(watts: float, slope: float, pages: int) -> None:
    """The trapezoidal rule makes no mistake on a line: W x s + slope x s^2 / 2."""
    points = {second: watts + slope * second for second in np.linspace(0.0, 4.0, pages).tolist()}
    found = by_power(series(points), at(0.0), at(4.0))
    assert found.energy_j == pytest.approx(watts * 4.0 + slope * 8.0)


def test_a_gap_between_pages_is_told_and_filled_up_with_the_mean() -> None:
    """100 W for 54 s of 60: nobody looked for 6 s, in which power may have been anything."""
    points = {float(s): 100.0 for s in range(61) if not 30 < s < 36}
    found = by_power(series(points), at(0.0), at(60.0))
    assert (found.observed_s, found.longest_gap_s) == (54.0, 6.0)
    assert found.energy_j == pytest.approx(5400.0)
    assert found.whole_j == pytest.approx(6000.0)


@pytest.mark.parametrize(
    ("pages", "share"),
    [(range(54), 53 / 60), (range(8, 61), 52 / 60), ([*range(20), *range(40, 61)], 39 / 60)],
    ids=["went away", "came late", "away amid"],
)
def test_too_little_seen_is_no_energy(pages: list[int], share: float) -> None:
    """What was seen would stand for more than it can."""
    found = by_power(series({float(s): 100.0 for s in pages}), at(0.0), at(60.0))
    assert found.observed_share == pytest.approx(share)
    assert found.whole_j is None


def test_nothing_within_the_window_is_nothing_seen() -> None:
    """The exporter ended before."""
    found = by_power(series({-3.0: 9.0, -2.0: 9.0}), at(0.0), at(60.0))
    assert (found.energy_j, found.observed_s, found.longest_gap_s) == (0.0, 0.0, 60.0)


def test_a_counter_counts_what_it_grew_by_also_after_it_was_started_anew() -> None:
    """From the window's begin at 2.5 s, by 5 J a second; anew at 6 s, from 0."""
    points = {0.0: 100.0, 5.0: 125.0, 6.0: 5.0, 10.0: 25.0}
    found = by_counter(series(points), at(2.5), at(10.0))
    assert found.energy_j == pytest.approx(12.5 + 5.0 + 20.0)
    assert found.observed_share == pytest.approx(1.0)


@given(st.floats(0.0, 20.0), st.floats(0.1, 20.0))
def test_a_counter_of_constant_power_agrees_with_that_power(
    begin_s: float, length_s: float
) -> None:
    """They are read of one GPU: which of the two is taken must make no difference."""
    watts = 250.0
    end_s = begin_s + length_s
    power = GpuPower(series(dict.fromkeys(np.arange(-1.0, 42.0).tolist(), watts)), None)
    counter = GpuPower(None, series({s: watts * s for s in np.arange(-1.0, 42.0).tolist()}))
    ones = [each.over(at(begin_s), at(end_s)) for each in (power, counter)]
    assert [by for by, _ in filter(None, ones)] == ["power", "counter"]
    energies = [found.energy_j for _, found in filter(None, ones)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)
    assert energies[0] == pytest.approx(watts * length_s, rel=1e-6)


def test_a_counter_that_stands_still_and_one_page_alone_tell_nothing() -> None:
    """dcgm-exporter may read the GPU every 30 s: that is not 0 J."""
    assert GpuPower(None, series({0.0: 7.0, 60.0: 7.0})).over(at(0), at(60)) is None
    assert GpuPower(series({0.0: 7.0}), None).over(at(0), at(60)) is None
