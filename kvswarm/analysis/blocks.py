"""How sure a figure of a run is, when its requests are not independent of each other.

In:  observations in the order in which they were sent, for one run or for two.
Out: resampled figures, from which intervals and tests are made.

Requests that are served together share a queue and a batch, so neighbours are alike, and a
bootstrap of single requests would give intervals that are too narrow. So whole blocks of neighbours
are resampled (Carlstein, Annals of Statistics 14, 1986, 1171-1179; Kuensch, ibid. 17, 1989,
1217-1241), each some times as long as the observations remember: their integrated autocorrelation
time, by Geyer's initial monotone sequence (Statistical Science 7, 1992, 473-483).

A quantile over resampled blocks needs no sorting: each block is a histogram, a resample a sum of
histograms. So a million requests cost as much as some thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LENGTHS: Final = 10.0
"""Block length by autocorrelation times, where there are many: `edge_share` is a twentieth then."""
LEAST_LENGTHS: Final = 5.0
FEW_BLOCKS: Final = 8
"""So many blocks may be as short as `LEAST_LENGTHS`."""
LEAST_BLOCKS: Final = 6
"""Fewer blocks say too little of how much they differ."""
MOST_BLOCKS: Final = 400
EXACT_VALUES: Final = 1024
"""So many different values have a bin each; more share bins, finer towards the tail."""
REPLICATES: Final = 500
ROUNDS: Final = 3


def autocorrelation_time(values: Floats) -> float:
    """How many observations count as one independent one, at least 1; shape (count,), in order."""
    count = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / count
    if count < LEAST_BLOCKS or float(np.ptp(values)) == 0.0:
        return 1.0
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariances = np.fft.irfft(spectrum * spectrum.conj(), size)[: count // 2] / variance
    # Each sum over a lag by as many products as it has, not by more: else far lags look small.
    correlations = covariances / np.arange(count, count - len(covariances), -1)
    time = _time_of(correlations)
    for _ in range(ROUNDS):
        # The mean is that of the observations themselves, which hides time / count of each.
        time = min(count / 2.0, _time_of(correlations + time / count * (1.0 - correlations)))
    return time


def _time_of(correlations: Floats) -> float:
    """Sum what is not noise."""
    pairs = correlations[: len(correlations) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    kept = pairs[: ends[0]] if len(ends) else pairs
    # Geyer's monotone sequence: what noise adds far out is no memory.
    return max(1.0, 2.0 * float(np.minimum.accumulate(kept).sum()) - 1.0)


def block_count(count: int, time: float) -> int:
    """Into how many blocks so many observations with this autocorrelation time are cut."""
    times = count / time
    blocks = max(times / LENGTHS, min(FEW_BLOCKS, times / LEAST_LENGTHS))
    return int(min(MOST_BLOCKS, blocks))


def edge_share(count: int, blocks: int, time: float) -> float:
    """The share of the variance that cutting into blocks hides, as neighbours are cut apart.

    That of a first-order autoregression, whose means over `length` have the variance
    `time / length * (1 - time / (2 * length))` for long memories, and none without memory.
    """
    return max(0.0, time - 1.0 / time) * blocks / (2.0 * count)


def block_of(count: int, blocks: int) -> Integers:
    """The block of each observation, all blocks as long as the others, or one longer."""
    numbers: Integers = np.arange(count, dtype=np.int64) * blocks // count
    return numbers


def block_weights(blocks: int, replicates: int, generator: np.random.Generator) -> Floats:
    """How often each block is drawn in each resample, shape (replicates, blocks)."""
    weights: Floats = generator.multinomial(
        blocks, np.full(blocks, 1.0 / blocks), size=replicates
    ).astype(np.float64)
    return weights


@dataclass(frozen=True, slots=True)
class Histograms:
    """Observations of each block by bins. `values` are the bins' own, ascending."""

    values: Floats
    counts: Floats
    """Shape (blocks, bins)."""

    def quantile(self, share: float, weights: Floats) -> Floats:
        """The quantile of each resample, between bins in proportion; shape (replicates,)."""
        cumulated = np.cumsum(weights @ self.counts, axis=1)
        targets = share * cumulated[:, -1]
        upper = np.minimum((cumulated < targets[:, None]).sum(axis=1), len(self.values) - 1)
        lower = np.maximum(upper - 1, 0)
        rows = np.arange(len(targets))
        below, above = cumulated[rows, lower], cumulated[rows, upper]
        # Before the first bin there is nothing to be between.
        part = np.where(upper > lower, (targets - below) / np.maximum(above - below, 1.0), 0.0)
        result: Floats = self.values[lower] + part * (self.values[upper] - self.values[lower])
        return result

    def mean(self, weights: Floats) -> Floats:
        """The mean of each resample."""
        sums = weights @ (self.counts @ self.values)
        result: Floats = sums / (weights @ self.counts.sum(axis=1))
        return result


def bins_of(*samples: Floats) -> Floats:
    """Upper edges of bins for all of the samples, ascending."""
    pooled = np.concatenate(samples)
    distinct = np.unique(pooled)
    if len(distinct) <= EXACT_VALUES:
        return distinct
    even = np.linspace(0.0, 1.0, EXACT_VALUES // 2)
    tail = 1.0 - np.geomspace(1.0 / len(pooled), 1.0, EXACT_VALUES // 2)
    edges: Floats = np.unique(np.quantile(pooled, np.sort(np.concatenate((even, tail)))))
    return edges


def histograms(values: Floats, block: Integers, blocks: int, edges: Floats) -> Histograms:
    """Cut observations into the histograms of their blocks; `edges` are those of `bins_of`."""
    places = np.minimum(np.searchsorted(edges, values, side="left"), len(edges) - 1)
    counts = np.bincount(block * len(edges) + places, minlength=blocks * len(edges))
    return Histograms(edges, counts.reshape(blocks, len(edges)).astype(np.float64))
