"""Does a series settle, from where on, and does it drift? Numbers in, numbers out.

In:  a series in order of time, such as means of batches of requests.
Out: `warmup_of` and `drift_of`.

Where a warm-up ends is where MSER puts it: the cut that makes the standard error of the mean of the
rest smallest (White, Simulation 69, 1997, 323-334; Franklin and White, Winter Simulation Conference
2008, 541-546: a cut beyond the half says that the series has not settled). MSER cuts noise as well,
so a cut counts only where a test finds that the begin differs from the second half. Neighbours are
alike, and a test for independent values would find warm-ups and trends in their memory. So p-values
are those of the same statistic in made series of autoregressive noise, whose memory is that of the
series (its bias corrected: Kendall, Biometrika 41, 1954, 403-404): a parametric bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGNIFICANCE: Final = 0.01
RELEVANT_SHARE: Final = 0.05
"""Less than that is neither a warm-up nor a drift, however sure."""
MADE_SERIES: Final = 999
LEAST_VALUES: Final = 40
LEAST_INDEPENDENT: Final = 12.0
"""A series that remembers for so long that fewer values are independent is not judged."""
MOST_MEMORY: Final = 0.97
LEAST_PREFIX: Final = 2
SEED: Final = 20_080_101


@dataclass(frozen=True, slots=True)
class Warmup:
    """What the begin of a series is."""

    length: int | None
    """Values before it settled, 0 for none; None where it has not by its half."""
    p_value: float


@dataclass(frozen=True, slots=True)
class Drift:
    """By how much a series goes up or down from its begin to its end."""

    change_share: float
    """Of its mean; for logarithms of the value at its begin."""
    p_value: float

    @property
    def flagged(self) -> bool:
        """Whether it is more than noise, and large enough to matter."""
        return self.p_value < SIGNIFICANCE and abs(self.change_share) > RELEVANT_SHARE


def independent_values(values: Floats) -> float:
    """As how many independent ones the values count, by the memory of their second half."""
    memory = _memory(_trend(values[None, len(values) // 2 :])[1][0])
    return len(values) * (1.0 - memory) / (1.0 + memory)


def warmup_of(values: Floats, *, logarithms: bool = False) -> Warmup:
    """Find the warm-up of at least LEAST_VALUES values."""
    half = len(values) // 2
    settled = values[half:]
    spread = float(settled.std())
    if spread == 0.0:
        p_value = 1.0 if float(np.ptp(values)) == 0.0 else 0.0
    else:
        made = _made(_memory(_trend(settled[None])[1][0]), len(values))
        p_value = _p_value(_departure(values[None])[0], _departure(made))
    if p_value >= SIGNIFICANCE:
        return Warmup(0, p_value)
    length = mser_cut(values)
    rest = float(values[max(length, half) :].mean())
    begin = float(values[: max(length, 1)].mean())
    if length and abs(_relative(begin, rest, logarithms=logarithms)) <= RELEVANT_SHARE:
        length = 0
    return Warmup(None if length >= half else length, p_value)


def mser_cut(values: Floats) -> int:
    """How many values to leave out, at most half of them, by MSER."""
    count = len(values)
    remaining = np.arange(count, 0, -1, dtype=np.float64)
    centred = values - values[count // 2 :].mean()  # so that a rest without noise has no error
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    errors = (squares - sums * sums / remaining) / remaining**2
    return int(np.argmin(errors[: count // 2 + 1]))


def drift_of(values: Floats, *, logarithms: bool = False) -> Drift:
    """Find the trend of a series by least squares."""
    slope, residuals = _trend(values[None])
    change = float(slope[0]) * len(values)
    mean = float(values.mean())
    share = math.expm1(change) if logarithms else change / mean if mean else 0.0
    if float(residuals.std()) <= 1e-12 * max(1.0, abs(mean)):
        return Drift(share, 0.0 if abs(share) > RELEVANT_SHARE else 1.0)
    made = _made(_memory(residuals[0]), len(values))
    return Drift(share, _p_value(_steepness(values[None])[0], _steepness(made)))


def _relative(value: float, reference: float, *, logarithms: bool) -> float:
    if logarithms:
        return math.expm1(value - reference)
    return (value - reference) / abs(reference) if reference else math.inf


def _memory(values: Floats) -> float:
    """The correlation of neighbours, at the upper end of what a series so short allows.

    Corrected for its bias, and one standard error more: too little memory would make noise news.
    """
    centred = values - values.mean()
    variance = float(centred @ centred)
    found = float(centred[1:] @ centred[:-1]) / variance if variance else 0.0
    corrected = found + (1.0 + 3.0 * found) / len(values)
    error = math.sqrt(max(0.0, 1.0 - found * found) / len(values))
    return min(max(corrected + error, 0.0), MOST_MEMORY)


def _made(memory: float, count: int) -> Floats:
    """Series of stationary noise with that memory, shape (MADE_SERIES, count)."""
    made: Floats = np.random.default_rng(SEED).standard_normal((count, MADE_SERIES))
    fresh = math.sqrt(1.0 - memory * memory)
    for place in range(1, count):
        made[place] = memory * made[place - 1] + fresh * made[place]
    return made.T


def _departure(series: Floats) -> Floats:
    """How far the begin of each series lies from its second half, at the worst length."""
    half = series.shape[1] // 2
    settled = series[:, half:]
    scaled = (series - settled.mean(axis=1, keepdims=True)) / settled.std(axis=1, keepdims=True)
    lengths = np.arange(1, half + 1)
    sums = np.abs(np.cumsum(scaled[:, :half], axis=1)) / np.sqrt(lengths)
    worst: Floats = sums[:, LEAST_PREFIX - 1 :].max(axis=1)
    return worst


def _trend(series: Floats) -> tuple[Floats, Floats]:
    """Slopes per value, and what the lines leave."""
    times = np.arange(series.shape[1]) - (series.shape[1] - 1) / 2
    centred = series - series.mean(axis=1, keepdims=True)
    slopes = centred @ times / float(times @ times)
    return slopes, centred - slopes[:, None] * times


def _steepness(series: Floats) -> Floats:
    slopes, residuals = _trend(series)
    steepness: Floats = np.abs(slopes) / residuals.std(axis=1)
    return steepness


def _p_value(seen: float, made: Floats) -> float:
    return (1 + int((made >= seen).sum())) / (1 + len(made))
