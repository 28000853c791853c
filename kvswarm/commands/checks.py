"""What a person can get wrong about a run, found before anything is made or sent.

In:  `RunRequest`.  Out: the profile; after that the target, as it answers.
"""

from __future__ import annotations

import socket
from dataclasses import replace

from kvswarm.analysis.baseline import check_same_workload
from kvswarm.commands.load import RunRequest
from kvswarm.commands.serve import server_command
from kvswarm.commands.service_options import check_service, without_gateway
from kvswarm.errors import UsageError
from kvswarm.profiles.load import Written, load_written
from kvswarm.profiles.model import Profile
from kvswarm.rundir import new_run_dir
from kvswarm.stream.target import TLS, Target, check_untraced
from kvswarm.swarm.interleave import alternation, other_target
from kvswarm.swarm.options import cannot_listen, metrics_address, overrides_of
from kvswarm.swarm.preflight import check_adapters, known_target
from kvswarm.swarm.secrets import headers_of
from kvswarm.telemetry.sources import sources_of
from kvswarm.workload.workload import open_workload


def written_of(request: RunRequest) -> Written:
    """Load the profile as the flags refine it. Raises ProfileError or UsageError."""
    return load_written(request.values["profile"], overrides_of(request.values))


def check(request: RunRequest, profile: Profile) -> None:
    """Find what cannot work without asking the target: flags, secrets, files. Raises KvswarmError.

    The workload is opened here, and again by each process that sends: reading a file of prompts
    twice costs less than half a minute of silence before the mistake in it is told.
    """
    check_flags(request, profile)
    open_workload(profile)


def check_flags(request: RunRequest, profile: Profile) -> None:
    """The same without the workload, whose files need not be here. Raises KvswarmError."""
    if request.service is not None:
        check_service(request)
    elif request.url is None and request.values.get("gateway"):
        raise UsageError(
            "--gateway: to what?", fix="Name the target with --url, or --namespace and --service."
        )
    if request.serve is not None:
        if request.url is not None:
            raise UsageError(
                "--serve with --url: the server is either started here or there already",
                fix="Leave one of the two out.",
            )
        server_command(request.serve, profile, request.values.get("model"))
    _check_target(request, profile)
    if (address := metrics_address(request.values)) is not None:
        _check_free(address)
    out = request.out
    if out is not None and out.exists():
        new_run_dir(profile.name, out)  # makes nothing that is there, and refuses what holds files
    if request.baseline is not None:
        check_same_workload(profile, request.baseline)


def _check_target(request: RunRequest, profile: Profile) -> None:
    """What of the target can be told without asking it. Raises UsageError."""
    tls = _tls(request)
    # A service's scheme is not known yet, which must be the gateway's.
    target = _target(request if request.service is None else without_gateway(request))
    if request.values.get("traceparent"):
        check_untraced(target.headers)
    if request.values.get("interleave"):
        check_interleave(request, profile)
    sources_of(
        target, request.values.get("metrics_url"), tls, other=request.values.get("interleave")
    )
    if tls.ca_file is not None:
        tls.context()


def check_interleave(request: RunRequest, profile: Profile) -> None:
    """Refuse what does not go with two targets, or says nothing of them. Raises UsageError."""
    for flag, given in (
        ("--serve", request.serve),
        ("--service", request.service),
        ("--in-cluster", request.in_cluster),
    ):
        if given is not None:
            raise UsageError(
                f"--interleave with {flag}: it names both targets itself",
                fix="Leave one of the two out.",
            )
    alternation(profile, request.values.get("block"))


def _check_free(address: tuple[str, int]) -> None:
    """Find out whether the metrics port can be had. Raises UsageError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        socket.create_server(address, family=family).close()
    except OSError as error:
        raise cannot_listen(address, error) from error


def _tls(request: RunRequest) -> TLS:
    values = request.values
    return TLS(ca_file=values.get("ca_file"), insecure=bool(values.get("insecure")))


def _target(request: RunRequest) -> Target:
    """The target as the flags and the environment give it; without a URL, any that is none."""
    headers = headers_of(request.values.get("api_key_env"), flags=request.headers)
    url = "http://127.0.0.1" if request.url is None else request.url
    return Target.of(url, headers, _tls(request), gateway=request.values.get("gateway"))


def with_target(request: RunRequest, profile: Profile) -> RunRequest:
    """Find base path and model, so that a wrong URL ends here and not in a run of failures."""
    target = _target(request)
    found = known_target(target, request.values.get("model"), profile, request.handover)
    check_adapters(found, profile)
    values = {**request.values, "model": found.model}
    if values.get("interleave"):
        model = request.values.get("model")
        other = other_target(target, _tls(request), values["interleave"], model, profile)
        values["interleave"] = other.base_url
    return replace(request, url=found.base_url, values=values)
