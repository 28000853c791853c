"""How far a worker's clock is from the master's, by round trips of small messages.

In:  round trips: asked and answered by the master's clock, in between by the worker's, ns.
Out: the offset of the quickest one. Its error is at most half that round trip.
Source: D. L. Mills, RFC 5905 (NTP), section 8: of several samples, that of least delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_TRIPS: Final = 5
"""Round trips before the load starts; every beat of the run is another one."""


@dataclass(slots=True)
class ClockFit:
    """The best that is known of one worker's clock."""

    trips: int = 0
    offset_ns: int | None = None
    """The worker's clock less the master's."""
    rtt_ns: int | None = None

    def add(self, asked_ns: int, there_ns: int, answered_ns: int) -> None:
        """Take one round trip. One with a step of the master's clock in it is left out."""
        rtt_ns = answered_ns - asked_ns
        if rtt_ns < 0:
            return
        self.trips += 1
        if self.rtt_ns is None or rtt_ns < self.rtt_ns:
            self.rtt_ns = rtt_ns
            self.offset_ns = there_ns - (asked_ns + answered_ns) // 2

    @property
    def known_ns(self) -> int:
        """The offset where it is more than noise, else 0: most clocks of one site are as good."""
        if self.offset_ns is None or self.rtt_ns is None or abs(self.offset_ns) <= self.rtt_ns:
            return 0
        return self.offset_ns
