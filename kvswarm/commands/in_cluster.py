"""`kvswarm run --in-cluster`: the run is made on a cluster, and ends up here as if it had run here.

In:  `RunRequest` and its `InCluster`.
Out: the run directory, a table, the exit code of the run.
Nothing of it is left on the cluster, whatever happens, unless a person leaves: then what is left is
named with the commands that fetch it and that take it away.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from kvswarm.commands.checks import check_flags, written_of
from kvswarm.commands.cost_options import NO_COSTS
from kvswarm.commands.costs import check_costs, keep_costs
from kvswarm.commands.guard import guard_run
from kvswarm.commands.in_cluster_options import InCluster
from kvswarm.commands.load import FAR_WORKERS_WAIT_S, RunRequest
from kvswarm.commands.report import report, show
from kvswarm.errors import (
    EXIT_GATE_MISSED,
    EXIT_INTERRUPTED,
    EXIT_PASSED,
    RunDirError,
    UsageError,
)
from kvswarm.kserve.attending import Wishes, acknowledge, collect
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.handing import State
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.on_cluster import (
    DATA,
    FILES,
    HEADERS_KEY,
    TOKEN_KEY,
    ClusterRun,
    documents,
)
from kvswarm.kserve.placing import LeftError, OfRun, remove, start
from kvswarm.kserve.refusals import ClusterError, UnreachableError
from kvswarm.kserve.run_pods import Share
from kvswarm.profiles.flat import PROFILE_NAME, flat_profile
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RUNS, RunDir, new_name
from kvswarm.swarm.options import overrides_of
from kvswarm.swarm.secrets import headers_of
from kvswarm.workload.workload import open_workload

CA_NAME: Final = "ca.pem"
UNBOUNDED_S: Final = 86_400
"""The deadline of a run that ends by requests: nobody knows how long they take."""
HAND_OVER_S: Final = 3_600
LOOPBACK: Final = ("localhost", "::1")
MASKED: Final = "***"
PASSED_ON: Final = ("model", "api_key_env", "metrics_url", "gateway")
FLAGS_PASSED_ON: Final = ("insecure", "traceparent")


def run_on_cluster(request: RunRequest, asked: InCluster) -> int:
    """Make a run on a cluster; give its exit code. Raises KvswarmError."""
    _check_flags(request, asked)
    written = written_of(request)
    profile = written.profile
    check_flags(_as_checked_here(request), profile)
    check_costs(request.costs, profile.cost)
    guard_run(request, written)
    if request.baseline is not None and _names_files(profile):
        raise UsageError(
            f"--baseline {request.baseline} with --in-cluster: the profile names files, which have "
            "other paths there, so the two are not known to be of the same workload",
            fix="Leave --baseline out; compare what has no files of its own.",
        )
    if not _reads_claim(asked, profile):
        open_workload(profile)
    directory = new_name(profile.name)
    target = request.out or RUNS / directory
    if request.dry_run:
        run = _planned(request, asked, profile, directory)
        masked = replace(run, secret=dict.fromkeys(run.secret, MASKED))
        click.echo(Manifests(documents=tuple(documents(masked)), notes=()).to_yaml(), nl=False)
        return 0
    cluster = Cluster.connect(asked.context)
    run = replace(_planned(request, asked, profile, directory), version=cluster.version())
    made = documents(run)
    of = OfRun(
        cluster=cluster,
        namespace=run.namespace,
        name=run.name,
        directory=directory,
        port=run.places.hand_over_port or 0,
        token=run.secret[TOKEN_KEY],
        workers=run.workers,
    )
    say(f"Run {run.name} in namespace {run.namespace} of {cluster.server}")
    with stoppable() as wishes:
        try:
            start(of, made)
        except KeyboardInterrupt:
            say("interrupted while it was started; nothing is left.")
            return EXIT_INTERRUPTED
        state = collected(of, target, wishes, lambda: remove(cluster, made))
    return concluded(state, target, request)


def collected(of: OfRun, target: Path, wishes: Wishes, take_away: Callable[[], None]) -> State:
    """Wait for a run's results, and take all of it away once they are here.

    Raises KvswarmError; after `LeftError` the run or its results are still there.
    """
    try:
        state = collect(of, target, wishes, say)
        acknowledge(of)
    except KeyboardInterrupt as error:
        raise _left(of, "you left; the run goes on", EXIT_INTERRUPTED) from error
    except UnreachableError as error:
        raise _left(of, f"{error.message}. The run may go on", error.exit_code) from error
    except LeftError:
        raise
    except ClusterError:
        _taken_away(of, take_away)
        raise
    _taken_away(of, take_away)
    return state


def concluded(state: State, target: Path, request: RunRequest) -> int:
    """Show the figures, as a run here does; give the run's exit code. Raises KvswarmError."""
    code = EXIT_INTERRUPTED if state.exit_code is None else state.exit_code
    if state.error is not None or not RunDir(target).run_json.exists():
        message = state.error or "it ended before the load began; nothing was measured."
        kept = f"\n  What there is of it: {target}" if target.exists() else ""
        error = RunDirError(f"on the cluster: {message}{kept}")
        error.exit_code = code
        raise error
    costs = request.costs
    if request.baseline is not None or costs != NO_COSTS:
        keep_costs(RunDir(target), costs)
        remade = report(target, as_json=request.as_json, baseline=request.baseline)
        if costs != NO_COSTS and code in {EXIT_PASSED, EXIT_GATE_MISSED}:
            code = remade  # over there, nobody knew the prices that its gates may limit
    else:
        show(target, as_json=request.as_json)
    return code


def say(line: str) -> None:
    """Tell a person, on standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def stoppable() -> Iterator[Wishes]:
    """Ctrl-C and SIGTERM: the first one ends the run in order, the second one leaves it."""
    wishes = Wishes()

    def on_signal(_number: int, _frame: Any) -> None:
        if wishes.stop.is_set() or not wishes.can_stop:
            raise KeyboardInterrupt
        wishes.stop.set()
        say("Stopping the run; its results are fetched. Once more: leave it there.")

    before = {kind: signal.signal(kind, on_signal) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wishes
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _left(of: OfRun, what: str, code: int) -> LeftError:
    error = LeftError(
        f"run {of.name} in namespace {of.namespace}: {what}.",
        fix=f"Its results: {of.fetch_command}\n  End it without them: {of.delete_command}",
    )
    error.exit_code = code
    return error


def _taken_away(of: OfRun, take_away: Callable[[], None]) -> None:
    """Delete; where that cannot be done, say what is left, and let what happened before be told."""
    try:
        take_away()
    except (ClusterError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted while the run was taken away"
        say(f"kvswarm: {why}\n  Delete what is left of it: {of.delete_command}")


def _check_flags(request: RunRequest, asked: InCluster) -> None:
    service = request.service
    for flag, given in (
        ("--master", request.master is not None),
        ("--serve", request.serve is not None),
        ("--sweep", request.sweep is not None),
        (
            "--token-from-kubeconfig",
            service is not None and service.token_from_kubeconfig,
        ),
        ("--metrics-port", request.values.get("metrics_port") is not None),
    ):
        if given:
            raise UsageError(f"{flag} with --in-cluster: do not go together", fix="Leave it out.")
    if request.url is None and asked.pods.service is None:
        raise UsageError(
            "--in-cluster: of what? The embedded simulator is here alone",
            fix="Name the target with --url, or with --service.",
        )
    host = urlsplit(request.url or "").hostname or ""
    if host in LOOPBACK or host.startswith("127."):
        raise UsageError(
            f"--url {request.url}: in a pod, {host} is the pod itself",
            fix="Give the address that the server has inside the cluster.",
        )
    key = request.values.get("api_key_env")
    if key is not None and key not in {each.variable for each in asked.variables}:
        raise UsageError(
            f"--api-key-env {key}: the pods do not have this variable",
            fix=f"Say which Secret of the namespace holds it: --secret-env {key}=SECRET/KEY.",
        )


def _as_checked_here(request: RunRequest) -> RunRequest:
    """What of the request can be checked here: the pods have the key, not this process."""
    return replace(request, values={**request.values, "api_key_env": None}, in_cluster=None)


def _names_files(profile: Profile) -> bool:
    """Whether a profile's workload is also in other files: prompts, a tokenizer, other profiles."""
    return bool(profile.mix or profile.prompt.prompts_file or profile.prompt.tokenizer)


def _reads_claim(asked: InCluster, profile: Profile) -> bool:
    """Whether a profile names files that are on a claim, and so not here."""
    if asked.places.data_claim is None:
        return False
    named = [
        path
        for part in profile.parts
        for path in (part.prompt.prompts_file, part.prompt.tokenizer)
        if path is not None
    ]
    return any(Path(path).is_relative_to(DATA) for path in named)


def _planned(request: RunRequest, asked: InCluster, profile: Profile, directory: str) -> ClusterRun:
    values = request.values
    elsewhere = DATA if asked.places.data_claim is not None else None
    flat = flat_profile(values["profile"], overrides_of(values), elsewhere=elsewhere)
    files = dict(flat.files)
    arguments = ["--profile", f"{FILES}/{PROFILE_NAME}"]
    if request.url is not None:
        arguments += ["--url", request.url]
    else:
        arguments += ["--namespace", asked.namespace, "--service", str(asked.pods.service)]
        if request.service is not None and request.service.kind is not None:
            arguments += ["--kind", request.service.kind]
    for key in PASSED_ON:
        if values.get(key) is not None:
            arguments += [f"--{key.replace('_', '-')}", str(values[key])]
    arguments += [f"--{key}" for key in FLAGS_PASSED_ON if values.get(key)]
    if values.get("ca_file") is not None:
        files[CA_NAME] = Path(values["ca_file"]).read_bytes()
        arguments += ["--ca-file", f"{FILES}/{CA_NAME}"]
    secret = {TOKEN_KEY: secrets.token_hex(32)}
    if headers := headers_of(None, flags=request.headers):
        secret[HEADERS_KEY] = json.dumps(headers)
    processes = request.processes or 1
    return ClusterRun(
        name=f"kvswarm-{secrets.token_hex(3)}",
        namespace=asked.namespace,
        arguments=tuple(arguments),
        pods=asked.pods,
        workers=asked.workers,
        processes=processes,
        master_share=asked.master_share,
        worker_share=asked.worker_share or Share(cpus=processes + 1),
        places=asked.places,
        files=files,
        variables=asked.variables,
        secret=secret,
        account=asked.account,
        directory=directory,
        deadline_s=asked.deadline_s or _deadline_s(profile),
    )


def _deadline_s(profile: Profile) -> int:
    """Long enough for workers to come, the run, and its results to be fetched."""
    load = profile.load
    length_s = load.duration_s
    if length_s is None and load.stages:
        length_s = sum(stage.duration_s for stage in load.stages)
    if length_s is None:
        return UNBOUNDED_S
    return math.ceil(FAR_WORKERS_WAIT_S + length_s + load.drain_s + HAND_OVER_S)
