"""An ingress gateway: one address for many hosts, which finds the server by the name it is asked for.

In:  routes from host to port; for https certificates by host.
Out: what each connection named: `Gateway.seen`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import trustme

HOST = re.compile(rb"^host:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


class Gateway:
    """Carries each connection to the server of the host that its first request names."""

    def __init__(self, routes: Mapping[str, int], authority: trustme.CA | None = None) -> None:
        self._routes = dict(routes)
        self.seen: list[tuple[str | None, str]] = []
        """For each connection the server name of TLS, and the host of its first request."""
        self.heads: list[dict[str, str]] = []
        """The headers of each of these requests, by their names in small letters."""
        self._contexts = {
            host: _context(authority, host) for host in routes if authority is not None
        }
        self._default = _context(authority, "gateway.invalid") if authority is not None else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if authority is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._carrying: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Gateway:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listen no more, and end what is connected."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for thread, client in self._carrying.items():
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,), daemon=True)
            self._carrying[thread] = client
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(client)
            name: str | None = None
            if self._default is not None:
                client, name = self._secured(client)
                stack.enter_context(client)
                self._carrying[threading.current_thread()] = client
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            found = HOST.search(head)
            host = found[1].decode() if found else ""
            self.seen.append((name, host))
            lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")]
            self.heads.append({key.lower(): value for key, colon, value in lines if colon})
            port = self._routes.get(host)
            if port is None:
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.sendall(head)
                back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                back.start()
                _pass_on(client, server)
                back.join()

    def _secured(self, client: socket.socket) -> tuple[ssl.SSLSocket, str | None]:
        """End TLS with the certificate of the host that the client names."""
        names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            names.append(name)
            connection.context = self._contexts.get(name or "", self._default)  # type: ignore[assignment]

        context.sni_callback = choose
        secured = context.wrap_socket(client, server_side=True)
        return secured, names[0] if names else None


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends; the other way ends with it."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def authority_file(folder: Path) -> tuple[trustme.CA, Path]:
    """An authority, and the file that clients trust it by."""
    authority = trustme.CA()
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path
