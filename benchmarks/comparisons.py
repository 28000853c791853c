"""How often `kvswarm compare` says something false, and how often it finds what is there.

Runs are made up, so that the truth is known: latencies are log-normal, neighbours are as alike as
in a first-order autoregression, and in half of the cases both runs have the same requests. Tables:

- false: comparisons of two runs of the same server, with all figures, in which any word is a change
- found: comparisons with a true change, with as many requests as a first one said are needed
- time: the autocorrelation time that was found, by the true one

Ends with code 1 where more than 5 % are false by more than chance, or fewer than 80 % found.

Use: python benchmarks/comparisons.py [--comparisons 500] [--seed 1]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from kvswarm.analysis.blocks import autocorrelation_time
from kvswarm.analysis.comparison import changes_between
from kvswarm.analysis.comparison_file import NO_DIFFERENCE, TOO_LITTLE, Change
from kvswarm.analysis.differences import Difference, Sample, compare_samples, needed_values
from kvswarm.analysis.samples import FIGURES, Figure, RunSamples

Floats = NDArray[np.float64]
GAPS = 8
SPREAD = 0.3
SAME = 0.3
"""Spread of what two runs have in common in a request, as its length."""
SILENT = {NO_DIFFERENCE, TOO_LITTLE}


@dataclass(frozen=True)
class Case:
    """What runs are made of."""

    phi: float
    requests: int
    paired: bool


CASES = [
    Case(phi, requests, paired)
    for phi, sizes in ((0.0, (200, 500, 2000)), (0.5, (200, 500, 2000)), (0.9, (200, 500, 2000)))
    for requests in sizes
    for paired in (False, True)
]


def remembering(count: int, phi: float, generator: np.random.Generator) -> Floats:
    """A first-order autoregression of variance 1."""
    noise = generator.standard_normal(count) * math.sqrt(1.0 - phi * phi)
    noise[0] /= math.sqrt(1.0 - phi * phi)
    values: Floats = lfilter([1.0], [1.0, -phi], noise)
    return values


def made_up(
    case: Case, generator: np.random.Generator, common: Floats, change_share: float = 0.0
) -> RunSamples:
    """A run whose latencies are longer by a share; rates are lower by as much."""
    count, factor = case.requests, 1.0 + change_share
    load = remembering(count, case.phi, generator)  # what the server has to do at the time
    index = np.arange(count)

    def latency(middle_ms: float, own: float) -> Floats:
        noise = own * generator.standard_normal(count)
        values: Floats = middle_ms * factor * np.exp(SPREAD * (load + noise) + SAME * common)
        return values

    gaps = latency(20.0, 0.3)[:, None] * np.exp(0.2 * generator.standard_normal((count, GAPS)))
    rates = 100.0 / factor * np.exp(-0.1 * remembering(min(400, count), case.phi, generator))
    slices = np.arange(len(rates))
    e2e_ms = latency(500.0, 0.3)
    return RunSamples(
        {
            "ttft_ms": Sample.of(latency(100.0, 0.5), index),
            "tpot_ms": Sample.of(latency(20.0, 0.3), index),
            "e2e_ms": Sample.of(e2e_ms, index),
            "itl_ms": Sample(gaps.ravel(), np.repeat(index, GAPS), index),
            "output_tokens_per_s": Sample.of(rates, slices),
            "requests_per_s": Sample.of(rates / 16.0, slices),
            "goodput_rps": Sample.of(rates / 17.0, slices),
            "good": Sample.of((e2e_ms < 800.0).astype(np.float64), index),
            "error": Sample.of((generator.random(count) < 0.02).astype(np.float64), index),
            "valid": Sample.of((generator.random(count) < 0.9).astype(np.float64), index),
        }
    )


def comparisons(
    case: Case, count: int, seed: int, change_share: float = 0.0
) -> Iterator[list[Change]]:
    """Compare so many pairs of made-up runs; the first of each is changed."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        common = generator.standard_normal(case.requests)
        other = common if case.paired else generator.standard_normal(case.requests)
        yield changes_between(
            made_up(case, generator, common, change_share),
            made_up(case, generator, other),
            paired=case.paired,
        )


def most_by_chance(count: int, share: float = 0.05) -> int:
    """So many of `count` are passed by chance in 1 of 200 cases only, where each has the share."""
    from scipy.stats import binom  # noqa: PLC0415 - scipy.stats takes half a second

    return int(binom.ppf(0.995, count, share))


def tell_false(count: int, seed: int) -> bool:
    """Print how many comparisons say something false; True: too many."""
    print("| memory | requests | paired | false | figures answered | false of single figures |")
    print("| --- | --- | --- | --- | --- | --- |")
    bad = False
    for case in CASES:
        found = list(comparisons(case, count, seed))
        false = sum(any(change.verdict not in SILENT for change in each) for each in found)
        p_values = [
            change.p_value for each in found for change in each if change.p_value is not None
        ]
        answered = len(p_values) / (len(FIGURES) * count)
        single = sum(p_value < 0.05 for p_value in p_values) / max(1, len(p_values))
        too_many = false > most_by_chance(count)
        bad = bad or too_many
        print(
            f"| {case.phi} | {case.requests} | {'yes' if case.paired else 'no'} "
            f"| {false / count:.1%}{' !' if too_many else ''} | {answered:.0%} | {single:.1%} |",
            flush=True,
        )
    return bad


@dataclass(frozen=True)
class Planted:
    """One figure, in which a run is made to differ."""

    figure: Figure
    paired: bool

    def found(
        self, requests: int, count: int, generator: np.random.Generator, share: float
    ) -> Iterator[Difference]:
        """Compare so many pairs of made-up runs by this figure."""
        case = Case(0.5, requests, self.paired)
        for _ in range(count):
            common, own = generator.standard_normal((2, requests))
            one = made_up(case, generator, common, share)[self.figure]
            other = made_up(case, generator, common if self.paired else own)[self.figure]
            found = compare_samples(one, other, self.figure.statistic, paired=self.paired)
            if found is not None:
                yield found


def tell_found(count: int, seed: int, share: float) -> bool:
    """Print how often a change is found with as many requests as are said to be needed."""
    print(f"\n| figure | paired | requests needed for {share:.0%} | found |")
    print("| --- | --- | --- | --- |")
    bad = False
    names = {"ttft_p50_ms", "ttft_p95_ms", "itl_p99_ms", "e2e_p50_ms"}
    tests = len(FIGURES)
    for figure in (each for each in FIGURES if each.name in names):
        for paired in (False, True):
            generator = np.random.default_rng(seed)
            change = Planted(figure, paired)
            told = [
                needed * 600 / found.count  # in requests, where a request has many values
                for found in change.found(600, 20, generator, 0.0)
                if (needed := needed_values(found, share=share, tests=tests)) is not None
            ]
            requests = math.ceil(float(np.median(told)))
            shown = sum(
                found.p_value is not None
                and found.difference > 0
                and found.p_value * tests < 0.05  # as if it were the smallest of all
                for found in change.found(requests, count, generator, share)
            )
            too_few = count - shown > most_by_chance(count, 0.2)
            bad = bad or too_few
            print(
                f"| {figure.heading} | {'yes' if paired else 'no'} | {requests:,} "
                f"| {shown / count:.0%}{' !' if too_few else ''} |",
                flush=True,
            )
    return bad


def tell_times(count: int, seed: int) -> None:
    """Print autocorrelation times by the true ones."""
    print("\n| memory | requests | true | found, median |")
    print("| --- | --- | --- | --- |")
    generator = np.random.default_rng(seed)
    for phi in (0.0, 0.5, 0.9):
        true = (1 + phi) / (1 - phi)
        for requests in (200, 500, 2000):
            times = [
                autocorrelation_time(remembering(requests, phi, generator)) for _ in range(count)
            ]
            print(f"| {phi} | {requests} | {true:.1f} | {np.median(times):.1f} |")


def main() -> int:
    """Simulate, print; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    false = tell_false(options.comparisons, options.seed)
    missed = tell_found(options.comparisons // 5, options.seed, 0.1)
    tell_times(options.comparisons // 5, options.seed)
    return 1 if false or missed else 0


if __name__ == "__main__":
    sys.exit(main())
