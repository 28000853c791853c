"""Find the API behind a URL before any load: base path, model, server version.

In:  the server's root, or its /v1 or /openai/v1 base.
Out: `TargetInfo`.  Raises TargetError where nothing answers as an OpenAI-compatible server.
"""

from __future__ import annotations

import difflib
import http.client
import json
import ssl
from dataclasses import replace
from typing import Any, Final

from kvswarm.errors import TargetError, UsageError
from kvswarm.rundir import TargetInfo
from kvswarm.stream.target import Target

BASE_PATHS: Final = ("", "/v1", "/openai/v1")
MAX_BODY_BYTES: Final = 1 << 20
OK: Final = 200
REFUSED: Final = frozenset({401, 403})


def find_target(target: Target, model: str | None, endpoint: str, timeout_s: float) -> TargetInfo:
    """Ask `/models` under each base path that the URL allows.

    A server that answers HTTP but has no /models is taken as it is, given a model's name.
    Raises TargetError (nothing there, refused) or UsageError (no such model, none named).
    """
    answered: dict[str, int] = {}
    bases = _bases(target.base_path)
    for base in bases:
        status, plain = _get_json(target, f"{base}/models", timeout_s)
        if status in REFUSED:
            raise TargetError(
                f"{target.url}: the server refused with status {status}",
                fix="Give its key with --api-key-env VAR, or a --header.",
            )
        models = _models(plain) if status == OK else None
        if models is not None:
            return TargetInfo(
                base_url=replace(target, base_path=base).url,
                model=_choose(model, models, target.url),
                endpoint=endpoint,
                server_version=_version(target, base, timeout_s),
            )
        answered[base or "/"] = status
    if model is None:
        seen = ", ".join(f"{base}/models: {status}" for base, status in answered.items())
        raise TargetError(
            f"{target.url}: answers, but lists no models ({seen})",
            fix="Check the path, or name the model with --model.",
        )
    base = bases[-1] if target.base_path else "/v1"
    return TargetInfo(base_url=replace(target, base_path=base).url, model=model, endpoint=endpoint)


def _bases(base_path: str) -> list[str]:
    if base_path.endswith("/v1"):
        return [base_path]
    return [f"{base_path}{suffix}" for suffix in ("/v1", "/openai/v1", "")]


def _choose(model: str | None, models: list[str], url: str) -> str:
    if model is None:
        if len(models) != 1:
            raise UsageError(
                f"{url} serves {len(models)} models: {', '.join(models[:8]) or 'none'}",
                fix="Name one with --model.",
            )
        return models[0]
    if model not in models:
        near = difflib.get_close_matches(model, models, n=1)
        raise UsageError(
            f"--model {model!r}: {url} does not serve it",
            fix=f"Did you mean {near[0]!r}?" if near else f"It serves: {', '.join(models[:8])}.",
        )
    return model


def _models(plain: Any) -> list[str] | None:
    data = plain.get("data") if isinstance(plain, dict) else None
    if not isinstance(data, list):
        return None
    return [str(entry["id"]) for entry in data if isinstance(entry, dict) and "id" in entry]


def _version(target: Target, base: str, timeout_s: float) -> str | None:
    root = base.removesuffix("/v1").removesuffix("/openai")
    status, plain = _get_json(target, f"{root}/version", timeout_s)
    version = plain.get("version") if status == OK and isinstance(plain, dict) else None
    return str(version) if version is not None else None


def _get_json(target: Target, path: str, timeout_s: float) -> tuple[int, Any]:
    """Status and decoded body (None where it is no JSON). Raises TargetError: nothing there."""
    connection = _open(target, timeout_s)
    try:
        connection.request("GET", path, headers={"Accept": "application/json", **target.headers})
        response = connection.getresponse()
        body = response.read(MAX_BODY_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(
            f"{target.url}: cannot be reached: {_reason(error)}", fix=_unreached_fix(error)
        ) from error
    finally:
        connection.close()
    try:
        return response.status, json.loads(body)
    except ValueError:
        return response.status, None


def _open(target: Target, timeout_s: float) -> http.client.HTTPConnection:
    if target.tls is None:
        return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    return http.client.HTTPSConnection(
        target.host, target.port, timeout=timeout_s, context=target.tls.context()
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _unreached_fix(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Give its authority with --ca-file FILE, or, for a test, --insecure."
    return "Check the URL and that the server is up; nothing was measured."
