"""`kvswarm run`: check everything, have Locust make the load, and have the figures made.

In:  `RunRequest`.  Out: the run directory, a table, an exit code.
What a person can get wrong is found before anything is made: no run directory, no load.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from kvswarm.analysis.baseline import check_same_workload
from kvswarm.commands.load import Ended, Master, RunRequest, generate, plain_command
from kvswarm.commands.report import report
from kvswarm.commands.simulated import simulator_arguments
from kvswarm.commands.worker import WorkerRequest, worker_command
from kvswarm.errors import (
    EXIT_GATE_MISSED,
    EXIT_INTERRUPTED,
    EXIT_TARGET_UNREACHABLE,
    EXIT_USAGE,
    RunDirError,
)
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.rundir import JournalReader, RunDir, new_run_dir
from kvswarm.stream.target import TLS, Target
from kvswarm.swarm.options import overrides_of
from kvswarm.swarm.preflight import check_adapters, find_target
from kvswarm.swarm.secrets import headers_of
from kvswarm.telemetry.sources import sources_of
from kvswarm.workload.workload import open_workload

LOG_TAIL_LINES: Final = 15


def run(request: RunRequest) -> int:
    """Run a load test to its end; give the exit code. Raises KvswarmError."""
    profile = load_profile(request.values["profile"], overrides_of(request.values))
    _check(request, profile)
    if request.dry_run:
        _show_dry_run(request, profile)
        return 0
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        ready = request
        if request.url is None:
            from kvswarm.simulator.launch import start_simulator  # noqa: PLC0415 - rarely needed

            arguments = (*simulator_arguments(profile), *request.simulator_arguments)
            simulator = stack.enter_context(start_simulator(arguments))
            ready = replace(request, url=simulator.url)
            console.print(f"No --url: measuring the embedded simulator, {simulator.url}")
        ready = _with_target(ready, profile)
        run_dir = new_run_dir(profile.name, _out(request))
        console.print(f"Run directory: {run_dir.path}", soft_wrap=True)
        plain = plain_command(ready, profile, None)
        console.print(f"The same with plain Locust: {plain}", soft_wrap=True, style="dim")
        if ready.master is not None:
            console.print(_invitation(ready.master), soft_wrap=True)
        ended = generate(ready, profile, run_dir, console, simulated=request.url is None)
    return _conclude(run_dir, ended, request)


def _invitation(master: Master) -> str:
    host = socket.gethostname() if master.bind_host == "*" else master.bind_host
    command = shlex.join(
        worker_command(WorkerRequest(master_host=host, master_port=master.bind_port, processes=1))
    )
    return (
        f"Waiting for {master.workers} workers: kvswarm worker --master-host {host} "
        f"--master-port {master.bind_port} (with plain Locust: {command})"
    )


def _out(request: RunRequest) -> Path | None:
    out = request.values.get("out")
    return Path(out) if out else None


def _check(request: RunRequest, profile: Profile) -> None:
    """Find what cannot work without asking the target: flags, secrets, files. Raises KvswarmError.

    The workload is opened here, and again by each process that sends: reading a file of prompts
    twice costs less than half a minute of silence before the mistake in it is told.
    """
    tls = _tls(request)
    sources_of(_target(request), request.values.get("metrics_url"), tls)
    if tls.ca_file is not None:
        tls.context()
    out = _out(request)
    if out is not None and out.exists():
        new_run_dir(profile.name, out)  # makes nothing that is there, and refuses what holds files
    if request.baseline is not None:
        check_same_workload(profile, request.baseline)
    open_workload(profile)


def _tls(request: RunRequest) -> TLS:
    values = request.values
    return TLS(ca_file=values.get("ca_file"), insecure=bool(values.get("insecure")))


def _target(request: RunRequest) -> Target:
    """The target as the flags and the environment give it; without --url, any that is none."""
    headers = headers_of(request.values.get("api_key_env"), flags=request.headers)
    url = "http://127.0.0.1" if request.url is None else request.url
    return Target.of(url, headers, _tls(request))


def _with_target(request: RunRequest, profile: Profile) -> RunRequest:
    """Find base path and model, so that a wrong URL ends here and not in a run of failures."""
    found = find_target(
        _target(request),
        request.values.get("model"),
        profile.endpoint,
        profile.timeouts.connect_s,
    )
    check_adapters(found, profile)
    return replace(request, url=found.base_url, values={**request.values, "model": found.model})


def _show_dry_run(request: RunRequest, profile: Profile) -> None:
    plain = {
        "profile": profile.to_dict(),
        "target": request.url or "the embedded simulator",
        "locust": plain_command(request, profile, _out(request)),
    }
    Console(soft_wrap=True).print_json(data=plain)


def _conclude(run_dir: RunDir, ended: Ended, request: RunRequest) -> int:
    """Make the figures, as far as there is anything to make them of, and tell how it ended."""
    if not run_dir.run_json.exists():
        if ended.interrupted:
            _say("interrupted before the load began; nothing was measured.")
            return EXIT_INTERRUPTED
        raise _no_figures(run_dir, ended, f"{_how(ended)} before the load began", [])
    info = run_dir.read_info()
    if ended.interrupted and info.ended in {"stopped", None}:
        info.ended = "interrupted"
        run_dir.write_info(info)
    elif info.ended == "failed" or _failed_at_once(run_dir, ended):
        raise _no_figures(run_dir, ended, f"the load could not be made; {_how(ended)}", info.notes)
    elif info.ended is None:
        _say(f"{_how(ended)} unexpectedly; its log: {run_dir.locust_log}")
    code = report(run_dir.path, as_json=request.as_json, baseline=request.baseline)
    if ended.interrupted:
        return EXIT_INTERRUPTED
    return code or EXIT_GATE_MISSED if info.ended is None else code


def _failed_at_once(run_dir: RunDir, ended: Ended) -> bool:
    """Whether Locust left for a mistake that only it could find, before any request."""
    if ended.code not in {EXIT_USAGE, EXIT_TARGET_UNREACHABLE}:
        return False
    return not (run_dir.journal.exists() and any(JournalReader(run_dir.journal)))


def _no_figures(run_dir: RunDir, ended: Ended, what: str, notes: list[str]) -> RunDirError:
    """An error with Locust's own exit code that tells the notes of the run, or the log's end."""
    lines, told = notes, "why"
    if not notes:
        told = "the end of its log"
        lines = run_dir.locust_log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    error = RunDirError(
        f"{what}; {told}:\n" + "\n".join(f"    {line}" for line in lines),
        fix=f"The whole log: {run_dir.locust_log}",
    )
    error.exit_code = ended.code if ended.code > 0 else EXIT_GATE_MISSED
    return error


def _how(ended: Ended) -> str:
    if ended.code < 0:
        return f"Locust was ended by {signal.Signals(-ended.code).name}"
    return f"Locust ended with code {ended.code}"


def _say(text: str) -> None:
    sys.stderr.write(f"kvswarm: {text}\n")
