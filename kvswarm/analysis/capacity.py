"""The highest load that still meets its targets: which load to try next, and what a load showed.

In:  for each load tried, how many requests of each of its blocks met each target.
Out: a `Judgement` of a load, the next load, and what was found. Nothing here runs anything.

Each target is a share of requests: that p95 of TTFT is 300 ms at most says the same as that at
least 95 % of the requests had their first token within 300 ms. Its interval is Wilson's (Journal of
the American Statistical Association 22, 1927, 209-212) over all requests of the blocks, of which as
many count as the blocks agree on: where their shares differ by more than chance, by the ratio of
the two variances fewer (the design effect; Kish, Survey Sampling, 1965, 8.2). After every block the
interval is looked at, so its error is divided by the number of looks, and of targets (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

CONFIDENCE: Final = 0.95
LEAST_BLOCKS: Final = 2
"""One block says nothing of how blocks differ."""
FACTOR: Final = 2.0
MOST_HALVINGS: Final = 12
DIGITS: Final = 4
"""Significant ones of a rate: nobody reads more."""

Kind = Literal["rate", "concurrency"]
State = Literal["pass", "fail", "cannot tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is searched, and when to stop."""

    kind: Kind
    start: float
    most: float
    precision: float
    """The bracket is narrow enough where its upper end is above the lower by this share."""
    blocks: int
    """Most blocks at one load."""
    shares: tuple[float, ...]
    """Of each target, the share of requests that must meet it, 0 to 1."""

    @property
    def z(self) -> float:
        """Normal quantile of one look at one target."""
        looks = self.blocks - LEAST_BLOCKS + 1
        error = (1.0 - CONFIDENCE) / (looks * len(self.shares))
        return NormalDist().inv_cdf(1.0 - error / 2.0)

    @property
    def least_requests(self) -> int:
        """Requests of a load, all of which meet the targets, that show it at the last look."""
        share = max(self.shares)
        return math.ceil(share / (1.0 - share) * self.z**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCount:
    """What one block showed."""

    requests: int
    met: tuple[float, ...]
    """Of each target, how many requests met it."""
    saturated: str | None = None
    """Why the load was more than the server could do, in words."""
    unusable: str | None = None
    """Why its figures say nothing, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The share of requests that met a target."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is to be said of a load; `state` is None where another block is needed."""

    state: State | None
    reason: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A load, and whether it was shown to meet all targets."""

    load: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """The highest load that passed, and the lowest that did not; None: there is none."""

    low: float | None
    high: float | None


def judge(plan: Plan, blocks: Sequence[BlockCount]) -> Judgement:
    """Say of a load what its blocks show."""
    usable = [block for block in blocks if block.unusable is None]
    intervals = tuple(_interval(usable, place, plan.z) for place in range(len(plan.shares)))
    for block in blocks:
        if block.saturated is not None:
            return Judgement(state="fail", reason=block.saturated, intervals=intervals)
    state: State | None = None
    reason = "another run is needed"
    if len(usable) >= LEAST_BLOCKS:
        pairs = list(zip(intervals, plan.shares, strict=True))
        if any(found.high < share for found, share in pairs):
            state, reason = "fail", "fewer requests met a target than it asks for"
        elif all(found.low >= share for found, share in pairs):
            state, reason = "pass", "all targets are met"
    if state is None and len(blocks) >= plan.blocks:
        state = "cannot tell"
        reason = f"{len(usable)} runs did not settle it, which counts as a fail"
        lost = [block.unusable for block in blocks if block.unusable is not None]
        if lost:
            reason += f"; {len(lost)} say nothing, the last of them for this: {lost[-1]}"
    return Judgement(state=state, reason=reason, intervals=intervals)


def _interval(blocks: Sequence[BlockCount], place: int, z: float) -> Interval:
    """Wilson's interval of a target's share."""
    used = [block for block in blocks if block.requests]
    total = sum(block.requests for block in used)
    if total == 0:
        return Interval(share=0.0, low=0.0, high=1.0)
    share = min(1.0, sum(block.met[place] for block in used) / total)
    count = total / _design_effect(used, place, share)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    return Interval(share=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _design_effect(blocks: Sequence[BlockCount], place: int, share: float) -> float:
    """By how much the shares of blocks vary more than by chance; at least 1."""
    chance = share * (1.0 - share)
    if len(blocks) < LEAST_BLOCKS or chance <= 0.0:
        return 1.0
    spread = sum(
        block.requests * (block.met[place] / block.requests - share) ** 2 for block in blocks
    )
    return max(1.0, spread / (len(blocks) - 1) / chance)


def bracket_of(tried: Sequence[Tried]) -> Bracket:
    """The bracket after some loads."""
    return Bracket(
        low=max((each.load for each in tried if each.passed), default=None),
        high=min((each.load for each in tried if not each.passed), default=None),
    )


def next_load(plan: Plan, tried: Sequence[Tried]) -> float | None:
    """The load to try next, by doubling (or halving) and then by halves; None: it is found."""
    found = bracket_of(tried)
    if found.low is None and found.high is None:
        return plan.start
    if found.high is None:
        assert found.low is not None  # noqa: S101 - for the type checker: not both are None
        return None if found.low >= plan.most else min(plan.most, rounded(plan, found.low * FACTOR))
    if found.low is None:
        least = 1.0 if plan.kind == "concurrency" else plan.start / FACTOR**MOST_HALVINGS
        return None if found.high <= least else max(least, rounded(plan, found.high / FACTOR))
    if found.high <= found.low * (1.0 + plan.precision):
        return None
    middle = rounded(plan, math.sqrt(found.low * found.high))
    if plan.kind == "concurrency":  # the geometric mean of 2 and 4 is below 3
        middle = max(middle, found.low + 1.0)
    return middle if found.low < middle < found.high else None


def rounded(plan: Plan, load: float) -> float:
    """A load that can be asked for: whole users, or a rate of few digits."""
    if plan.kind == "concurrency":
        return float(max(1, math.floor(load)))
    return float(f"{load:.{DIGITS}g}")
