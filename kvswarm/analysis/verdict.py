"""Can the figures of a run be trusted? `valid`, `degraded` or `invalid`, with reasons.

In:  `Evidence` (gathered by `summary.py` from the rows and run.json) and the profile's limits.
Out: `Verdict`.  A function of its arguments.

The main test: each of TTFT p50 and p99 and ITL p50 and p99 is known to lie between a low and a
high value (`uncertainty.py`). Where these are too far apart, the generator was too slow to see
when the tokens came. `degraded`: a figure may be off by more than the profile's degraded limits.
`invalid`: by more than the invalid ones, both the share and the ms; or there are no figures at all.
docs/decisions/0001 and 0002 tell why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from kvswarm.profiles.model import VerdictLimits

Status = Literal["valid", "degraded", "invalid"]
LONG_PAUSE_MS = 200.0
NEGLIGIBLE_MS = 0.05
"""Below this no error counts: the share of a gap of 0 between bundled tokens is boundless."""
MAX_IDLE_SHARE = 0.05
MAX_UNSTAMPED_SHARE = 0.01
SLOWER = "Use more --processes, a machine with free cores, or fewer streams."


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What a figure may really be, in ms; `high_ms` is what is reported."""

    name: str
    low_ms: float
    high_ms: float

    @property
    def error_ms(self) -> float:
        """By how much the reported figure may be too high."""
        return abs(self.high_ms - self.low_ms)

    @property
    def error_share(self) -> float:
        """The same as a share of the figure."""
        return self.error_ms / max(self.low_ms, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the generator and the run."""

    intervals: tuple[Interval, ...] = ()
    open_loop: bool = False
    send_lag_p99_ms: float | None = None
    idle_share: float = 0.0
    """Closed loop: the share of the users' time that the generator let pass before it sent."""
    longest_pause_ms: float = 0.0
    """Longest time for which events may have waited to be read together."""
    coalesced_share: float = 0.0
    requests: int = 0
    clock_step_requests: int = 0
    max_clock_step_ms: float = 0.0
    unstamped_share: float = 0.0
    arrivals: int = 0
    dropped_arrivals: int = 0
    lost_workers: int = 0
    late_workers: int = 0
    returned_workers: int = 0
    """Workers that were missing for a while and brought what they had kept."""
    lost_in_flight: int = 0
    """Requests that lost workers had begun and that left no record."""
    unmade_arrivals: int = 0
    """Arrivals of an open loop that nobody made while a worker was missing."""
    contradictions: tuple[str, ...] = ()
    """What the server's own metrics say otherwise."""
    succeeded: int = 1
    missing_rows: int = 0
    """Records that workers made, but that are not in the table."""
    ended: str | None = "completed"
    cut_short: bool = False
    notes: tuple[str, ...] = field(default_factory=tuple)
    imported_from: str | None = None
    """The tool that measured, where it was not kvswarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a run is not valid: the figure, and what to do."""

    status: Status
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The worst of the reasons, and all of them."""

    status: Status
    reasons: tuple[str, ...]


def judge(evidence: Evidence, limits: VerdictLimits) -> Verdict:
    """Judge a run by what is known of its generator."""
    reasons = [
        *_figures(evidence, limits),
        *_sending(evidence, limits),
        *_clock(evidence, limits),
        *_workers(evidence),
        *_completeness(evidence),
        *_origin(evidence),
    ]
    reasons.sort(key=lambda reason: reason.status != "invalid")  # the worst is read first
    statuses = {reason.status for reason in reasons}
    worst: Status = "valid"
    if statuses:
        worst = "invalid" if "invalid" in statuses else "degraded"
    return Verdict(status=worst, reasons=tuple(reason.text for reason in reasons))


def _figures(evidence: Evidence, limits: VerdictLimits) -> Iterator[Reason]:
    for interval in evidence.intervals:
        share, error_ms = interval.error_share, interval.error_ms
        invalid = share > limits.invalid_error_share and error_ms > limits.invalid_error_ms
        degraded = error_ms > limits.degraded_error_ms or (
            share > limits.degraded_error_share and error_ms > NEGLIGIBLE_MS
        )
        if invalid or degraded:
            yield Reason(
                status="invalid" if invalid else "degraded",
                text=(
                    f"{interval.name} is {interval.high_ms:.2f} ms as seen, but may be "
                    f"{interval.low_ms:.2f} ms ({share:.1%} off): {evidence.coalesced_share:.1%} "
                    f"of the token events waited to be read with later ones. {SLOWER}"
                ),
            )
    if evidence.longest_pause_ms > LONG_PAUSE_MS:
        yield Reason(
            status="degraded",
            text=(
                f"the generator did not read for up to {evidence.longest_pause_ms:.0f} ms "
                f"(limit {LONG_PAUSE_MS:.0f} ms): it was stopped or starved. {SLOWER}"
            ),
        )


def _sending(evidence: Evidence, limits: VerdictLimits) -> Iterator[Reason]:
    lag_ms = evidence.send_lag_p99_ms
    if evidence.open_loop and lag_ms is not None and lag_ms > limits.degraded_send_lag_p99_ms:
        invalid = lag_ms > limits.invalid_send_lag_p99_ms
        yield Reason(
            status="invalid" if invalid else "degraded",
            text=(
                f"requests were sent late: {lag_ms:.1f} ms after their time at p99 (limit "
                f"{limits.degraded_send_lag_p99_ms:g} ms), so the load was not as asked. {SLOWER}"
            ),
        )
    if not evidence.open_loop and evidence.idle_share > MAX_IDLE_SHARE:
        yield Reason(
            status="degraded",
            text=(
                f"users waited {evidence.idle_share:.1%} of their time for the generator (limit "
                f"{MAX_IDLE_SHARE:.0%}), so the load was lighter than asked. {SLOWER}"
            ),
        )
    share = evidence.dropped_arrivals / evidence.arrivals if evidence.arrivals else 0.0
    if share > limits.max_dropped_arrival_share:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.dropped_arrivals} of {evidence.arrivals} arrivals were dropped, "
                "because max_in_flight requests were running. Raise max_in_flight, or lower the "
                "rate: the server does not keep up with it."
            ),
        )


def _clock(evidence: Evidence, limits: VerdictLimits) -> Iterator[Reason]:
    if evidence.max_clock_step_ms > limits.max_clock_step_ms:
        yield Reason(
            status="degraded",
            text=(
                f"the clock was stepped by up to {evidence.max_clock_step_ms:.1f} ms during "
                f"{evidence.clock_step_requests} requests; their times are off by it. Let NTP slew."
            ),
        )
    if evidence.unstamped_share > MAX_UNSTAMPED_SHARE:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.unstamped_share:.1%} of the reads had no receive stamp of the kernel; "
                "their time is that of the read, and includes the generator's delay. Use Linux."
            ),
        )


def _workers(evidence: Evidence) -> Iterator[Reason]:
    if evidence.lost_workers:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.lost_workers} workers were lost, and with them "
                f"{evidence.lost_in_flight} requests that they had begun; others made the rest of "
                "their part."
            ),
        )
    if evidence.returned_workers:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.returned_workers} workers were missing for a while, and the load was "
                "lighter meanwhile; others made the rest of their part."
            ),
        )
    if evidence.unmade_arrivals:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.unmade_arrivals} arrivals were not made while a worker was missing, so "
                "the load was lighter than asked."
            ),
        )
    if evidence.ended == "worker_lost":
        yield Reason(
            status="degraded",
            text="the load was stopped because a worker was lost (on_worker_loss: stop).",
        )
    if evidence.late_workers and not evidence.open_loop:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.late_workers} workers joined after the start and have no part in the "
                "run. Use --expect-workers."
            ),
        )


def _completeness(evidence: Evidence) -> Iterator[Reason]:
    for text in evidence.contradictions:
        yield Reason(status="degraded", text=text)
    if evidence.missing_rows:
        yield Reason(
            status="degraded",
            text=f"{evidence.missing_rows} records that workers made are not in the table.",
        )
    if evidence.ended is None:
        yield Reason(
            status="degraded",
            text="the run was cut off; the figures are those of the requests that had ended.",
        )
    if not evidence.succeeded:
        yield Reason(
            status="invalid",
            text="no request succeeded in the measured phase: there are no latencies.",
        )
    if evidence.ended == "disk_full":
        yield Reason(status="degraded", text="the run was stopped because the disk was full.")
    if evidence.cut_short:
        yield Reason(
            status="degraded", text="the end of the journal was cut off; its last batch is lost."
        )


def _origin(evidence: Evidence) -> Iterator[Reason]:
    if evidence.imported_from is not None:
        yield Reason(
            status="degraded",
            text=(
                f"{evidence.imported_from} measured it, and does not tell how late it saw the "
                "tokens or sent the requests: by how much its figures are off is not known."
            ),
        )
