"""Blocks that are resampled: as long as observations remember, and exact where they can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from kvswarm.analysis.blocks import (
    FEW_BLOCKS,
    LEAST_BLOCKS,
    MOST_BLOCKS,
    autocorrelation_time,
    bins_of,
    block_count,
    block_of,
    block_weights,
    edge_share,
    histograms,
)

VALUES = st.lists(st.integers(0, 50).map(float), min_size=1, max_size=200).map(np.array)


def remembering(count: int, phi: float, seed: int) -> np.ndarray:
    """A first-order autoregression of variance 1."""
    noise = np.random.default_rng(seed).standard_normal(count) * math.sqrt(1 - phi * phi)
    noise[0] /= math.sqrt(1 - phi * phi)
    return lfilter([1.0], [1.0, -phi], noise)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_time_of_an_autoregression_is_found_within_a_fifth(phi: float) -> None:
    """(1 + phi) / (1 - phi) by theory; the median of some series, for a single one is noisy."""
    found = [autocorrelation_time(remembering(4000, phi, seed)) for seed in range(15)]
    assert np.median(found) == pytest.approx((1 + phi) / (1 - phi), rel=0.2)


def test_what_does_not_vary_remembers_nothing() -> None:
    assert autocorrelation_time(np.full(100, 3.0)) == 1.0


@given(count=st.integers(1, 10**6), time=st.floats(1.0, 1000.0))
def test_blocks_are_five_times_as_long_as_the_memory_at_the_least(count: int, time: float) -> None:
    """Ten times, but for the first eight; never more than there is use for."""
    blocks = block_count(count, time)
    assert 0 <= blocks <= MOST_BLOCKS
    if blocks:
        length = count / blocks
        assert length >= 5.0 * time * (1 - 1e-9)
        assert blocks <= FEW_BLOCKS or length >= 10.0 * time * (1 - 1e-9)


def test_three_hundred_requests_that_come_in_waves_of_ten_are_just_enough() -> None:
    assert block_count(300, 10.0) == LEAST_BLOCKS


@given(count=st.integers(1, 500), blocks=st.integers(1, 40))
def test_blocks_are_equally_long_or_one_longer(count: int, blocks: int) -> None:
    blocks = min(blocks, count)
    lengths = np.bincount(block_of(count, blocks), minlength=blocks)
    assert lengths.sum() == count
    assert lengths.max() - lengths.min() <= 1


def test_each_resample_has_as_many_blocks_as_there_are() -> None:
    weights = block_weights(7, 100, np.random.default_rng(1))
    assert weights.shape == (100, 7)
    assert (weights.sum(axis=1) == 7).all()


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_variance_that_the_cut_hides_is_that_of_an_autoregression(phi: float) -> None:
    """Against the exact variance of a mean over a block, by summing the covariances."""
    length, time = 200, (1 + phi) / (1 - phi)
    lags = np.arange(1, length)
    exact = 1 + 2 * float(((1 - lags / length) * phi**lags).sum())
    assert 1 - exact / time == pytest.approx(edge_share(10 * length, 10, time), rel=0.02)


def test_nothing_is_hidden_where_nothing_is_remembered() -> None:
    assert edge_share(1000, 10, 1.0) == 0.0


@given(values=VALUES, blocks=st.integers(1, 10))
def test_the_histograms_of_all_blocks_are_the_values(values: np.ndarray, blocks: int) -> None:
    """With each block once, the mean is the values' own, and so is where the quantile lies."""
    blocks = min(blocks, len(values))
    cut = histograms(values, block_of(len(values), blocks), blocks, bins_of(values))
    once = np.ones((1, blocks))
    assert cut.mean(once)[0] == pytest.approx(values.mean())
    ordered = np.sort(values)
    for share in (0.1, 0.5, 0.95):
        upper = ordered[min(len(values) - 1, math.floor(share * len(values)))]
        assert ordered[0] <= cut.quantile(share, once)[0] <= upper


@given(values=VALUES, share=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_a_resampled_quantile_is_that_of_the_same_sum_of_counts(
    values: np.ndarray, share: float, seed: int
) -> None:
    """Interpolated as numpy interpolates, row by row."""
    blocks = min(5, len(values))
    cut = histograms(values, block_of(len(values), blocks), blocks, bins_of(values))
    weights = block_weights(blocks, 4, np.random.default_rng(seed))
    for row, found in zip(weights, cut.quantile(share, weights), strict=True):
        cumulated = np.cumsum(row @ cut.counts)
        there = cumulated > 0
        expected = np.interp(share * cumulated[-1], cumulated[there], cut.values[there])
        places = np.searchsorted(cut.values, [found, expected])
        assert abs(int(places[0]) - int(places[1])) <= 1


def test_many_different_values_share_bins_that_are_fine_in_the_tail() -> None:
    values = np.random.default_rng(2).lognormal(0, 1, 200_000)
    edges = bins_of(values)
    assert len(edges) < 2000
    cut = histograms(values, np.zeros(len(values), dtype=np.int64), 1, edges)
    for share in (0.5, 0.99, 0.999):
        assert cut.quantile(share, np.ones((1, 1)))[0] == pytest.approx(
            np.quantile(values, share), rel=0.01
        )
