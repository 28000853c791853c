"""One quota over all workers: no index twice, none left out, never more than the limit."""

from __future__ import annotations

import subprocess
import sys
from collections import deque

import gevent
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.swarm.quota import Grants, Leases


class Desk:
    """A master and its workers: wishes wait here until `answer`, as they do on the wire."""

    def __init__(self, limit: int | None, batches: list[int]) -> None:
        self.grants = Grants(limit)
        self.wishes: deque[tuple[int, int]] = deque()
        self.workers = [self._worker(number, batch) for number, batch in enumerate(batches)]

    def _worker(self, number: int, batch: int) -> Leases:
        return Leases(lambda wanted: self.wishes.append((number, wanted)), batch)

    def answer(self) -> None:
        """Grant the oldest wish."""
        number, wanted = self.wishes.popleft()
        self.workers[number].add(*self.grants.grant(wanted))

    def serve(self) -> None:
        """Grant whatever is wished, until nobody wishes more for a while."""
        for _ in range(1000):
            while self.wishes:
                self.answer()
            gevent.sleep(0)


def user(leases: Leases, taken: list[int]) -> None:
    while (index := leases.take()) is not None:
        taken.append(index)
        gevent.sleep(0)


@given(
    limit=st.integers(0, 200),
    batches=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    users=st.integers(1, 8),
)
def test_every_index_of_the_quota_is_taken_once_over_all_workers(
    limit: int, batches: list[int], users: int
) -> None:
    desk = Desk(limit, batches)
    taken: list[int] = []
    greenlets = [gevent.spawn(user, leases, taken) for leases in desk.workers for _ in range(users)]
    desk.serve()
    gevent.joinall(greenlets, timeout=10, raise_error=True)
    assert all(greenlet.dead for greenlet in greenlets), "a user waits for ever"
    assert sorted(taken) == list(range(limit))
    assert all(leases.over for leases in desk.workers)


@given(wishes=st.lists(st.integers(0, 50)))
def test_without_a_limit_every_wish_is_granted_whole(wishes: list[int]) -> None:
    grants = Grants(None)
    ranges = [grants.grant(wanted) for wanted in wishes]
    indices = [index for first, count in ranges for index in range(first, first + count)]
    assert indices == list(range(sum(wishes)))


@given(
    gently=st.integers(0, 60),
    workers=st.integers(1, 8),
    batch=st.integers(1, 100),
    limit=st.integers(61, 300),
)
def test_the_warm_up_is_shared_by_all_workers(
    gently: int, workers: int, batch: int, limit: int
) -> None:
    """One that took it whole would leave the others to measure their first, cold requests."""
    grants = Grants(limit, gently=gently, workers=workers)
    pieces = []
    while not grants.used_up:
        pieces.append(grants.grant(batch))
    assert [first for first, _ in pieces] == [
        sum(n for _, n in pieces[:i]) for i in range(len(pieces))
    ]
    assert sum(count for _, count in pieces) == limit
    assert all(count >= 1 for _, count in pieces)
    in_warm_up = [count for first, count in pieces if first < gently]
    assert all(count <= -(-gently // (2 * workers)) for count in in_warm_up)
    if batch * workers >= gently >= 2 * workers:
        assert len(in_warm_up) >= workers


def test_a_worker_asks_for_more_before_it_runs_out() -> None:
    desk = Desk(None, [8])
    leases = desk.workers[0]
    leases.ask()
    desk.answer()
    taken = [leases.take() for _ in range(5)]
    assert taken == [0, 1, 2, 3, 4]
    assert list(desk.wishes) == [(0, 8)]
    assert list(leases.upcoming()) == [5, 6, 7]


def test_a_wish_that_is_not_answered_is_not_repeated() -> None:
    desk = Desk(None, [4])
    desk.workers[0].ask()
    desk.workers[0].ask()
    assert len(desk.wishes) == 1


def test_stop_ends_users_who_wait_for_a_grant_and_takes_back_what_is_held() -> None:
    desk = Desk(None, [4, 4])
    waiting, holding = desk.workers
    taken: list[int] = []
    greenlet = gevent.spawn(user, waiting, taken)
    gevent.sleep(0)
    holding.add(10, 4)
    waiting.stop()
    holding.stop()
    greenlet.join(timeout=10)
    assert greenlet.dead
    assert taken == []
    assert holding.take() is None
    assert holding.over


def test_a_grant_that_comes_after_stop_is_not_taken() -> None:
    """The master may have answered just before it heard that the load is over."""
    desk = Desk(None, [4])
    leases = desk.workers[0]
    leases.ask()
    leases.stop()
    desk.answer()
    assert leases.take() is None


def test_quota_and_figures_can_be_imported_without_patching_the_process() -> None:
    """Only a Locust process may be patched: importing these here must leave the tests alone."""
    modules = ("quota", "sketch", "options", "plan", "progress", "preflight", "secrets")
    imports = "\n".join(f"import kvswarm.swarm.{module}" for module in modules)
    check = "from gevent.monkey import is_anything_patched\nassert not is_anything_patched()"
    subprocess.run([sys.executable, "-c", f"{imports}\n{check}"], check=True)
