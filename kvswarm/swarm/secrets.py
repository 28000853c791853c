"""Headers and keys: from the environment to the target, and to nowhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Final

from kvswarm.errors import UsageError
from kvswarm.stream.target import TLS, Target, check_header
from kvswarm.swarm.plan import Plan

HEADERS_ENV: Final = "KVSWARM_HEADERS"
"""JSON object of header names to values, for every process of a run."""


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


def headers_of(api_key_env: str | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """All headers of a run: those in KVSWARM_HEADERS and the bearer token. Raises UsageError."""
    try:
        headers = json.loads(environ.get(HEADERS_ENV, "{}"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{HEADERS_ENV}: not a JSON object of names to values") from error
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise UsageError(f"{HEADERS_ENV}: not a JSON object of names to values")
    if api_key_env is not None:
        key = environ.get(api_key_env, "").strip()
        if not key:
            raise UsageError(
                f"--api-key-env {api_key_env}: no such variable, or it is empty",
                fix=f"Set it, such as: export {api_key_env}=...",
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def target_of(plan: Plan) -> Target:
    """The target of a plan, with the secrets of this process's environment."""
    return Target.of(
        plan.base_url,
        headers=headers_of(plan.api_key_env),
        tls=TLS(ca_file=plan.ca_file, insecure=plan.insecure),
    )
