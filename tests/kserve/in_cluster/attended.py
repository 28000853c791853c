"""`kvswarm run --in-cluster` as a person starts it, what is left of it, and what came of it."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from running import KVSWARM, Done, Going, Run, forgiving, free_port, going, until
from stand_in_jobs import StandInJobs
from stand_in_network import machine_address

Stand = Callable[..., contextlib.AbstractContextManager[StandInJobs]]


def started(
    tmp_path: Path, config: Path, namespace: str, url: str | None, *more: str | Path
) -> contextlib.AbstractContextManager[Going]:
    """`kvswarm run --in-cluster` with two workers."""
    profile = () if "--profile" in more else ("--profile", forgiving(tmp_path))
    return going(
        *KVSWARM, "run", "--in-cluster", "--namespace", namespace, "--workers", "2",
        "--image", "registry/kvswarm:1", *(("--url", url) if url else ()), *profile,
        "--master-bind-port", str(free_port()), "--hand-over", str(free_port()), *more,
        cwd=tmp_path, env={"KUBECONFIG": str(config)},
    )  # fmt: skip


def left(jobs: StandInJobs) -> list[str]:
    """What of a run is left in the namespace."""
    kinds = ("Job", "Pod", "Service", "Secret", "ConfigMap", "NetworkPolicy", "Role")
    of_runs = re.compile(r"kvswarm-[0-9a-f]{6}\b")
    return [f"{kind}/{name}" for kind in kinds for name in jobs.names(kind) if of_runs.match(name)]


def result(done: Done, folder: Path) -> Run:
    """The only run directory here."""
    (path,) = [each for each in (folder / "runs").iterdir() if not each.name.startswith(".")]
    assert str(path.name) in done.out + done.err
    return Run(path)


SLOW = "requests: 200\nconcurrency: 4\nmax_tokens: 40\n"
"""A run that takes long enough to do something to it."""


def in_mid_run(jobs: StandInJobs, tmp_path: Path, run: Going) -> str:
    """Wait until requests have been written down; give the run's name."""

    def begun() -> bool:
        assert run.process.poll() is None, run.err
        found = list((tmp_path / "pods").glob("*-master-0/runs/*"))
        return bool(found) and Run(found[0]).journalled() >= 8

    until(begun, "in mid-run")
    (name,) = [job.removesuffix("-master") for job in jobs.jobs if job.endswith("-master")]
    return name


class Particular(http.server.BaseHTTPRequestHandler):
    """Answers those alone who have the key and the header."""

    protocol_version = "HTTP/1.1"
    key = tenant = ""

    def do_GET(self) -> None:
        self._answer(b'{"data": [{"id": "m"}]}', "application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        delta = {"choices": [{"delta": {"content": " a"}}]}
        last = {"choices": [{"delta": {}, "finish_reason": "length"}]}
        events = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in (delta, last))
        self._answer(events + b"data: [DONE]\n\n", "text/event-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        known = (
            self.headers["Authorization"] == self.key and self.headers["X-Tenant"] == self.tenant
        )
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def particular(key: str, tenant: str) -> Iterator[str]:
    """Such a server, where pods can reach it."""
    handler = type("Handler", (Particular,), {"key": key, "tenant": tenant})
    with http.server.ThreadingHTTPServer((machine_address(), 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{machine_address()}:{server.server_port}"
        server.shutdown()
        thread.join()
