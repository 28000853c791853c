"""The difference between a figure of two runs, how sure it is, and what to say of it.

In:  `Sample`s: one value for each request (or slice of time), in order.
Out: `Difference`s, whose p-values `hold` corrects for how many there are.

The standard error comes from resampled blocks (`blocks.py`), the interval and the p-value from
Student's t with as many degrees of freedom as the smaller run has blocks, less one: few blocks say
little of their own spread. Where both runs sent the same requests, blocks of the same requests are
drawn for both, so that what the requests have in common does not blur the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kvswarm.analysis.blocks import (
    LEAST_BLOCKS,
    REPLICATES,
    ROUNDS,
    Floats,
    Integers,
    autocorrelation_time,
    bins_of,
    block_count,
    block_of,
    block_weights,
    edge_share,
    histograms,
)

CONFIDENCE: Final = 0.95
POWER: Final = 0.8
RELEVANT_SHARE: Final = 0.05
"""The least change that `needed` is told of, where none was found."""
LEAST_BEYOND: Final = 10
"""So many observations must lie beyond a quantile: of fewer, its place is guesswork."""
WANDERING: Final = 1.25
"""By this, 3 of 100 comparisons err where runs remember as much as their own length."""
SEED: Final = 20_231

Statistic = float | Literal["mean"]
"""A quantile's share, or the mean."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of requests, as many of each as it has: one TTFT, many gaps."""

    values: Floats
    owner: Integers
    """The place in `index` of the request of each value, ascending."""
    index: Integers
    """The requests by their index in the workload, in the order in which they were sent."""

    @classmethod
    def of(cls, values: Floats, index: Integers) -> Sample:
        """One value a request, or NaN where it has none."""
        there = ~np.isnan(values)
        index = index[there]
        return cls(values[there], np.arange(len(index)), index)

    def among(self, common: Integers) -> Sample:
        """Those of some requests only, by their index, which is ascending."""
        place = np.searchsorted(common, self.index)
        kept = np.isin(self.index, common)[self.owner]
        owner = place[self.owner[kept]]
        order = np.argsort(owner, kind="stable")
        return Sample(self.values[kept][order], owner[order], common)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much the figure of one is above that of the other, in the figure's unit."""

    difference: float
    reference: float
    """The other's figure."""
    low: float | None
    high: float | None
    """Interval of 95 %; None where there is too little to tell."""
    p_value: float | None
    count: int
    """Values of the smaller side, or pairs."""
    blocks: int
    """Independent pieces of the smaller side, about."""
    paired: bool
    error: float | None
    """The standard error of the difference; None where it is not known: the interval, if there is
    one, is by how much both runs wander."""

    @property
    def needed(self) -> int | None:
        """Values a side with which a change of `RELEVANT_SHARE` would be found; None: not known."""
        return needed_values(self)

    @property
    def change_share(self) -> float | None:
        """The difference by the reference."""
        return self.difference / self.reference if self.reference else None


def compare_samples(
    one: Sample, other: Sample, statistic: Statistic, *, paired: bool
) -> Difference | None:
    """Compare a figure of two samples, always with the same answer; None where one is empty."""
    if paired:
        common = np.intersect1d(one.index, other.index)
        one, other = one.among(common), other.among(common)
    count = min(len(one.values), len(other.values))
    if count == 0:
        return None
    ours, theirs = figure(one.values, statistic), figure(other.values, statistic)
    errors, blocks = _standard_error(one, other, statistic, paired=paired)
    low = high = p_value = None
    if errors is not None:
        low, high, p_value = t_interval(ours - theirs, errors, blocks - 1)
    elif (wandering := _wandering(one, other, statistic)) is not None:
        judged = t_interval(ours - theirs, wandering, LEAST_BLOCKS - 1)
        if judged[2] < 1 - CONFIDENCE:
            low, high, p_value = judged
    return Difference(
        difference=ours - theirs,
        reference=theirs,
        low=low,
        high=high,
        p_value=p_value,
        count=count,
        blocks=blocks,
        paired=paired,
        error=errors,
    )


def figure(values: Floats, statistic: Statistic) -> float:
    """The statistic of the values themselves."""
    if statistic == "mean":
        return float(values.mean())
    return float(np.quantile(values, statistic))


def _standard_error(
    one: Sample, other: Sample, statistic: Statistic, *, paired: bool
) -> tuple[float | None, int]:
    """The standard error of the difference, and how many blocks it comes from."""
    sides = (one, other)
    pulls = [_pull(side, statistic) for side in sides]
    times = [_memory([there[~np.isnan(there)] for there in pull]) for pull in pulls]
    if paired:  # what the requests have in common is gone before it is asked what they remember
        both = [ours - theirs for ours, theirs in zip(*pulls, strict=True)]
        times = [_memory([there[~np.isnan(there)] for there in both])] * 2
    counts = [block_count(len(side.index), time) for side, time in zip(sides, times, strict=True)]
    blocks = min(counts)
    if blocks < LEAST_BLOCKS or not all(tells(side.values, statistic) for side in sides):
        return None, blocks
    generator = np.random.default_rng(SEED)
    edges = bins_of(one.values, other.values)
    resampled = []
    weights = block_weights(counts[0], REPLICATES, generator)
    for number, (side, size) in enumerate(zip(sides, counts, strict=True)):
        if number and not paired:
            weights = block_weights(size, REPLICATES, generator)
        block = block_of(len(side.index), size)[side.owner]
        cut = histograms(side.values, block, size, edges)
        if statistic == "mean":
            resampled.append(cut.mean(weights))
        else:
            resampled.append(cut.quantile(statistic, weights))
    spread = float(np.std(resampled[0] - resampled[1], ddof=1))
    hidden = max(
        edge_share(len(side.index), size, time)
        for side, size, time in zip(sides, counts, times, strict=True)
    )
    return spread * math.sqrt(blocks / (blocks - 1) / (1.0 - hidden)), blocks


def _wandering(one: Sample, other: Sample, statistic: Statistic) -> float | None:
    """For samples of too few blocks, what a difference must be far above: how both wander.

    Each is cut into `LEAST_BLOCKS` parts, and it is not taken for granted that they are
    independent: the spread of the parts, and a quarter, stands for the error of the whole. So no
    length of a run makes it smaller, and what it shows is beyond all that either run did by itself.
    None where a part says too little.
    """
    variance = 0.0
    for side in (one, other):
        if len(side.index) < LEAST_BLOCKS * LEAST_BEYOND or not tells(side.values, statistic):
            return None
        block = block_of(len(side.index), LEAST_BLOCKS)[side.owner]
        parts = [side.values[block == number] for number in range(LEAST_BLOCKS)]
        if not all(len(part) for part in parts):
            return None
        variance += float(np.var([figure(part, statistic) for part in parts], ddof=1))
    return WANDERING * math.sqrt(variance)


def _pull(sample: Sample, statistic: Statistic) -> list[Floats]:
    """What each request does to the statistic, up to a factor; NaN where it has no value."""
    series = [_by_request(sample.values, sample)]
    if statistic != "mean":
        above = sample.values > np.quantile(sample.values, statistic)
        series.insert(0, _by_request(above.astype(np.float64), sample))
    return series


def _memory(pull: list[Floats]) -> float:
    """How many requests count as one.

    Whether a value is above a far quantile says so little that its memory looks shorter than it is.
    """
    if len(pull) == 1:
        return autocorrelation_time(pull[0])
    return max(autocorrelation_time(pull[0]), autocorrelation_time(pull[1]) / 2.0)


def _by_request(values: Floats, sample: Sample) -> Floats:
    """The mean of each request."""
    counts = np.bincount(sample.owner, minlength=len(sample.index)).astype(np.float64)
    sums = np.bincount(sample.owner, weights=values, minlength=len(sample.index))
    counts[counts == 0] = np.nan
    means: Floats = sums / counts
    return means


def tells(values: Floats, statistic: Statistic) -> bool:
    """Whether enough values lie beyond a quantile for its place to be known."""
    if statistic == "mean":
        return True
    return len(values) * min(statistic, 1.0 - statistic) >= LEAST_BEYOND


def t_interval(difference: float, error: float, freedom: int) -> tuple[float, float, float]:
    """The interval of 95 % and the p-value of a difference, by Student's t."""
    from scipy.stats import t  # noqa: PLC0415 - half a second, which few commands need

    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    if error == 0.0:
        return difference, difference, 1.0 if difference == 0.0 else 0.0
    p_value = 2.0 * float(t.sf(abs(difference) / error, freedom))
    return difference - half, difference + half, p_value


def needed_values(
    found: Difference, *, share: float = RELEVANT_SHARE, tests: int = 1
) -> int | None:
    """Values a side that would show a change by a share of the reference in 80 of 100 cases.

    As many as there are, at the least. The spread is taken to grow with the figure. `tests`: of how
    many figures this is one, where their p-values are corrected for that. None where the reference
    is 0, or the spread is not known.
    """
    from scipy.stats import t  # noqa: PLC0415 - half a second, which few commands need

    change = abs(found.reference) * share
    if change == 0.0 or found.error is None:
        return None
    error = found.error * (1.0 + share)
    needed = float(found.count)
    for _ in range(ROUNDS):
        # More values make more blocks, which know their own spread better.
        freedom = max(1.0, found.blocks * needed / found.count - 1.0)
        sigmas = float(t.isf((1 - CONFIDENCE) / 2 / tests, freedom) + t.ppf(POWER, freedom))
        needed = max(found.count, found.count * (error * sigmas / change) ** 2)
    return math.ceil(needed)


def hold(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for how many there are (Holm, Scandinavian Journal of Statistics 6, 1979).

    None stays None, and counts for nothing.
    """
    order = sorted(
        (place for place, value in enumerate(p_values) if value is not None),
        key=lambda place: p_values[place] or 0.0,
    )
    corrected: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (p_values[place] or 0.0) * (len(order) - rank)))
        corrected[place] = worst
    return corrected
