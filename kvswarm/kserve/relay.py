"""Lead the metrics of a service's pods to processes that have no credentials for the cluster.

In:  a cluster, and which pods.
Out: `Relay`, an HTTP server on 127.0.0.1 under a path that nobody can guess. It answers GETs of

    <list>         the pods that run now, as JSON: `[{name, url, shown, ready, insecure}]`
    <list>/<name>  the page of metrics of one of them, through the API server's proxy

and nothing else. Inside the cluster the list names the pods' own addresses instead. While the API
server is away, the list stays as it was, and pages are answered with 502; the reason is in the
status line.
"""

from __future__ import annotations

import contextlib
import http
import json
import secrets
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.found import FoundPod
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.pods import pods_of
from kvswarm.kserve.refusals import FORBIDDEN, Asked, ClusterError, refusal

PAGE_S: Final = 5.0
MAX_PAGE_BYTES: Final = 16 << 20
REASON_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """Which pods: those of a namespace that have these labels."""

    cluster: Cluster
    namespace: str
    selector: str
    inside: bool
    """Whether this process reaches the pods' own addresses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of HTTP; where there is a `reason`, it takes the place of the status' usual one."""

    status: int
    content_type: str = "text/plain"
    body: bytes = b""
    reason: str | None = None

    @property
    def phrase(self) -> str | None:
        """The reason as a line of HTTP can carry it."""
        if self.reason is None:
            return None
        line = " ".join(self.reason.split())[:REASON_CHARACTERS]
        return line.encode("ascii", "replace").decode()


class Relay:
    """Serves until it is left. Use as a context manager."""

    def __init__(self, scraped: Scraped, pods: tuple[FoundPod, ...]) -> None:
        self._scraped = scraped
        self._path = f"/{secrets.token_urlsafe(24)}/pods"
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.relay = self
        self._pods = {pod.name: pod for pod in pods}
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Relay:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a page that is on its way is not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The URL of the list."""
        return f"http://127.0.0.1:{self._server.server_port}{self._path}"

    def answer(self, path: str) -> Answer:
        """Answer a GET of a path."""
        if path == self._path:
            body = json.dumps([self._entry(pod) for pod in self._listed() if pod.running])
            return Answer(http.HTTPStatus.OK, "application/json", body.encode())
        root, _, name = path.rpartition("/")
        pod = self._pods.get(name)
        if root != self._path or pod is None:
            return Answer(http.HTTPStatus.NOT_FOUND)
        try:
            return page_of(self._scraped.cluster, self._scraped.namespace, pod)
        except ClusterError as error:
            return Answer(http.HTTPStatus.BAD_GATEWAY, reason=str(error))

    def _listed(self) -> list[FoundPod]:
        """The pods whose counts are of whole requests, as they are now or were last known."""
        with contextlib.suppress(ClusterError):
            scraped = self._scraped
            pods = pods_of(scraped.cluster, scraped.namespace, scraped.selector, cached=True)
            self._pods = {pod.name: pod for pod in pods}
        return [pod for pod in self._pods.values() if pod.counts]

    def _entry(self, pod: FoundPod) -> dict[str, Any]:
        scraped = self._scraped
        direct = f"{pod.scheme}://{_host(pod.ip)}:{pod.port}{pod.path}"
        by_proxy = scraped.cluster.pod_path(scraped.namespace, proxied(pod), pod.port, pod.path)
        return {
            "name": pod.name,
            "url": direct if scraped.inside else f"{self.url}/{pod.name}",
            "shown": direct if scraped.inside else f"{scraped.cluster.server}{by_proxy}",
            "ready": pod.ready,
            # The certificate of a pod is its own, for no name that it could be asked by.
            "insecure": pod.scheme == "https",
        }


def page_of(cluster: Cluster, namespace: str, pod: FoundPod) -> Answer:
    """What a pod answers to a GET of its page of metrics.

    Raises ClusterError: NotAllowedError where the user lacks the right to the pods' proxy.
    """
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

    wanted = {"Accept": "text/plain"}
    with cluster.open_pod(
        namespace, proxied(pod), pod.port, pod.path, headers=wanted, timeout_s=PAGE_S
    ) as response:
        try:
            body: bytes = response.read(MAX_PAGE_BYTES)
        except (HTTPError, OSError) as error:
            return Answer(http.HTTPStatus.BAD_GATEWAY, reason=str(error))
        kind = str(response.headers.get("Content-Type", "text/plain"))
        status = int(response.status)
    if status == FORBIDDEN and kind.startswith("application/json"):
        asked = Asked(
            verb="get", kind=KINDS["Pod"], namespace=namespace, name=pod.name, subresource="proxy"
        )
        raise refusal(asked, status, body)
    return Answer(status, kind, body)


def proxied(pod: FoundPod) -> str:
    """How the API server's proxy wants a pod named: with its scheme, unless that is http."""
    return f"https:{pod.name}" if pod.scheme == "https" else pod.name


def _host(ip: str | None) -> str:
    return f"[{ip}]" if ip is not None and ":" in ip else str(ip)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    relay: Relay


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer."""
        answer = self.server.relay.answer(self.path)
        with contextlib.suppress(OSError):  # who asked has given up
            self.send_response(answer.status, answer.phrase)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
