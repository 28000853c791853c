"""The target of `kvswarm run --service`: found in its cluster, and its pods led to the recorder.

In:  `RunRequest` with its `ServiceAsked`.
Out: the request with URL, gateway, model and token of the service, and `Handover`, for as long as
the run lasts. The credentials of the kubeconfig stay in this process: those that make the load get
the path of a list of pods, which this process answers.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console

from kvswarm.commands.load import RunRequest
from kvswarm.commands.service_options import ServiceAsked
from kvswarm.errors import TargetError, UsageError
from kvswarm.kserve.addresses import Address, address_of
from kvswarm.kserve.asleep import Awaited, wait_until_asleep
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.found import FoundService
from kvswarm.kserve.node_labels import with_node_labels
from kvswarm.kserve.refusals import ClusterError, NotAllowedError
from kvswarm.kserve.relay import Relay, Scraped, page_of
from kvswarm.kserve.services import find_service
from kvswarm.kserve.timeline import Followed, Timeline
from kvswarm.profiles.model import Profile
from kvswarm.rundir import PodInfo, RunDir, ServiceInfo
from kvswarm.swarm.handover import Handover

INSIDE_ENV: Final = "KUBERNETES_SERVICE_HOST"
"""Set by Kubernetes in every pod: the address of its API server."""
OWN_NAME: Final = "kubernetes.default.svc."
"""Its name inside the cluster, or the beginning of it."""
UNSEEN: Final = "the metrics of its pods are not recorded"


@dataclass(frozen=True, slots=True)
class Measured:
    """A service, the cluster that it is in, and where requests to it go."""

    cluster: Cluster
    service: FoundService
    address: Address


@contextlib.contextmanager
def service_target(
    request: RunRequest,
    profile: Profile,
    run_dir: RunDir,
    console: Console,
) -> Iterator[RunRequest]:
    """Find the service, and give the request that measures it. Raises ClusterError, UsageError.

    What becomes of its pods is recorded around the `yield`.
    """
    asked = request.service
    assert asked is not None  # noqa: S101 - what this is for

    def say(line: str) -> None:
        console.print(f"Service: {line}", soft_wrap=True, markup=False, highlight=False)

    if asked.cold_within_s is not None:
        await_cold(asked, asked.cold_within_s, say)
    measured = find_measured(asked, request.values.get("gateway"))
    service = measured.service
    if asked.cold_within_s is not None and not service.asleep:
        raise TargetError(
            f"--cold: {asked.shown} was woken again", fix="Keep other requests away from it."
        )
    notes = list(service.notes)
    with contextlib.ExitStack() as stack:
        pods_url = None
        why_not = _why_unseen(measured)
        if why_not is None:
            scraped = Scraped(
                cluster=measured.cluster,
                namespace=service.namespace,
                selector=service.selector,
                inside=is_inside(measured.cluster.server),
            )
            pods_url = stack.enter_context(Relay(scraped, service.pods or ())).url
        elif service.pods is not None:
            notes.append(why_not)
        for line in (_told(measured), *notes, *cold_hints(measured, profile)):
            say(line)
        followed = Followed(
            namespace=service.namespace, service=service.name, labels=service.selector
        )
        stack.enter_context(_recorded(measured.cluster, followed, run_dir, say))
        handover = Handover(service=info_of(measured), pods_url=pods_url, notes=notes)
        yield with_service(request, measured, handover)


@contextlib.contextmanager
def _recorded(
    cluster: Cluster, followed: Followed, run_dir: RunDir, say: Callable[[str], None]
) -> Iterator[None]:
    """Record what becomes of the pods; leave no record of a run that did not begin."""
    try:
        with Timeline(cluster, followed, run_dir.cluster_log, say):
            yield
    finally:
        if not run_dir.run_json.exists():
            run_dir.cluster_log.unlink(missing_ok=True)


def await_cold(asked: ServiceAsked, within_s: float, say: Callable[[str], None]) -> None:
    """Wait until the service has no pods.

    Raises TargetError where it never will, or not in time; ClusterError.
    """
    cluster = Cluster.connect(asked.context)
    service = find_service(cluster, asked.namespace, asked.name, asked.kind)
    if not service.may_sleep:
        raise TargetError(
            f"--cold: {asked.shown} is never scaled to zero",
            fix="Make it with --min-replicas 0, which --autoscaler kpa and keda can do.",
        )
    awaited = Awaited(
        namespace=service.namespace,
        service=service.name,
        labels=service.selector,
        timeout_s=within_s,
    )
    wait_until_asleep(cluster, awaited, say)


def cold_hints(measured: Measured, profile: Profile) -> list[str]:
    """What a person must know who measures a service that is scaled to zero."""
    if not measured.service.asleep:
        return []
    hint = (
        "the first request wakes it; one that waits for more than timeouts.first_byte_s, "
        f"{profile.timeouts.first_byte_s:g} s, is given up"
    )
    if profile.load.duration_s is not None:
        hint += (
            f"; what is in flight drain_s, {profile.load.drain_s:g} s, after the end of the load "
            "is cancelled"
        )
    return [f"{hint}. --set changes that."]


def is_inside(server: str) -> bool:
    """Whether this process runs in a pod of the cluster that has this API server.

    A pod of another cluster, such as one that runs tests, may have a kubeconfig for it.
    """
    own = os.environ.get(INSIDE_ENV)
    host = urlsplit(server).hostname or ""
    return own is not None and (host == own or f"{host}.".startswith(OWN_NAME))


def find_measured(asked: ServiceAsked, gateway: str | None) -> Measured:
    """Find the service and the way to it.

    Raises ClusterError; TargetError where it is not ready, unless it is scaled to zero, or no way
    leads to it.
    """
    cluster = Cluster.connect(asked.context)
    service = find_service(cluster, asked.namespace, asked.name, asked.kind)
    if not service.ready and (service.failed or not service.asleep):
        name = f"{service.kind.lower()}/{service.name}"
        raise TargetError(
            f"{name} in namespace {service.namespace} is not ready: {service.why_not_ready}",
            fix=f"See `kubectl describe -n {service.namespace} {name}`; wait until it is ready.",
        )
    if service.pods:
        service = replace(service, pods=with_node_labels(cluster, service.pods))
    inside = is_inside(cluster.server)
    address = address_of(service, inside=inside, gateway=gateway, resolves=_resolves)
    return Measured(cluster, service, address)


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def _why_unseen(measured: Measured) -> str | None:
    """Why the pods' metrics cannot be read, as far as that can be known now; None: they can."""
    service = measured.service
    if service.pods is None:
        return UNSEEN
    pod = next((each for each in service.pods if each.running and each.counts), None)
    if pod is None or is_inside(measured.cluster.server):
        return None
    try:
        page_of(measured.cluster, service.namespace, pod)
    except NotAllowedError as error:
        return f"{UNSEEN}: {error}"
    except ClusterError:
        return None  # the recorder tells, if it stays so
    return None


def _told(measured: Measured) -> str:
    """What was found, in a line."""
    service, address = measured.service, measured.address
    parts = [f"{service.kind} {service.name} in namespace {service.namespace} at {address.url}"]
    if address.gateway is not None:
        parts.append(f"by {address.gateway}")
    if service.serving.image is not None:
        parts.append(f"image {service.serving.image}")
    if service.asleep:
        parts.append("scaled to zero")
    elif service.pods is not None:
        ready = sum(pod.ready for pod in service.pods)
        parts.append(f"{ready} ready pod" + ("s" if ready != 1 else ""))
    return ", ".join(parts)


def info_of(measured: Measured) -> ServiceInfo:
    """The service as run.json has it."""
    service = measured.service
    serving = service.serving
    pods = None
    if service.pods is not None:
        pods = [
            PodInfo(
                name=pod.name,
                node=pod.node,
                image=pod.image,
                ready=pod.ready,
                restarts=pod.restarts,
                gpus=pod.gpus,
                gpu_resource=pod.gpu_resource,
                cpus=pod.cpus,
                memory_gib=pod.memory_gib,
                labels=dict(pod.labels),
            )
            for pod in service.pods
        ]
    return ServiceInfo(
        kind=service.kind,
        namespace=service.namespace,
        name=service.name,
        cluster=measured.cluster.server,
        mode=service.mode,
        backend=serving.backend,
        runtime=serving.runtime,
        image=serving.image,
        version=serving.version,
        flags=list(serving.flags),
        min_replicas=service.min_replicas,
        asleep=service.asleep,
        pods=pods,
        replica=PodInfo(name=service.name, **service.machine)
        if service.machine and not pods
        else None,
    )


def with_service(request: RunRequest, measured: Measured, handover: Handover) -> RunRequest:
    """The request with all that was found. Raises UsageError for a token that cannot be sent.

    A server that runs is asked for its model, unless its command line names it; of one that does
    not run yet, the service's name is taken.
    """
    service, address = measured.service, measured.address
    model = request.values.get("model") or service.model
    if model is None and service.asleep:
        model = service.name
    headers = request.headers
    if request.service is not None and request.service.token_from_kubeconfig:
        insecure = bool(request.values.get("insecure"))
        headers = (*headers, f"Authorization: Bearer {_token(measured, insecure=insecure)}")
    return replace(
        request,
        url=address.url,
        headers=headers,
        values={**request.values, "gateway": address.gateway, "model": model},
        handover=handover,
    )


def _token(measured: Measured, *, insecure: bool) -> str:
    """The kubeconfig's token. Raises UsageError where there is none, or it would go unprotected."""
    url = measured.address.url
    if urlsplit(url).scheme != "https" and not insecure:
        raise UsageError(
            f"--token-from-kubeconfig: {url} is not https, and the token is as good as a password "
            "to the cluster",
            fix="Give an https --gateway, or --insecure to send it all the same.",
        )
    token = measured.cluster.token()
    if token is None:
        raise UsageError(
            "--token-from-kubeconfig: its user has no token, such as one who logs in with a "
            "certificate",
            fix="Make one with `kubectl create token ACCOUNT`, and name its variable with "
            "--api-key-env.",
        )
    return token
