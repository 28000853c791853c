"""How far the API server's clock is ahead of this machine's, by the `Date` of its answers.

In:  answers, each with when it was asked for and when it came.
Out: `ClockBounds`, between which the difference lies. Each answer tells it to a second; many,
     asked at different parts of the second, narrow it down to about the time of a round trip.
     `ClockKeeper`: what cluster.jsonl is to hold of it, and of times without an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvswarm.clusterlog import AwayEntry, ClockEntry
from kvswarm.kserve.cluster import Answered

SECOND_NS: Final = 1_000_000_000
FIRST_ANSWERS: Final = 8
"""So many are waited for before the first bounds are written."""
WORTH_NS: Final = 5_000_000
"""By how much bounds must have moved to be written again."""


@dataclass(frozen=True, slots=True)
class ClockBounds:
    """The API server's clock less this machine's, ns: at least and at most."""

    least_ns: int
    most_ns: int

    @classmethod
    def of(cls, answer: Answered) -> ClockBounds:
        """What one answer tells: its second began by the answer, and ends after the question."""
        date_ns = answer.date_s * SECOND_NS
        return cls(date_ns - answer.answered_ns, date_ns + SECOND_NS - answer.asked_ns)

    def narrowed(self, answer: Answered) -> ClockBounds:
        """What both tell. Where they cannot both be true, a clock was set: the newer counts."""
        new = ClockBounds.of(answer)
        both = ClockBounds(max(self.least_ns, new.least_ns), min(self.most_ns, new.most_ns))
        return both if both.least_ns <= both.most_ns else new

    def far_from(self, other: ClockBounds) -> bool:
        """Whether either bound has moved by more than WORTH_NS."""
        moved_ns = max(abs(self.least_ns - other.least_ns), abs(self.most_ns - other.most_ns))
        return moved_ns > WORTH_NS


class ClockKeeper:
    """Takes the answers in their order, and gives the lines that they are worth."""

    def __init__(self, begun_ns: int) -> None:
        self.answers = 0
        self._bounds: ClockBounds | None = None
        self._written: ClockBounds | None = None
        self._answered_ns = begun_ns
        self._away = False

    def answered(self, answer: Answered) -> list[AwayEntry | ClockEntry]:
        """Take an answer."""
        entries: list[AwayEntry | ClockEntry] = self._absence(answer.answered_ns)
        self._away, self._answered_ns = False, answer.answered_ns
        self.answers += 1
        bounds = self._bounds
        self._bounds = ClockBounds.of(answer) if bounds is None else bounds.narrowed(answer)
        return entries + (self._clock() if self.answers >= FIRST_ANSWERS else [])

    def missed(self) -> bool:
        """Take note that there was no answer. True: the first time since there was one."""
        first = not self._away
        self._away = True
        return first

    def ended(self, time_ns: int) -> list[AwayEntry | ClockEntry]:
        """What is left to be written at the end."""
        return self._absence(time_ns) + self._clock()

    def _absence(self, time_ns: int) -> list[AwayEntry | ClockEntry]:
        return [AwayEntry(time_ns=time_ns, since_ns=self._answered_ns)] if self._away else []

    def _clock(self) -> list[AwayEntry | ClockEntry]:
        bounds, written = self._bounds, self._written
        if bounds is None or (written is not None and not bounds.far_from(written)):
            return []
        self._written = bounds
        time_ns = self._answered_ns
        return [ClockEntry(time_ns=time_ns, least_ns=bounds.least_ns, most_ns=bounds.most_ns)]
