"""Warm-up and drift of made series: what was planted is found, and noise is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.analysis.stationarity import (
    LEAST_VALUES,
    Floats,
    drift_of,
    independent_values,
    mser_cut,
    warmup_of,
)

SERIES = 100


def noise(count: int, memory: float, seed: int) -> Floats:
    """Stationary autoregressive noise of variance 1."""
    fresh = np.random.default_rng(seed).standard_normal(count)
    values = np.empty(count)
    values[0] = fresh[0]
    for place in range(1, count):
        values[place] = memory * values[place - 1] + math.sqrt(1 - memory**2) * fresh[place]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("count", [100, 200])
def test_no_warmup_and_no_drift_is_found_in_stationary_noise(count: int, memory: float) -> None:
    """In at least 95 of 100, though neighbours are alike and the noise is 20 % of the level."""
    series = [10.0 + 2.0 * noise(count, memory, seed) for seed in range(SERIES)]
    assert sum(warmup_of(values).length == 0 for values in series) >= 95
    assert sum(not drift_of(values).flagged for values in series) >= 95


@pytest.mark.parametrize("height", [-8.0, -2.0, 2.0, 8.0])
@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_a_planted_ramp_is_found_where_it_ends(height: float, memory: float) -> None:
    """From the place where half of the ramp lies behind, to a tenth of the run after its end.

    In nine of ten, as noise may hide an end or look like one.
    """
    generator = np.random.default_rng(3)
    found = 0
    for seed in range(SERIES):
        count, share = int(generator.integers(100, 201)), float(generator.uniform(0.05, 0.3))
        length = round(share * count)
        ramp = np.zeros(count)
        ramp[:length] = height * np.linspace(1.0, 0.2, length)
        cut = warmup_of(10.0 + ramp + 0.25 * noise(count, memory, seed)).length
        found += cut is not None and length / 2 <= cut <= length + count / 10
    assert found >= 0.9 * SERIES


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(60, 200),
    share=st.floats(0.15, 2.0),
    sign=st.sampled_from([-1.0, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_a_planted_trend_is_flagged_with_its_size(
    count: int, share: float, sign: float, seed: int
) -> None:
    """The change is that from begin to end, of the mean."""
    trend = sign * share * 10.0 * np.linspace(-0.5, 0.5, count)
    drift = drift_of(10.0 + trend + 0.1 * noise(count, 0.3, seed))
    assert drift.flagged
    assert drift.change_share == pytest.approx(sign * share, abs=0.05)


def test_a_change_that_is_sure_but_small_is_no_drift() -> None:
    """A hundredth is not worth a word."""
    values = 10.0 + np.linspace(0.0, 0.1, 200) + 0.005 * noise(200, 0.0, 1)
    drift = drift_of(values)
    assert drift.p_value < 0.01
    assert not drift.flagged


def test_logarithms_drift_by_the_factor_that_they_stand_for() -> None:
    """From 100 to 150 is a half more."""
    values = np.log(np.geomspace(100.0, 150.0, 101)[:-1]) + 1e-3 * noise(100, 0.0, 2)
    assert drift_of(values, logarithms=True).change_share == pytest.approx(0.5, abs=0.02)


def test_a_series_that_rises_to_its_end_has_not_settled() -> None:
    """Its best cut is at the half."""
    values = np.linspace(1.0, 5.0, 100) + 0.05 * noise(100, 0.0, 3)
    assert warmup_of(values).length is None


@given(level=st.floats(0.1, 1e6), count=st.integers(LEAST_VALUES, 200))
def test_a_constant_series_has_neither(level: float, count: int) -> None:
    """Nothing divides by its spread of 0."""
    values = np.full(count, level)
    assert warmup_of(values).length == 0
    assert not drift_of(values).flagged


def test_a_begin_before_a_constant_rest_is_a_warmup() -> None:
    """The rest has no noise at all."""
    values = np.full(100, 10.0)
    values[:7] = 30.0
    assert warmup_of(values).length == 7


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40))
def test_the_cut_is_that_of_the_definition(values: list[float]) -> None:
    """Against the formula, value by value."""
    series = np.array(values)
    errors = [
        float(((series[cut:] - series[cut:].mean()) ** 2).sum()) / (len(series) - cut) ** 2
        for cut in range(len(series) // 2 + 1)
    ]
    assert errors[mser_cut(series)] <= min(errors) + 1e-9 * (1.0 + float(series @ series))


def test_noise_that_remembers_counts_as_fewer_values() -> None:
    """Neighbours that are correlated by 0.8 are a ninth of as many."""
    assert independent_values(noise(200, 0.0, 4)) > 100
    assert independent_values(noise(200, 0.9, 4)) < 20
