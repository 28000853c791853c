"""Serve where the runs stand to Prometheus: `/llm/metrics` of the master or only process.

In:  the counts and sketches that the workers send anyway.
Out: pages (`metrics_page.py`), as a route of Locust's web UI and, without one or beside it, by a
     small server of its own. What a run has reached stays until the next one begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from gevent.pywsgi import WSGIServer
from locust.env import Environment
from locust.runners import MasterRunner

from kvswarm.swarm.coordinator import Coordinator
from kvswarm.swarm.merging import merged
from kvswarm.swarm.metrics_page import CONTENT_TYPE, Now, RunNow, page
from kvswarm.swarm.options import cannot_listen

logger = logging.getLogger(__name__)

PATH: Final = "/llm/metrics"


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
        model=str(info.target.model),
        going_on=info.ended is None,
        lost_workers=coordinator.lost_workers,
        merged=merged(coordinator.counts),
    )
