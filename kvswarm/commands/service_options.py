"""The flags of `kvswarm run` that name a service of KServe, and what does not go with them.

In:  the command line's values.  Out: `ServiceAsked`.  Raises UsageError.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from kvswarm.errors import UsageError

if TYPE_CHECKING:
    from kvswarm.commands.load import RunRequest

COLD_TIMEOUT_S: Final = 600.0
"""An idle Knative service is scaled to zero after a minute or two, by KEDA after five."""
KINDS: Final = ("InferenceService", "LLMInferenceService")
OPTIONS: Final = (
    click.option("--namespace", metavar="N", help="Namespace of the service of KServe to measure."),
    click.option("--service", metavar="S", help="Name of the service of KServe to measure."),
    click.option(
        "--kind", type=click.Choice(KINDS), help="Kind of the service, where both have its name."
    ),
    click.option("--context", metavar="C", help="Entry of the kubeconfig; default: its current."),
    click.option(
        "--token-from-kubeconfig",
        is_flag=True,
        help="Send the kubeconfig's token to the service, over https alone unless --insecure.",
    ),
    click.option(
        "--cold", is_flag=True, help="Begin when the service is scaled to zero, and not before."
    ),
    click.option(
        "--cold-timeout",
        type=click.FloatRange(min=0),
        metavar="S",
        help="Seconds to wait for that; default: 600.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAsked:
    """A service of KServe, as it was asked for."""

    namespace: str
    name: str
    kind: str | None = None
    context: str | None = None
    token_from_kubeconfig: bool = False
    cold_within_s: float | None = None
    """Within what time it must be scaled to zero; None: it need not."""

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.kind or 'service'} {self.name} in namespace {self.namespace}"


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def service_asked(values: MutableMapping[str, Any]) -> ServiceAsked | None:
    """Take the flags out of the values. Raises UsageError where one lacks another."""
    taken = {
        name: values.pop(name, None)
        for name in (
            "namespace",
            "service",
            "kind",
            "context",
            "token_from_kubeconfig",
            "cold",
            "cold_timeout",
        )
    }
    namespace, service = taken["namespace"], taken["service"]
    if service is None:
        given = [f"--{name.replace('_', '-')}" for name, value in taken.items() if value]
        if given:
            raise UsageError(
                f"{given[0]}: there is no --service that it is of",
                fix="Name a service of KServe with --namespace N --service S.",
            )
        return None
    if namespace is None:
        raise UsageError(
            f"--service {service}: in which namespace?", fix="Name it with --namespace N."
        )
    return ServiceAsked(
        namespace=namespace,
        name=service,
        kind=taken["kind"],
        context=taken["context"],
        token_from_kubeconfig=bool(taken["token_from_kubeconfig"]),
        cold_within_s=_cold_within_s(taken["cold_timeout"], cold=bool(taken["cold"])),
    )


def _cold_within_s(timeout_s: float | None, *, cold: bool) -> float | None:
    if not cold and timeout_s is not None:
        raise UsageError("--cold-timeout: goes with --cold", fix="Add --cold, or leave it out.")
    if not cold:
        return None
    return COLD_TIMEOUT_S if timeout_s is None else timeout_s


def check_service(request: RunRequest) -> None:
    """Refuse what does not go with a service. Raises UsageError."""
    for flag, given in (("--url", request.url), ("--serve", request.serve)):
        if given is not None:
            raise UsageError(
                f"--service with {flag}: two targets of one run", fix="Leave one of the two out."
            )
    asked = request.service
    if asked is not None and asked.token_from_kubeconfig and request.values.get("api_key_env"):
        raise UsageError(
            "--token-from-kubeconfig with --api-key-env: two tokens for one service",
            fix="Leave one of the two out.",
        )


def without_gateway(request: RunRequest) -> RunRequest:
    """The same without --gateway."""
    return replace(request, values={**request.values, "gateway": None})
