"""Regressions: what is worse by more than the margin fails, and chance alone does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.differences import Sample, figure
from kvswarm.analysis.gating import moved_by, regression_checks
from kvswarm.analysis.samples import FIGURES, RunSamples
from kvswarm.analysis.slo_file import Margin, SloFile, parse_slos

COUNT = 200
NAMES = {each.name: each for each in FIGURES}


def sample(values: Any) -> Sample:
    """One value for each request."""
    return Sample.of(np.asarray(values, dtype=np.float64), np.arange(len(values)))


def latencies(rng: np.random.Generator, worse_share: float = 0.0) -> Sample:
    """Long-tailed, as TTFTs are."""
    return sample(100.0 * (1.0 + worse_share) * rng.lognormal(0.0, 0.3, COUNT))


def asked(text: str) -> SloFile:
    """A file of margins."""
    return parse_slos(text, "slo.yaml")


def outcomes(slos: SloFile, run: dict[str, Sample], baseline: dict[str, Sample]) -> list[str]:
    """What the margins of a file say of two runs."""
    checks = regression_checks(slos, RunSamples(run), RunSamples(baseline), paired=False)
    return [check.outcome for check in checks]


def trials(worse_share: float, count: int, margin: str = "5%") -> list[str]:
    """The median TTFT of many pairs of runs."""
    rng = np.random.default_rng(11)
    slos = asked(f"regression: {{ttft_p50_ms: {margin}}}")
    return [
        outcomes(slos, {"ttft_ms": latencies(rng, worse_share)}, {"ttft_ms": latencies(rng)})[0]
        for _ in range(count)
    ]


def test_a_server_that_is_worse_by_just_the_margin_seldom_fails() -> None:
    """At most one in twenty, but for the luck of so few trials (1 in 1000: 6 of 24)."""
    assert trials(0.20, 24, "20%").count("failed") <= 5


def test_a_server_that_is_worse_by_far_fails() -> None:
    """30 % with a margin of 5 % are six standard errors."""
    assert set(trials(0.30, 4)) == {"failed"}


def test_a_server_that_is_better_passes() -> None:
    """And is not left untold."""
    assert set(trials(-0.10, 4)) == {"passed"}


@given(
    values=st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50),
    margin=st.floats(0.0, 0.9),
    name=st.sampled_from(["ttft_p50_ms", "e2e_p99_ms", "requests_per_s", "error_share"]),
)
def test_a_baseline_that_is_moved_is_worse_by_just_the_margin(
    values: list[float], margin: float, name: str
) -> None:
    """Quantiles and means move with the values: up for latencies, down for rates, by points."""
    of = NAMES[name]
    points = name == "error_share"
    moved = moved_by(sample(values), Margin(figure=of, margin=margin, points=points))
    before, after = (figure(each.values, of.statistic) for each in (sample(values), moved))
    if points:
        assert after == pytest.approx(before + margin)
    else:
        sign = -1 if of.more_is_better else 1
        assert after == pytest.approx(before * (1 + sign * margin))


def test_a_rate_is_worse_when_it_is_lower() -> None:
    """A run that does 20 % less fails, one that does 20 % more does not."""
    rng = np.random.default_rng(3)
    rates = 50.0 + rng.normal(0.0, 5.0, COUNT)
    slos = asked("regression: {requests_per_s: 5%}")
    base = {"requests_per_s": sample(rates)}
    assert outcomes(slos, {"requests_per_s": sample(rates * 0.8)}, base) == ["failed"]
    assert outcomes(slos, {"requests_per_s": sample(rates * 1.2)}, base) == ["passed"]


def test_the_margin_of_a_share_is_in_points() -> None:
    """The baseline may have no errors, of which 5 % would be nothing."""
    slos = asked("regression: {error_share: 5%}")
    none, tenth = np.zeros(COUNT), (np.arange(COUNT) % 10 == 0).astype(float)
    clean, failing = {"error": sample(none)}, {"error": sample(tenth)}
    assert outcomes(slos, failing, clean) == ["failed"]
    assert outcomes(slos, clean, clean) == ["passed"]
    assert outcomes(slos, {"error": sample(none + 0.06)}, clean) == ["failed"]
    assert outcomes(slos, {"error": sample(none[:9])}, {"error": sample(none[:9])}) == ["unknown"]


def test_what_cannot_be_told_passes_with_a_note_or_fails_as_the_file_says() -> None:
    """Ten requests say nothing of a percentile."""
    few = {"ttft_ms": sample(np.linspace(90.0, 110.0, 10))}
    text = "regression: {ttft_p99_ms: 5%}"
    (check,) = regression_checks(asked(text), RunSamples(few), RunSamples(few), paired=True)
    assert check.outcome == "unknown"
    assert check.reason == "cannot tell: 10 values are too few"
    assert check.change is not None
    assert check.change.low is None
    assert outcomes(asked(f"{text}\non_unknown: fail"), few, few) == ["failed"]


def test_a_figure_that_one_of_the_runs_lacks_fails() -> None:
    """Nothing was compared, so nothing was kept."""
    slos = asked("regression: {valid_output_share: 1%}")
    (check,) = regression_checks(
        slos, RunSamples({"valid": sample([])}), RunSamples({"valid": sample([1.0])}), paired=False
    )
    assert (check.outcome, check.value, check.change) == ("failed", None, None)


def test_p_values_are_corrected_for_how_many_figures_are_compared() -> None:
    """What would be told of one figure alone is not told where luck had three chances."""
    rng = np.random.default_rng(8)
    other = {"ttft_ms": latencies(rng), "e2e_ms": latencies(rng), "tpot_ms": latencies(rng)}
    one = {**other, "ttft_ms": latencies(rng, 0.11)}
    p_values = []
    for more in ("", ", e2e_p50_ms: 0%, tpot_p50_ms: 0%"):
        slos = asked(f"regression: {{ttft_p50_ms: 5%{more}}}")
        check = regression_checks(slos, RunSamples(one), RunSamples(other), paired=False)[0]
        assert check.change is not None
        p_values.append(check.change.p_value)
    assert p_values[0] is not None
    assert 0.0 < p_values[0] < 1 / 3
    assert p_values[1] == pytest.approx(3 * p_values[0])
