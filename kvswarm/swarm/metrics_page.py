"""A page of live figures in Prometheus' text format 0.0.4; docs/metrics-live.md has its metrics.

In:  `Now`: where the processes and the run stand.  Out: the page.
Not: who serves it (`prometheus.py`); figures that are kept: those come from the rows.

Units are Prometheus' own: seconds. Counters begin anew with each run, as `rate` expects of a
process that was started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import kvswarm
from kvswarm.swarm.merging import Merged
from kvswarm.swarm.sketch import Sketch

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
QUANTILES: Final = (0.5, 0.9, 0.99)
SUMMARIES: Final = {
    "ttft": "Time to first token of requests that succeeded.",
    "itl": "Gaps between token-bearing events of requests that succeeded.",
    "tpot": "Time per output token after the first event of requests that succeeded.",
    "e2e": "Whole responses of requests that succeeded.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNow:
    """Where one run stands."""

    run_id: str
    profile: str
    model: str
    going_on: bool
    lost_workers: int
    merged: Merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """Everything that one page tells."""

    users: int
    workers: int
    run: RunNow | None
    """The current run, or else the last one; None before the first."""


def families(now: Now) -> Iterator[Metric]:
    """Give the metrics of one page. What is not known yet has no sample: it is not 0."""
    build = GaugeMetricFamily("kvswarm_build_info", "Version of kvswarm.", labels=["version"])
    build.add_metric([kvswarm.__version__], 1)
    yield build
    going_on = now.run is not None and now.run.going_on
    yield _gauge("kvswarm_running", "Whether a run is going on.", going_on)
    yield _gauge("kvswarm_users", "Users that Locust runs.", now.users)
    yield _gauge("kvswarm_workers", "Processes that make load, or could.", now.workers)
    if now.run is None:
        return
    yield from _of_run(now.run)
    for name, help_text in SUMMARIES.items():
        yield _summary(f"kvswarm_{name}_seconds", help_text, now.run.merged.sketches[name])


def _of_run(run: RunNow) -> Iterator[Metric]:
    counts = run.merged.total
    info = GaugeMetricFamily(
        "kvswarm_run_info",
        "Which run the figures are of.",
        labels=["run_id", "profile", "model"],
    )
    info.add_metric([run.run_id, run.profile, run.model], 1)
    yield info
    for name, help_text, value in (
        ("requests_started", "Requests that were started.", counts.started),
        ("requests_ok", "Requests that succeeded.", counts.ok),
        ("requests_cancelled", "Requests in flight when the run was stopped.", counts.cancelled),
        ("requests_good", "Requests that met every SLO, with valid output.", counts.good),
        ("outputs_checked", "Outputs that were checked.", counts.checked),
        ("outputs_valid", "Outputs that were valid.", counts.valid),
        ("arrivals_dropped", "Arrivals that found no room in flight.", counts.dropped),
        ("output_tokens", "Output tokens of requests that succeeded.", counts.output_tokens),
        ("token_events", "Token-bearing events of requests that ended.", counts.token_events),
        ("coalesced_events", "Those whose own arrival is not known.", counts.coalesced),
    ):
        yield CounterMetricFamily(f"kvswarm_{name}", help_text, value=value)
    failed = CounterMetricFamily(
        "kvswarm_requests_failed", "Requests that failed, by error kind.", labels=["kind"]
    )
    for kind, number in sorted(counts.by_error.items()):
        failed.add_metric([kind], number)
    yield failed
    yield _gauge("kvswarm_requests_in_flight", "Requests in flight.", counts.in_flight)
    yield _gauge("kvswarm_workers_lost", "Workers of this run that were lost.", run.lost_workers)
    lag_ms = run.merged.sketches["read_lag"].quantile_ms(0.99)
    yield _gauge(
        "kvswarm_generator_read_lag_p99_seconds",
        "99 % of all token events were read at most so long after the kernel had them.",
        None if lag_ms is None else lag_ms / 1000,
    )
    yield _gauge(
        "kvswarm_generator_keeping_up",
        "0: the generator is falling behind, and its lateness may be in the figures.",
        None if lag_ms is None else not run.merged.falling_behind,
    )


def _gauge(name: str, help_text: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _summary(name: str, help_text: str, sketch: Sketch) -> SummaryMetricFamily:
    family = SummaryMetricFamily(name, help_text)
    for share in QUANTILES:
        value_ms = sketch.quantile_ms(share)
        if value_ms is not None:
            family.add_sample(name, {"quantile": str(share)}, value_ms / 1000)
    family.add_metric([], sketch.count, sketch.sum_s())
    return family


class _Page(Collector):
    """What `generate_latest` asks."""

    def __init__(self, now: Now) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        return families(self._now)


def page(now: Now) -> bytes:
    """Write one page of the text format."""
    registry = CollectorRegistry()
    registry.register(_Page(now))
    return generate_latest(registry)
