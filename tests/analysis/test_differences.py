"""Differences between figures of two samples: what noise is called noise, and what is there found."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import binom

from kvswarm.analysis.differences import (
    Difference,
    Sample,
    Statistic,
    compare_samples,
    figure,
    hold,
    needed_values,
)

P_VALUES = st.lists(st.none() | st.floats(0, 1), max_size=20)


def series(count: int, phi: float, generator: np.random.Generator) -> np.ndarray:
    """Log-normal latencies whose neighbours are alike."""
    noise = generator.standard_normal(count) * math.sqrt(1 - phi * phi)
    return 100.0 * np.exp(0.3 * lfilter([1.0], [1.0, -phi], noise))


def sample(values: np.ndarray) -> Sample:
    return Sample.of(values, np.arange(len(values)))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("statistic", [0.5, 0.95, "mean"])
def test_two_samples_of_one_server_differ_in_one_case_of_twenty_at_most(
    phi: float, statistic: Statistic
) -> None:
    """p below 0.05, by no more than chance; `benchmarks/comparisons.py` counts many more."""
    generator, count = np.random.default_rng(3), 60
    false = 0
    for _ in range(count):
        one, other = (sample(series(1000, phi, generator)) for _ in range(2))
        found = compare_samples(one, other, statistic, paired=False)
        assert found is not None
        false += found.p_value is not None and found.p_value < 0.05
    assert false <= binom.ppf(0.999, count, 0.05)


def test_as_many_values_as_are_needed_find_the_change_in_four_of_five_cases() -> None:
    """The number is told by a smaller comparison that could not show it."""
    generator, change, count = np.random.default_rng(4), 0.1, 60
    pilots = []
    for _ in range(10):
        one, other = (sample(series(300, 0.5, generator)) for _ in range(2))
        found = compare_samples(one, other, 0.5, paired=False)
        assert found is not None
        pilots.append(needed_values(found, share=change))
    needed = int(np.median([pilot for pilot in pilots if pilot is not None]))
    assert needed < 10_000
    shown = 0
    for _ in range(count):
        one, other = (series(needed, 0.5, generator) for _ in range(2))
        found = compare_samples(sample(one * (1 + change)), sample(other), 0.5, paired=False)
        assert found is not None
        shown += found.p_value is not None and found.p_value < 0.05 and found.difference > 0
    assert shown >= binom.ppf(0.001, count, 0.8)


def test_what_requests_have_in_common_does_not_blur_a_difference_of_pairs() -> None:
    generator = np.random.default_rng(5)
    length = np.exp(generator.normal(0, 1, 500))
    one, other = (sample(length * generator.normal(100, 2, 500)) for _ in range(2))
    paired = compare_samples(one, other, "mean", paired=True)
    apart = compare_samples(one, other, "mean", paired=False)
    assert paired is not None
    assert apart is not None
    assert paired.error is not None
    assert apart.error is not None
    assert paired.error < apart.error / 10


@pytest.mark.parametrize("statistic", [0.5, 0.99, "mean"])
def test_a_figure_is_that_of_the_values_as_numpy_has_it(statistic: Statistic) -> None:
    """Not of bins, nor of resamples."""
    generator = np.random.default_rng(6)
    one, other = (generator.lognormal(0, 1, 5000) for _ in range(2))
    found = compare_samples(sample(one), sample(other), statistic, paired=False)
    assert found is not None
    of = np.mean if statistic == "mean" else lambda values: np.quantile(values, statistic)
    assert found.reference == pytest.approx(of(other), rel=1e-12)
    assert found.difference == pytest.approx(of(one) - of(other), rel=1e-12)
    assert figure(one, statistic) == pytest.approx(of(one), rel=1e-12)


def test_no_p_value_where_too_few_values_lie_beyond_the_quantile() -> None:
    generator = np.random.default_rng(7)
    one, other = (sample(generator.normal(1, 0.1, 300)) for _ in range(2))
    found = compare_samples(one, other, 0.99, paired=False)
    assert found is not None
    assert (found.p_value, found.low, found.error) == (None, None, None)


def test_no_p_value_where_all_is_one_memory() -> None:
    """A slow drift makes 300 requests as good as a few."""
    drift = np.linspace(0, 1, 300)
    found = compare_samples(sample(drift), sample(drift[::-1].copy()), "mean", paired=False)
    assert found is not None
    assert found.p_value is None
    assert found.blocks < 6


def test_more_figures_need_more_values_each() -> None:
    found = Difference(
        difference=1.0, reference=100.0, low=-3.0, high=5.0, p_value=0.6, count=10_000,
        blocks=1_000_000, paired=False, error=3.0,
    )  # fmt: skip
    assert found.needed == 31_153  # 10,000 * (3 * 1.05 * (1.95996 + 0.84162) / 5) ** 2
    among = needed_values(found, tests=14)
    assert among is not None
    assert among > found.needed
    few = needed_values(replace(found, blocks=10))
    assert few is not None
    assert few > found.needed
    assert needed_values(replace(found, reference=0.0)) is None
    assert needed_values(replace(found, error=None)) is None


@given(p_values=P_VALUES)
def test_corrected_p_values_keep_their_order_and_are_no_smaller(
    p_values: list[float | None],
) -> None:
    """Holm's step-down: the smallest counts as one of all, the largest as one of one at the least."""
    corrected = hold(p_values)
    known = [value for value in p_values if value is not None]
    pairs = [(p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None]
    assert [c is None for c in corrected] == [p is None for p in p_values]
    for p_value, found in pairs:
        assert found is not None
        assert p_value <= found <= min(1.0, p_value * len(known)) + 1e-12 or found <= 1.0
    ordered = sorted(pairs, key=lambda pair: pair[0])
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(ordered))  # type: ignore[operator]


def test_holms_own_example() -> None:
    """By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, then no less than the one before."""
    assert hold([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("memory_by_length", [0.2, 0.5, 1.0])
def test_runs_that_wander_are_told_apart_where_they_never_meet_and_not_else(
    memory_by_length: float,
) -> None:
    """They remember more than a block holds: a large difference is beyond all that either did."""
    generator = np.random.default_rng(9)
    time = memory_by_length * 600
    series = [wandering(generator, 600, (time - 1) / (time + 1)) for _ in range(400)]
    pairs = list(zip(series[::2], series[1::2], strict=True))
    index = np.arange(600)

    def told(one: Any, other: Any) -> bool:
        samples = (Sample.of(one, index), Sample.of(other, index))
        found = compare_samples(*samples, 0.5, paired=True)
        assert found is not None
        return found.p_value is not None and found.p_value < 0.05

    false = sum(told(100 + one, 100 + other) for one, other in pairs)
    assert false <= 0.05 * len(pairs) + 2.6 * math.sqrt(0.05 * 0.95 * len(pairs))
    apart = sum(told(50 + one, 100 + other) for one, other in pairs)
    assert apart >= 0.9 * len(pairs)


def wandering(generator: np.random.Generator, count: int, memory: float) -> Any:
    """Noise of variance 1 that remembers."""
    fresh = generator.standard_normal(count) * math.sqrt(1 - memory**2)
    values = np.empty(count)
    values[0] = generator.standard_normal()
    for place in range(1, count):
        values[place] = memory * values[place - 1] + fresh[place]
    return values
