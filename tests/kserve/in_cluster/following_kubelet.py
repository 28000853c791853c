"""A kubelet's endpoint for logs, which can be followed as they are written.

In:  containers by their pods' names.  Out: GET /containerLogs/NAMESPACE/POD/CONTAINER over TLS.
"""

from __future__ import annotations

import contextlib
import http.server
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlparse

import trustme
from stand_in_network import machine_address

LOOK_S = 0.1


@dataclass
class Container:
    """One pod's process and log."""

    pod: dict[str, Any]
    process: subprocess.Popen[bytes]
    lines: list[tuple[str, str]] = field(default_factory=list)
    grown: threading.Condition = field(default_factory=threading.Condition)
    closed: bool = False


class Kubelet:
    """Answers for logs over TLS: GET /containerLogs/NAMESPACE/POD/CONTAINER."""

    def __init__(self, containers: dict[str, Container]) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(machine_address()).configure_cert(context)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlparse(self.path)
                query = {key: values[0] for key, values in parse_qs(asked.query).items()}
                container = containers.get(asked.path.split("/")[3])
                self.send_response(404 if container is None else 200)
                self.end_headers()
                if container is not None:
                    with contextlib.suppress(OSError):  # nobody listens any more
                        self._tell(container, query)

            def _tell(self, container: Container, query: dict[str, str]) -> None:
                told = 0
                if "tailLines" in query:
                    told = max(0, len(container.lines) - int(query["tailLines"]))
                follow = query.get("follow") == "true"
                while True:
                    with container.grown:
                        lines = container.lines[told:]
                        closed = container.closed
                        if follow and not lines and not closed:
                            container.grown.wait(LOOK_S)
                    for stamp, text in lines:
                        words = f"{stamp} {text}" if query.get("timestamps") == "true" else text
                        self.wfile.write(words.encode() + b"\n")
                    told += len(lines)
                    if not lines and (closed or not follow):
                        return

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((machine_address(), 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
