"""Where requests go, and the bytes of a request.

In:  a URL, headers, TLS wishes.  Out: `Target`, and `Target.request_bytes`.
"""

from __future__ import annotations

import http.client
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kvswarm import __version__
from kvswarm.errors import UsageError

FRAMING_HEADERS = frozenset(
    {"content-length", "transfer-encoding", "connection", "accept-encoding", "content-type"}
)

TRACE_HEADER = "traceparent"


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
    """One HTTP/1.1 server. `base_path` is what `/chat/completions` hangs on, such as `/v1`."""

    host: str
    port: int
    tls: TLS | None = None
    base_path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        url: str,
        headers: Mapping[str, str] | None = None,
        tls: TLS | None = None,
        *,
        flag: str = "--url",
        fix: str = "Give the server's root, such as http://127.0.0.1:8000, or its /v1 base.",
    ) -> Target:
        """Read an http or https URL. Raises UsageError for anything else, which names `flag`."""
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
        )

    @property
    def url(self) -> str:
        """The target as a URL, without headers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """Make a connection, not yet open, for what is no load. Raises UsageError: its CA file."""
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        context = self.tls.context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)

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
