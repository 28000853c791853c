"""Where each user of a closed loop stands in a dialogue: what it sends next, and when.

In:  answers, as they end.  Out: the request that follows one, or the number of a new dialogue.
The numbers depend on users alone, not on which of them was quicker: a seed repeats the dialogues.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kvswarm.workload.answers import Answer
from kvswarm.workload.requests import LLMRequest
from kvswarm.workload.workload import Requests

DIALOGUES_PER_TURN: Final = 100_000
"""So many dialogues are a user's before those of the next one with its number begin."""


@dataclass(slots=True)
class Standing:
    """One user: how many dialogues it began, what it sent last, and what comes next."""

    begun: int = 0
    last: LLMRequest | None = None
    upcoming: LLMRequest | None = None


class Dialogues:
    """The dialogues of one process's users. `users` is the number of users of the whole run."""

    def __init__(self, workload: Requests, users: int) -> None:
        self._workload = workload
        self._users = max(1, users)
        self._standing: dict[int, Standing] = {}

    def sit_down(self, user: int, turn: int) -> None:
        """A new user has this number, which others had `turn` times: it does not repeat theirs."""
        self._standing[user] = Standing(begun=turn * DIALOGUES_PER_TURN)

    def think_time_s(self, user: int) -> float:
        """How long a user thinks before its next request."""
        upcoming = self._of(user).upcoming
        return upcoming.think_time_s if upcoming is not None else 0.0

    def next(self, user: int, index: int) -> LLMRequest:
        """Make request `index` of a user: the next of its dialogue, or the first of a new one."""
        standing = self._of(user)
        if standing.upcoming is not None:
            request = replace(standing.upcoming, index=index)
        else:
            number = standing.begun * self._users + user
            standing.begun += 1
            request = self._workload.request(index, number)
        standing.last, standing.upcoming = request, None
        return request

    def heard(self, user: int, answer: Answer | None) -> None:
        """Take the answer to a user's request; None where it failed: its dialogue is over."""
        standing = self._of(user)
        if standing.last is not None and answer is not None:
            standing.upcoming = self._workload.follow_up(standing.last, answer)

    def _of(self, user: int) -> Standing:
        return self._standing.setdefault(user, Standing())
