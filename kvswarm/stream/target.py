"""Where requests go, and the bytes of a request.

In:  a URL, headers, TLS wishes.  Out: `Target`, and `Target.request_bytes`.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from kvswarm import __version__
from kvswarm.errors import UsageError

FRAMING_HEADERS = frozenset(
    {"content-length", "transfer-encoding", "connection", "accept-encoding", "content-type"}
)

TRACE_HEADER = "traceparent"
GATEWAY_FIX = "Give the gateway's root, such as http://203.0.113.7 or https://203.0.113.7:8443."


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to trust an https target: the system's CAs, CAs of a file, or, on demand, anything."""

    ca_file: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """Make the client's context. Raises UsageError where the CA file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--ca-file {self.ca_file}: cannot be used: {error}",
                fix="Give a PEM file with the certificates of the authority.",
            ) from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One HTTP/1.1 server. `base_path` is what `/chat/completions` hangs on, such as `/v1`.

    `host` is what the Host header and TLS name. Connections go there, or, where there is a
    `gateway`, to that one's host and port.
    """

    host: str
    port: int
    tls: TLS | None = None
    base_path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    gateway: tuple[str, int] | None = None

    @classmethod
    def of(  # noqa: PLR0913 - one target
        cls,
        url: str,
        headers: Mapping[str, str] | None = None,
        tls: TLS | None = None,
        *,
        gateway: str | None = None,
        flag: str = "--url",
        fix: str = "Give the server's root, such as http://127.0.0.1:8000, or its /v1 base.",
    ) -> Target:
        """Read an http or https URL. Raises UsageError for anything else, which names `flag`.

        `gateway`: the URL of what connections go to, whose scheme must be the same.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{flag} {url!r}: {error}", fix=fix) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"{flag} {url!r}: not an http or https URL", fix=fix)
        if parts.query or parts.fragment or parts.username is not None:
            raise UsageError(
                f"{flag}: that of {parts.hostname} must have no user, query or fragment",
                fix="Send credentials with --api-key-env or --header.",
            )
        secure = parts.scheme == "https"
        checked = dict(headers or {})
        for name, value in checked.items():
            check_header(name, value)
        return cls(
            host=parts.hostname,
            port=port or (443 if secure else 80),
            tls=(tls or TLS()) if secure else None,
            base_path=parts.path.rstrip("/"),
            headers=checked,
            gateway=_address_of(gateway, parts.scheme) if gateway is not None else None,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that connections go to."""
        return self.gateway or (self.host, self.port)

    @property
    def gateway_url(self) -> str | None:
        """The gateway as a URL, as `of` takes it."""
        if self.gateway is None:
            return None
        host, port = self.gateway
        return replace(self, host=host, port=port, gateway=None, base_path="").url

    @property
    def place(self) -> str:
        """Where it is, for messages: its URL, and the gateway that leads there."""
        return self.url if self.gateway is None else f"{self.url} by {self.gateway_url}"

    @property
    def url(self) -> str:
        """The target as a URL, without headers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """Make a connection, not yet open, for what is no load. Raises UsageError: its CA file."""
        if self.tls is None:
            return _Plain(self, timeout_s)
        return _Secure(self, timeout_s, self.tls.context())

    def head_bytes(self, path: str) -> bytes:
        """Everything of a POST to `base_path + path` before its content length."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default_port = 443 if self.tls else 80
        lines = {
            "Host": host if self.port == default_port else f"{host}:{self.port}",
            "User-Agent": f"kvswarm/{__version__}",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        given = {name.lower() for name in self.headers}
        kept = {name: value for name, value in lines.items() if name.lower() not in given}
        text = "".join(f"{name}: {value}\r\n" for name, value in {**kept, **self.headers}.items())
        return f"POST {self.base_path}{path} HTTP/1.1\r\n{text}".encode("latin-1")


class _Plain(http.client.HTTPConnection):
    """To the target's address, whatever its host."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self._address = target.address

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.create_connection(self._address, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Secure(_Plain):
    """The same over TLS: the certificate must be the host's."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, target: Target, timeout_s: float, context: ssl.SSLContext) -> None:
        super().__init__(target, timeout_s)
        self._context = context

    def connect(self) -> None:
        """Connect. Raises OSError."""
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


def _address_of(gateway: str, scheme: str) -> tuple[str, int]:
    """Host and port of a gateway. Raises UsageError, also where it speaks another scheme."""
    target = Target.of(gateway, flag="--gateway", fix=GATEWAY_FIX)
    if target.base_path:
        raise UsageError(
            f"--gateway {gateway}: must have no path: that of the target is sent", fix=GATEWAY_FIX
        )
    if (target.tls is not None) != (scheme == "https"):
        raise UsageError(
            f"--gateway {gateway}: the target is {scheme}, and the gateway is not",
            fix="Give both with the same scheme.",
        )
    return target.host, target.port


def check_header(name: str, value: str) -> None:
    """Refuse what would break the request's framing. Raises UsageError; never shows the value."""
    token = name.replace("-", "").replace("_", "").replace(".", "")
    if not token.isascii() or not token.isalnum() or any(c in value for c in "\r\n\0"):
        raise UsageError(
            f"--header {name!r}: not a header that HTTP can carry", fix="Write 'Name: value'."
        )
    if name.lower() in FRAMING_HEADERS:
        raise UsageError(f"--header {name!r}: kvswarm sets this header itself", fix="Leave it out.")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise UsageError(f"--header {name!r}: its value is not latin-1") from error


def check_untraced(headers: Mapping[str, str]) -> None:
    """Refuse a trace of the user's own beside ours. Raises UsageError; never shows the value."""
    if any(name.lower() == TRACE_HEADER for name in headers):
        raise UsageError(
            f"--header '{TRACE_HEADER}': with --traceparent each request has one of its own",
            fix="Leave out one of the two.",
        )


def request_bytes(head: bytes, body: bytes, request_id: str, trace_id: str | None = None) -> bytes:
    """The whole request: `head` of Target.head_bytes, an id that logs can show, the body.

    With a `trace_id` of 32 hex digits it begins a trace: a sampled one, with a new span as root.
    Source: W3C Trace Context, 3.2.
    """
    tail = f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    if trace_id is not None:
        tail = f"{TRACE_HEADER}: 00-{trace_id}-{secrets.token_hex(8)}-01\r\n{tail}"
    return head + tail.encode("latin-1") + body
