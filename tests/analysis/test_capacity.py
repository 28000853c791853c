"""The decisions of a search for the highest load, on systems whose threshold is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.analysis.capacity import (
    BlockCount,
    Bracket,
    Plan,
    Tried,
    bracket_of,
    judge,
    next_load,
)


def plan(**changes: object) -> Plan:
    """A search for a rate with a goodput of 90 %."""
    plain = {
        "kind": "rate", "start": 1.0, "most": 4096.0, "precision": 0.05, "blocks": 5,
        "shares": (0.9,),
    }  # fmt: skip
    return Plan(**{**plain, **changes})


def block(met: float, requests: int = 100, **changes: object) -> BlockCount:
    """A block of 100 requests."""
    return BlockCount(requests=requests, met=(met,), **changes)


# -- one load --------------------------------------------------------------------------------


def test_one_block_settles_nothing_unless_the_server_fell_behind() -> None:
    """How blocks differ is not known from one; a growing queue needs no second."""
    assert judge(plan(), [block(100)]).state is None
    assert judge(plan(), [block(0)]).state is None
    fallen = judge(plan(), [block(100, saturated="the queue grew")])
    assert (fallen.state, fallen.reason) == ("fail", "the queue grew")


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ([100, 100], "pass"),
        ([60, 65], "fail"),
        ([92, 91], None),
        ([90, 90, 91, 90, 90], "cannot tell"),
        ([100, 60], None),
        ([100, 100, 100, 100, 60], "cannot tell"),
    ],
)
def test_a_load_is_settled_when_its_interval_leaves_out_the_limit(
    counts: list[float], state: str | None
) -> None:
    """Blocks that differ by more than chance say less than as many requests would."""
    assert judge(plan(), [block(count) for count in counts]).state == state


def test_one_target_that_is_missed_is_enough_to_fail_and_all_are_needed_to_pass() -> None:
    """A server that is quick to begin and slow to go on does not meet its SLOs."""
    both = plan(shares=(0.9, 0.9))
    missed = [BlockCount(requests=200, met=(200.0, 20.0))] * 2
    open_yet = [BlockCount(requests=200, met=(200.0, 181.0))] * 2
    assert judge(both, missed).state == "fail"
    assert judge(both, open_yet).state is None


def test_a_block_that_says_nothing_is_made_again_and_is_no_evidence_for_either() -> None:
    """An invalid measurement tells of the generator; where all are, nothing is known of the server."""
    lost = block(0, unusable="clock steps")
    assert judge(plan(), [block(100), lost]).state is None
    passed = judge(plan(), [block(100), lost, block(100)])
    assert (passed.state, passed.intervals[0].share) == ("pass", 1.0)
    assert judge(plan(), [block(10), lost, block(10)]).state == "fail"
    judgement = judge(plan(), [lost] * 5)
    assert judgement.state == "cannot tell"
    assert "clock steps" in judgement.reason
    assert judge(plan(), [lost] * 4).state is None


def test_the_interval_of_all_of_n_is_wilsons() -> None:
    """n / (n + z * z), by arithmetic; so the least number of requests is what just passes."""
    one_look = plan(blocks=2)
    (found,) = judge(one_look, [block(50, 50), block(50, 50)]).intervals
    assert one_look.z == pytest.approx(1.95996, abs=1e-5)
    assert found.low == pytest.approx(100 / (100 + one_look.z**2))
    assert (found.share, found.high) == (1.0, 1.0)
    for target in (plan(), plan(shares=(0.99,)), plan(shares=(0.95, 0.5), blocks=3)):
        least = target.least_requests
        for requests, passes in ((least, True), (least - 1, False)):
            halves = [requests // 2, requests - requests // 2]
            met = [
                BlockCount(requests=half, met=(float(half),) * len(target.shares))
                for half in halves
            ]
            assert (judge(target, met).state == "pass") is passes


@given(seed=st.integers(0, 2**32), share=st.floats(0.7, 0.999))
@settings(max_examples=25)
def test_a_load_at_the_limit_is_rarely_said_to_pass_or_to_fail(seed: int, share: float) -> None:
    """With five looks, too: of 400 loads exactly at the limit at most 5 % are settled, and noise."""
    generator = np.random.default_rng(seed)
    limit = plan(shares=(share,))
    settled = 0
    for _ in range(400):
        blocks: list[BlockCount] = []
        while (state := judge(limit, blocks).state) is None:
            blocks.append(block(float(generator.binomial(200, share)), 200))
        settled += state != "cannot tell"
    assert settled <= 400 * 0.05 + 4 * math.sqrt(400 * 0.05 * 0.95)


# -- which load is next ----------------------------------------------------------------------


@given(
    threshold=st.floats(0.02, 3000.0),
    start=st.floats(0.5, 64.0),
    precision=st.floats(0.01, 0.5),
)
def test_a_sharp_threshold_is_bracketed_within_the_precision(
    threshold: float, start: float, precision: float
) -> None:
    """In as many steps as doubling and halving take, wherever the search begins."""
    rates = plan(start=start, precision=precision)
    tried: list[Tried] = []
    while (load := next_load(rates, tried)) is not None:
        assert load not in [each.load for each in tried]
        tried.append(Tried(load=load, passed=load <= threshold))
    found = bracket_of(tried)
    steps = abs(math.log2(threshold / start)) + math.log2(1 / math.log2(1 + precision)) + 4
    assert len(tried) <= steps
    if found.low is None:
        assert threshold < start / 2**11
    else:
        assert found.high is not None
        assert found.low <= threshold < found.high
        assert found.high <= found.low * (1 + precision)


@given(threshold=st.integers(1, 4095), start=st.integers(1, 4096))
def test_users_are_whole_and_the_bracket_may_be_two_neighbours(threshold: int, start: int) -> None:
    """Nothing lies between three users and four."""
    users = plan(kind="concurrency", start=float(start), precision=0.01)
    tried: list[Tried] = []
    while (load := next_load(users, tried)) is not None:
        assert load == int(load)
        tried.append(Tried(load=load, passed=load <= threshold))
    found = bracket_of(tried)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= threshold < found.high
    assert found.high <= max(found.low * 1.01, found.low + 1)


def test_a_search_ends_where_all_loads_pass_and_where_none_does() -> None:
    """At --most, at one user, and at a rate far below the first."""
    assert next_load(plan(most=6.0), [Tried(load=4.0, passed=True)]) == 6.0
    assert next_load(plan(most=6.0), [Tried(load=6.0, passed=True)]) is None
    users = plan(kind="concurrency")
    assert next_load(users, [Tried(load=2.0, passed=False)]) == 1.0
    assert next_load(users, [Tried(load=1.0, passed=False)]) is None
    assert next_load(plan(), [Tried(load=1 / 4096, passed=False)]) is None
    assert bracket_of([]) == Bracket(low=None, high=None)


# -- both together ---------------------------------------------------------------------------


@given(threshold=st.floats(3.0, 500.0), seed=st.integers(0, 2**32), drift=st.floats(0.0, 0.01))
@settings(max_examples=40)
def test_a_noisy_server_has_its_threshold_found_within_the_precision(
    threshold: float, seed: int, drift: float
) -> None:
    """Requests are met by chance, fewer the higher the load, and blocks differ among themselves.

    Of the load that is found the true share is not below the target by more than noise explains.
    """
    generator = np.random.default_rng(seed)
    searched = plan(start=8.0)

    def share(load: float) -> float:
        return 1.0 / (1.0 + math.exp(40.0 * (load / threshold - 1.0)) / 9.0)

    tried: list[Tried] = []
    requests = 0
    while (load := next_load(searched, tried)) is not None:
        blocks: list[BlockCount] = []
        while (state := judge(searched, blocks).state) is None:
            here = min(1.0, max(0.0, share(load) + drift * generator.standard_normal()))
            blocks.append(block(float(generator.binomial(200, here)), 200))
            requests += 200
        tried.append(Tried(load=load, passed=state == "pass"))
    found = bracket_of(tried)
    assert found.low is not None
    assert found.high is not None
    assert found.high <= found.low * 1.05
    # 8 % below, a share of 0.996 passes; 2 % above, one of 0.80 fails, each all but surely.
    assert 0.92 / 1.05 * threshold < found.low < 1.02 * threshold
    assert requests <= 20 * 5 * 200
