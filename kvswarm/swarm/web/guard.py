"""Who may use the web UI: a login of its own, no other site's pages, and no CORS.

In:  KVSWARM_WEB_USER with KVSWARM_WEB_PASSWORD_FILE or KVSWARM_WEB_PASSWORD; each request.
Out: 401, 403, or what the application answers, less Access-Control-*: Locust lets any site read.

It stands before the whole application, so that no route, of ours, of Locust's or of a user's own
locustfile, can be left out. Basic authentication (RFC 7617): over TLS (--tls-cert) it is as safe as
its password; over plain HTTP whoever listens on the network has it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kvswarm.errors import UsageError

logger = logging.getLogger(__name__)

USER_ENV: Final = "KVSWARM_WEB_USER"
PASSWORD_ENV: Final = "KVSWARM_WEB_PASSWORD"  # noqa: S105 - the name of a variable
FILE_ENV: Final = "KVSWARM_WEB_PASSWORD_FILE"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CHALLENGE: Final = ("WWW-Authenticate", 'Basic realm="kvswarm", charset="UTF-8"')
Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A user and a password."""

    user: str
    password: str

    def opened_by(self, header: str) -> bool:
        """Whether an Authorization header holds this login; takes as long for any wrong one."""
        scheme, _, packed = header.partition(" ")
        try:
            given = base64.b64decode(packed.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        same = hmac.compare_digest(given, f"{self.user}:{self.password}".encode())
        return scheme.lower() == "basic" and same


def login_of(environ: Mapping[str, str]) -> Login | None:
    """The login that the environment asks for; None where it asks for none.

    Raises UsageError where only half of it is given, or it cannot be used.
    """
    user, password, file = (environ.get(name, "") for name in (USER_ENV, PASSWORD_ENV, FILE_ENV))
    if password and file:
        raise UsageError(f"{PASSWORD_ENV} and {FILE_ENV} are both set", fix="Unset one of them.")
    if file:
        password = _password_in(Path(file))
    if not user and not password:
        return None
    if not user:
        raise UsageError(
            f"there is a password for the web UI, but no {USER_ENV}",
            fix=f"Set it, such as: export {USER_ENV}=admin",
        )
    if not password:
        raise UsageError(
            f"{USER_ENV} is set, but there is no password: the web UI would be open",
            fix=f"Set {FILE_ENV} to a file that holds it, or {PASSWORD_ENV}.",
        )
    if ":" in user:
        raise UsageError(f"{USER_ENV}: a colon cannot be part of it", fix="Choose another name.")
    return Login(user, password)


def _password_in(path: Path) -> str:
    try:
        password = path.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{FILE_ENV}: {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            fix="Give the path of a text file that holds the password.",
        ) from error
    if not password:
        raise UsageError(f"{FILE_ENV}: {path} is empty", fix="Write the password into it.")
    return password


class Guard:
    """The application behind the login."""

    def __init__(self, application: Application, login: Login | None) -> None:
        self._application = application
        self._login = login

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer as a WSGI application."""
        if self._login is not None and not self._login.opened_by(
            environ.get("HTTP_AUTHORIZATION", "")
        ):
            return _refuse(start_response, "401 Unauthorized", CHALLENGE)
        if environ["REQUEST_METHOD"] not in SAFE_METHODS and _is_of_another_site(environ):
            logger.warning("a page of %s tried to use the web UI", environ.get("HTTP_ORIGIN"))
            return _refuse(start_response, "403 Forbidden")

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [
                (name, value)
                for name, value in headers
                if not name.lower().startswith("access-control-")
            ]
            return start_response(status, [*kept, ("X-Content-Type-Options", "nosniff")], *more)

        return self._application(environ, start)


def _refuse(start_response: Any, status: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    body = f"{status}\n".encode()
    plain = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, [*plain, *headers])
    return [body]


def _is_of_another_site(environ: Environ) -> bool:
    """Whether a page of another site sent this: browsers send forms anywhere, with passwords.

    `Sec-Fetch-Site` is the browser's own word; where it is missing (plain HTTP to another machine),
    the page's origin must be this host. Programs that are no browsers send neither.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site in {"cross-site", "same-site"}
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return False
    hosts = {environ.get("HTTP_HOST"), environ.get("HTTP_X_FORWARDED_HOST")}
    return urlsplit(origin).netloc not in hosts
