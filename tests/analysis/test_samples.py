"""The values that runs are compared by are those that the figures of summary.json are made of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.comparison import figure_value
from kvswarm.analysis.finish import finish
from kvswarm.analysis.samples import FIGURES, RunSamples, samples_of, spread_over

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, good, profile, run_info, write_run

FIGURE_OF = {figure.name: figure for figure in FIGURES}
SPANS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=20
)


def test_failed_and_unsent_requests_are_errors_and_cancelled_ones_are_nothing(
    tmp_path: Path,
) -> None:
    """As summary.json counts them."""
    run = write_run(tmp_path, [MIXED])
    summary = finish(tmp_path)
    share = figure_value(summary, FIGURE_OF["error_share"])
    assert share == 4 / 6
    assert samples_of(run)[FIGURE_OF["error_share"]].values.mean() == share


def samples_with(path: Path, **changes: object) -> RunSamples:
    records = [
        good(
            index,
            at_ms=index * 100.0,
            ttft_ms=100.0 + index,
            output_valid=changes.get("valid"),
            output_score="valid" if changes.get("valid") else None,
        )
        for index in range(20)
    ]
    of = profile(load={"requests": 20}, slo=changes.get("slo", {}))
    run = write_run(path, [records], run_info(of))
    return samples_of(run) if finish(path) else RunSamples({})


def test_goodput_has_values_only_where_it_is_more_than_throughput(tmp_path: Path) -> None:
    """With SLOs, or with answers that were judged."""
    name = FIGURE_OF["goodput_share"]
    assert len(samples_with(tmp_path / "plain")[name].values) == 0
    assert samples_with(tmp_path / "slo", slo={"ttft_ms": 104.5})[name].values.mean() == 0.25
    assert samples_with(tmp_path / "judged", valid=True)[name].values.mean() == 1.0


def test_requests_are_in_the_order_in_which_they_were_sent(tmp_path: Path) -> None:
    """Not in that in which they ended: neighbours are those that were served together."""
    records = [good(0, at_ms=300.0), good(1, at_ms=100.0), good(2, at_ms=200.0)]
    run = write_run(tmp_path, [records])
    finish(tmp_path)
    assert samples_of(run)[FIGURE_OF["ttft_p50_ms"]].index.tolist() == [1, 2, 0]


@given(spans=SPANS, slices=st.integers(1, 30))
def test_what_is_spread_over_slices_of_time_is_all_there(
    spans: list[tuple[float, float, float]], slices: int
) -> None:
    begin, length, amount = (np.array(column) for column in zip(*spans, strict=True))
    edges = np.linspace(0.0, 16.0, slices + 1)
    spread = spread_over(edges, begin, begin + length, amount)
    assert spread.sum() == pytest.approx(amount.sum(), rel=1e-6, abs=1e-6)
