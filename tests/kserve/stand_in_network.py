"""What stands before and beside the pods of a stand-in: a service's address, a node's log endpoint.

In:  which pods are ready, and what containers wrote.
Out: `Front`, which spreads connections over ready pods, and holds them where there is none yet;
     `Kubelet`, the HTTPS endpoint that an API server reads a container's log from.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import psutil
import trustme

CHUNK_BYTES = 65536
Logs = Callable[[str, str, bool], list[str] | None]
"""The lines of (pod, container, of the instance before the last restart); None: there is none."""


def machine_address() -> str:
    """This machine's first IPv4 address that is no loopback: an API server's proxy refuses those."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return each.address
    raise AssertionError("this machine has no address but loopback")


class Front:
    """A service's address. `choose` gives a ready pod's port, or waits; None: the service is gone."""

    def __init__(self, choose: Callable[[], int | None]) -> None:
        self._choose = choose
        self._listener = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - as a Service
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="front").start()

    def close(self) -> None:
        """Listen no more, and cut what is connected."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut what is connected, and go on listening."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(client,), daemon=True, name="carry").start()

    def _carry(self, client: socket.socket) -> None:
        self._open.add(client)
        with contextlib.suppress(OSError), client:
            port = self._choose()
            if port is not None:
                with socket.create_connection(("127.0.0.1", port)) as server:
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _pass_on(client, server)
        self._open.discard(client)


def _pass_on(client: socket.socket, server: socket.socket) -> None:
    """Both ways, until one side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ, server)
        ready.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in ready.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                piece = source.recv(CHUNK_BYTES)
                if not piece:
                    return
                key.data.sendall(piece)


class Kubelet:
    """`GET /containerLogs/NAMESPACE/POD/CONTAINER` over TLS, as a kubelet answers an API server."""

    def __init__(self, logs: Logs) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
                _, _, _, pod, container = asked.path.split("/")
                lines = logs(pod, container, query.get("previous") == "true")
                status = 400 if lines is None else 200
                if lines is None:
                    lines = [
                        f'previous terminated container "{container}" in pod "{pod}" not found'
                    ]
                body = "".join(
                    f"{line}\n" for line in lines[-int(query.get("tailLines", "1000")) :]
                )
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104 - as a node's
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = trustme.CA().issue_cert(machine_address())
        with TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(certificate.cert_chain_pems[0].bytes())
            key.write_bytes(certificate.private_key_pem.bytes())
            context.load_cert_chain(chain, key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True, name="kubelet"
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
