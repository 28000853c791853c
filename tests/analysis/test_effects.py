"""Intervals of effects: as wide as they must be, and no wider; against scipy and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kvswarm.analysis.effects import (
    _sign_test_rank,
    effect_text,
    paired_effect,
    unpaired_effect,
)

TRIALS = 400


@given(count=st.integers(6, 3000))
def test_the_ranks_of_the_sign_test_are_those_of_the_binomial_distribution(count: int) -> None:
    """The largest rank whose tail is at most 2.5 %."""
    rank = _sign_test_rank(count)
    assert rank is not None
    assert binom.cdf(rank, count, 0.5) <= 0.025
    assert binom.cdf(rank + 1, count, 0.5) > 0.025


@pytest.mark.parametrize("count", range(6))
def test_a_handful_of_pairs_has_no_interval(count: int) -> None:
    """Five pairs on one side happen by chance once in sixteen times."""
    assert _sign_test_rank(count) is None


def test_the_interval_of_pairs_holds_the_truth_nineteen_times_of_twenty() -> None:
    """Heavy tails, as latencies have them; the true shift is 3."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(TRIALS):
        base = rng.lognormal(3, 1, 60)
        found = paired_effect(base + 3 + rng.standard_t(2, 60), base)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 3 <= found.high
    assert held / TRIALS > 0.93


def test_the_interval_of_samples_holds_the_truth_nineteen_times_of_twenty() -> None:
    """Of two log-normal samples of different sizes; medians are known."""
    rng = np.random.default_rng(6)
    truth = np.exp(3.2) - np.exp(3.0)
    held = 0
    for _ in range(TRIALS):
        found = unpaired_effect(rng.lognormal(3.2, 0.5, 80), rng.lognormal(3.0, 0.5, 150))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.92 < held / TRIALS < 0.995


def test_a_shift_of_a_tenth_is_found_in_pairs() -> None:
    """What the interval is for: noise of 5 % must not hide 10 %."""
    rng = np.random.default_rng(7)
    base = rng.normal(100, 20, 200)
    found = paired_effect(base * 1.1 + rng.normal(0, 5, 200), base)
    assert found is not None
    assert found.low is not None
    assert found.low > 5
    assert found.to_dict()["change_share"] == pytest.approx(0.1, abs=0.02)


def test_values_that_are_missing_take_their_pair_with_them() -> None:
    """A request of one token has no TPOT, and its partner then compares with nothing."""
    nan = float("nan")
    found = paired_effect(np.array([1.0, nan, 5.0]), np.array([0.0, 2.0, nan]))
    assert found is not None
    assert (found.count, found.difference) == (1, 1.0)
    assert paired_effect(np.array([nan]), np.array([1.0])) is None
    assert unpaired_effect(np.array([nan]), np.array([1.0])) is None


def test_the_words_of_an_effect_tell_unit_share_and_interval() -> None:
    """They stand in the terminal and the page without a table around them."""
    effect = {
        "figure": "ttft_ms", "difference": 1.5, "low": 0.5, "high": 2.5, "reference": 30.0,
        "change_share": 0.05, "count": 40,
    }  # fmt: skip
    assert effect_text(effect) == "TTFT +1.50 ms (+5.0%; 95 %: +0.50 to +2.50)"
    few = {**effect, "low": None, "high": None, "count": 4}
    assert effect_text(few) == "TTFT +1.50 ms (+5.0%; of 4 only)"
