"""Headers and keys: from the environment to the target, and to nowhere else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from kvswarm.errors import UsageError
from kvswarm.stream.target import TLS, Target, check_header
from kvswarm.swarm.plan import Plan

HEADERS_ENV: Final = "KVSWARM_HEADERS"
"""JSON object of header names to values, for every process of a run."""
HEADERS_FORM: Final = "not a JSON object of names to values"
HEADERS_FIX: Final = 'Set it to such as {"X-Tenant": "blue"}, or unset it.'
SECRET_CHARS: Final = 6
"""Parts of a header's value from this length on are masked; shorter ones are words of any text."""


def parse_headers(given: Sequence[str]) -> dict[str, str]:
    """Read `Name: value` flags. Raises UsageError, which never shows a value."""
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(
                "--header: needs the form 'Name: value'",
                fix="Such as --header 'X-Tenant: blue'. For API keys use --api-key-env.",
            )
        check_header(name.strip(), value.strip())
        headers[name.strip()] = value.strip()
    return headers


def headers_of(
    api_key_env: str | None,
    environ: Mapping[str, str] = os.environ,
    *,
    flags: Sequence[str] = (),
) -> dict[str, str]:
    """All headers of a run; what comes later here replaces what came before, whatever its case.

    KVSWARM_HEADERS, then `--header` flags, then the bearer token of --api-key-env. A process that
    sends has the flags in its KVSWARM_HEADERS. Raises UsageError.
    """
    try:
        headers = json.loads(environ.get(HEADERS_ENV) or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(f"{HEADERS_ENV}: {HEADERS_FORM}", fix=HEADERS_FIX) from error
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise UsageError(f"{HEADERS_ENV}: {HEADERS_FORM}", fix=HEADERS_FIX)
    headers = _replaced(headers, parse_headers(flags))
    if api_key_env is not None:
        key = environ.get(api_key_env, "").strip()
        if not key:
            raise UsageError(
                f"--api-key-env {api_key_env}: no such variable, or it is empty",
                fix=f"Set it, such as: export {api_key_env}=...",
            )
        headers = _replaced(headers, {"Authorization": f"Bearer {key}"})
    return headers


def _replaced(headers: Mapping[str, str], by: Mapping[str, str]) -> dict[str, str]:
    """Lay headers over others: HTTP knows no case in names, and none must be sent twice."""
    names = {name.lower() for name in by}
    return {name: value for name, value in headers.items() if name.lower() not in names} | {**by}


def targets_of(plan: Plan) -> tuple[Target, ...]:
    """The targets of a plan by arm, with the secrets of this process's environment.

    Raises UsageError where it lacks some that the master has.
    """
    headers = headers_of(plan.api_key_env)
    own = {name.lower() for name in headers}
    missing = [name for name in plan.header_names if name.lower() not in own]
    if missing:
        raise UsageError(
            f"{HEADERS_ENV}: lacks {', '.join(missing)}, which the master sends",
            fix=f"Set {HEADERS_ENV} in the environment of every worker as in the master's.",
        )
    tls = TLS(ca_file=plan.ca_file, insecure=plan.insecure)
    target = Target.of(plan.base_url, headers=headers, tls=tls, gateway=plan.gateway)
    if plan.other is None:
        return (target,)
    return (target, Target.of(plan.other.base_url, headers=headers, tls=tls, gateway=plan.gateway))


class Mask:
    """Takes the values of headers out of text, such as a server's error that quotes a request."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        values = set(headers.values())
        words = {word for value in values for word in value.split()}
        parts = {part for word in words for part in re.split(r"[;,=]", word)}
        wanted = (values | words | parts) - {"Bearer"}
        self._secrets = sorted((s for s in wanted if len(s) >= SECRET_CHARS), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Give the text without secrets, nor the beginning of one where the text was cut off."""
        cut = max((_overlap(text, secret) for secret in self._secrets), default=0)
        if cut >= SECRET_CHARS:
            text = f"{text[:-cut]}***"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _overlap(text: str, secret: str) -> int:
    """How many characters at the end of the text are the beginning of the secret, or all of it."""
    return next((n for n in range(len(secret), 0, -1) if text.endswith(secret[:n])), 0)
