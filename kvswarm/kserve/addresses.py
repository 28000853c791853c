"""Where requests to a service go: its URL, its address inside the cluster, or by a gateway.

In:  `FoundService`, and where this process is.  Out: `Address`.
Raises TargetError where no way leads to the service from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from kvswarm.errors import TargetError
from kvswarm.kserve.found import FoundService

USUAL_PATH: Final = "/v1"
KNATIVE_FIX: Final = (
    "Find its address with `kubectl get service -A | grep -E 'istio-ingressgateway|kourier'`, and"
)
STANDARD_FIX: Final = (
    "Find its address with `kubectl get gateway -A` (or `kubectl get ingress -A`), and"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A URL as the service has it, and the gateway that connections go to, if any."""

    url: str
    gateway: str | None


def address_of(
    service: FoundService, *, inside: bool, gateway: str | None, resolves: Callable[[str], bool]
) -> Address:
    """Choose the address. `inside` the cluster, `resolves`: whether this machine knows a host."""
    name = f"{service.kind.lower()}/{service.name}"
    # Of a server that runs, what is not known here is asked; one that sleeps must not be woken.
    api_path = service.serving.api_path or (USUAL_PATH if service.asleep else None)
    if gateway is None and inside and service.local_url is not None:
        return Address(url=with_path(service.local_url, api_path), gateway=None)
    if service.url is None:
        raise TargetError(
            f"{name} in namespace {service.namespace} has no URL outside the cluster",
            fix="Run inside the cluster, or forward a port to it and give that with --url.",
        )
    url = with_path(service.url, api_path)
    if gateway is not None:
        # A gateway may end TLS for services whose own URLs say http.
        scheme = urlsplit(gateway).scheme or "http"
        return Address(url=urlunsplit(urlsplit(url)._replace(scheme=scheme)), gateway=gateway)
    host = urlsplit(url).hostname or ""
    if not resolves(host):
        raise TargetError(
            f"{name} is at {service.url}, and {host} has no address that this machine knows",
            fix=f"{_gateway_fix(service)} give it with --gateway http://ADDRESS: requests go "
            f"there, with Host: {host}.",
        )
    return Address(url=url, gateway=None)


def with_path(url: str, api_path: str | None) -> str:
    """Lay what the API hangs on behind a URL's own path, unless that ends in it."""
    url = url.rstrip("/")
    if api_path is None or urlsplit(url).path.endswith("/v1"):
        return url
    return f"{url}{api_path}"


def _gateway_fix(service: FoundService) -> str:
    if service.gateways:
        namespace, _, name = service.gateways[0].partition("/")
        return (
            f"Find its gateway's address with `kubectl get gateway -n {namespace} {name}` "
            f"(and its Service with `kubectl get service -n {namespace}`), and"
        )
    return KNATIVE_FIX if service.mode == "Knative" else STANDARD_FIX
