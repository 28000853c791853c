"""The live percentiles: 1 % off at most, and the same however the values were split."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.swarm.sketch import RELATIVE_ERROR, Sketch

LARGEST_US = 3.6e9
SHARES = (0.0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)

values_us = st.lists(
    st.one_of(st.integers(1, int(LARGEST_US)), st.floats(1.0, LARGEST_US)),
    min_size=1,
    max_size=300,
)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    sketch.add(np.array(values, dtype=np.float64))
    return sketch


def nearest_rank_us(values: list[float], share: float) -> float:
    """The slow way: sort, and take the value that at least `share` of all do not exceed."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@given(values=values_us, share=st.one_of(st.sampled_from(SHARES), st.floats(0.0, 1.0)))
def test_every_quantile_is_within_one_percent_of_the_exact_one(
    values: list[float], share: float
) -> None:
    seen_ms = sketch_of(values).quantile_ms(share)
    assert seen_ms is not None
    assert RELATIVE_ERROR < 0.01
    assert seen_ms * 1000 == pytest.approx(nearest_rank_us(values, share), rel=0.01)


@given(left=values_us, right=values_us)
def test_merging_gives_the_sketch_of_the_union(left: list[float], right: list[float]) -> None:
    merged = sketch_of(left)
    merged.merge(sketch_of(right))
    assert np.array_equal(merged.counts, sketch_of(left + right).counts)


@given(values=values_us, cut=st.integers(0, 300))
def test_adding_in_pieces_is_adding_at_once(values: list[float], cut: int) -> None:
    pieces = Sketch()
    pieces.add(np.array(values[:cut]))
    pieces.add(np.array(values[cut:]))
    assert np.array_equal(pieces.counts, sketch_of(values).counts)


@given(values=values_us)
def test_a_sketch_survives_the_wire(values: list[float]) -> None:
    sketch = sketch_of(values)
    again = Sketch.from_bytes(sketch.to_bytes())
    assert np.array_equal(again.counts, sketch.counts)
    again.merge(sketch)  # what came over the wire can be written to


def test_an_empty_sketch_has_no_quantile() -> None:
    assert Sketch().quantile_ms(0.5) is None


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_what_is_below_a_microsecond_is_shown_as_one(value: float) -> None:
    assert sketch_of([value]).quantile_ms(0.5) == 0.001


def test_what_is_above_an_hour_stays_in_the_last_bucket() -> None:
    sketch = sketch_of([LARGEST_US * 1000])
    assert sketch.quantile_ms(1.0) == pytest.approx(LARGEST_US / 1000, rel=0.03)
