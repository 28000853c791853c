"""Where a run stands, for Prometheus: `/llm/metrics` of the master or only process.

In:  the counts and sketches that the workers send anyway.
Out: Prometheus' text format 0.0.4, as a route of Locust's web UI and, without one or beside it, by
     a small server of its own. docs/metrics-live.md has a line for each metric.
Not: figures that are kept: those come from the rows.

Units are Prometheus' own: seconds. Counters begin anew with each run, as `rate` expects of a
process that was started again; what a run has reached stays until the next one begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.runners import MasterRunner
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import kvswarm
from kvswarm.swarm.coordinator import Coordinator
from kvswarm.swarm.options import cannot_listen
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.standing import Merged, keeps_up, merge

logger = logging.getLogger(__name__)

PATH: Final = "/llm/metrics"
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
    counts = run.merged.counts
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
        None if lag_ms is None else keeps_up(lag_ms, run.merged.coalesced_share),
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


class LiveMetrics:
    """The page of one process, over as many runs as are started in it."""

    def __init__(self, environment: Environment) -> None:
        """Put the page into the web UI, if there is one."""
        self._environment = environment
        self._coordinator: Coordinator | None = None
        self._server: WSGIServer | None = None
        if environment.web_ui is not None:
            ui: Any = environment.web_ui
            ui.app.add_url_rule(PATH, "llm_metrics", ui.auth_required_if_enabled(self._respond))

    def listen(self, address: tuple[str, int]) -> None:
        """Serve the page at a host and port of its own. Raises UsageError."""
        server = WSGIServer(address, self._answer, log=None, error_log=logger)
        try:
            server.start()
        except OSError as error:
            raise cannot_listen(address, error) from error
        self._server = server
        logger.info("metrics for Prometheus: http://%s:%d%s", address[0], server.server_port, PATH)

    def follow(self, coordinator: Coordinator) -> None:
        """Tell of this run from now on."""
        self._coordinator = coordinator

    def now(self) -> Now:
        """Look where everything stands."""
        runner: Any = self._environment.runner
        workers = runner.worker_count if isinstance(runner, MasterRunner) else 1
        run = _run_now(self._coordinator) if self._coordinator is not None else None
        return Now(users=runner.user_count, workers=workers, run=run)

    def _respond(self) -> tuple[bytes, dict[str, str]]:
        """Answer as Flask wants it."""
        return page(self.now()), {"Content-Type": CONTENT_TYPE}

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer as WSGI wants it."""
        status, kind, body = "200 OK", CONTENT_TYPE, b""
        if environ["PATH_INFO"] != PATH:
            status, kind, body = "404 Not Found", "text/plain", f"See {PATH}\n".encode()
        elif environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            status, kind, body = "405 Method Not Allowed", "text/plain", b"Only GET\n"
        else:
            body = page(self.now())
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]


def _run_now(coordinator: Coordinator) -> RunNow:
    info = coordinator.info
    return RunNow(
        run_id=info.run_id,
        profile=str(info.profile["name"]),
        model=info.target.model,
        going_on=info.ended is None,
        lost_workers=coordinator.lost_workers,
        merged=merge(coordinator.standing),
    )
