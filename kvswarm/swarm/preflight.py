"""Find the API behind a URL before any load: base path, model, server version.

In:  the server's root, its /v1 or /openai/v1 base, or the whole URL of an endpoint.
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
from kvswarm.profiles.features import BASE
from kvswarm.profiles.model import Profile
from kvswarm.rundir import TargetInfo
from kvswarm.stream.target import Target
from kvswarm.swarm.handover import Handover

MAX_BODY_BYTES: Final = 1 << 20
OK: Final = 200
REFUSED: Final = frozenset({401, 403})
NOT_THERE: Final = frozenset({404, 405, 501})
"""What an HTTP server says to a POST where nothing takes one."""
ENDPOINT_PATHS: Final = ("/chat/completions", "/completions", "/models")


def find_target(target: Target, model: str | None, endpoint: str, timeout_s: float) -> TargetInfo:
    """Ask `/models` under each base path that the URL allows.

    A server without /models is taken where the endpoint itself is there, given a model's name.
    Raises TargetError (nothing there, refused) or UsageError (no such model, none named).
    """
    answered: dict[str, int] = {}
    bases = _bases(target.base_path)
    for base in bases:
        status, plain = _get_json(target, f"{base}/models", timeout_s)
        _check_not_refused(target, status)
        cards = _cards(plain) if status == OK else None
        if cards is not None:
            chosen = _choose(model, cards, target.url)
            return TargetInfo(
                base_url=replace(target, base_path=base).url,
                model=chosen,
                endpoint=endpoint,
                server_version=_version(target, base, timeout_s),
                models=list(cards),
                model_card=cards[chosen],
            )
        answered[f"{base}/models"] = status
    if model is None:
        raise TargetError(
            f"{target.url}: answers, but lists no models ({_seen(answered)})",
            fix="Check the path, or name the model with --model.",
        )
    base = _base_of_endpoint(target, bases, endpoint, timeout_s)
    return TargetInfo(base_url=replace(target, base_path=base).url, model=model, endpoint=endpoint)


def known_target(
    target: Target, model: str | None, profile: Profile, service: Handover | None
) -> TargetInfo:
    """The same for a profile, with what was found of the service. Raises TargetError, UsageError.

    A service that is scaled to zero is not asked, for that would wake it: what KServe says of it
    is taken.
    """
    if service is not None and service.service.asleep and model is not None:
        found = TargetInfo(base_url=target.url, model=model, endpoint=profile.endpoint)
    else:
        found = find_target(target, model, profile.endpoint, profile.timeouts.connect_s)
    found.gateway = target.gateway_url
    found.service = service.service if service is not None else None
    return found


def _bases(base_path: str) -> list[str]:
    """The base paths that a URL may mean; people also paste the whole URL of an endpoint."""
    for path in ENDPOINT_PATHS:
        if base_path.endswith(path):
            base_path = base_path.removesuffix(path)
            break
    if base_path.endswith("/v1"):
        return [base_path]
    return [f"{base_path}{suffix}" for suffix in ("/v1", "/openai/v1", "")]


def _base_of_endpoint(target: Target, bases: list[str], endpoint: str, timeout_s: float) -> str:
    """Find the base path under which requests are taken. Raises TargetError where there is none.

    An empty body is no request, so that asking costs the server nothing but a refusal.
    """
    path = "/chat/completions" if endpoint == "chat" else "/completions"
    answered: dict[str, int] = {}
    for base in bases:
        status, _ = _ask(target, "POST", f"{base}{path}", timeout_s)
        _check_not_refused(target, status)
        if status not in NOT_THERE:
            return base
        answered[f"POST {base}{path}"] = status
    raise TargetError(
        f"{target.url}: answers, but has no {endpoint} endpoint ({_seen(answered)})",
        fix="Give the server's root or its /v1 base with --url, or another --endpoint.",
    )


def _seen(answered: dict[str, int]) -> str:
    return ", ".join(f"{asked}: {status}" for asked, status in answered.items())


def _check_not_refused(target: Target, status: int) -> None:
    if status in REFUSED:
        raise TargetError(
            f"{target.url}: the server refused with status {status}",
            fix="Give its key with --api-key-env VAR, or a --header.",
        )


def check_adapters(found: TargetInfo, profile: Profile) -> None:
    """Raise UsageError where a server that lists its models lacks an adapter of the profile."""
    parts = profile.parts
    wanted = {name for part in parts for name in part.adapters} - {BASE}
    lacking = sorted(wanted - set(found.models)) if found.models else []
    if lacking:
        served = ", ".join(found.models[:8])
        raise UsageError(
            f"adapters: {found.base_url} does not serve {', '.join(lacking)}",
            fix=f"Give the names that it has, with the key adapters: {served}.",
        )


def _choose(model: str | None, cards: dict[str, dict[str, Any]], url: str) -> str:
    if model is None:
        # An adapter has its model for a parent; who names none means the model itself.
        models = [name for name, card in cards.items() if not card.get("parent")]
        if len(models) != 1:
            raise UsageError(
                f"{url} serves {len(models)} models: {', '.join(models[:8]) or 'none'}",
                fix="Name one with --model.",
            )
        return models[0]
    if model not in cards:
        near = difflib.get_close_matches(model, cards, n=1)
        raise UsageError(
            f"--model {model!r}: {url} does not serve it",
            fix=f"Did you mean {near[0]!r}?" if near else f"It serves: {', '.join([*cards][:8])}.",
        )
    return model


def _cards(plain: Any) -> dict[str, dict[str, Any]] | None:
    """What the server says of each of its models, by name; None where it lists none."""
    data = plain.get("data") if isinstance(plain, dict) else None
    if not isinstance(data, list):
        return None
    return {str(card["id"]): card for card in data if isinstance(card, dict) and "id" in card}


def _version(target: Target, base: str, timeout_s: float) -> str | None:
    root = base.removesuffix("/v1").removesuffix("/openai")
    status, plain = _get_json(target, f"{root}/version", timeout_s)
    version = plain.get("version") if status == OK and isinstance(plain, dict) else None
    return str(version) if version is not None else None


def _get_json(target: Target, path: str, timeout_s: float) -> tuple[int, Any]:
    """Status and decoded body (None where it is no JSON). Raises TargetError: nothing there."""
    status, body = _ask(target, "GET", path, timeout_s)
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


def _ask(target: Target, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of a request without a body. Raises TargetError: nothing there.

    The body of a stream is not waited for: a server that takes a request without a body is left.
    """
    connection = target.connection(timeout_s)
    try:
        headers = {"Accept": "application/json"}
        if method == "POST":
            headers["Content-Type"] = "application/json"
        connection.request(method, path, headers={**headers, **target.headers})
        response = connection.getresponse()
        return response.status, response.read(MAX_BODY_BYTES) if method == "GET" else b""
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(
            f"{target.place}: cannot be reached: {_reason(error)}", fix=_unreached_fix(error)
        ) from error
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _unreached_fix(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Give its authority with --ca-file FILE, or, for a test, --insecure."
    return "Check the URL and that the server is up; nothing was measured."
