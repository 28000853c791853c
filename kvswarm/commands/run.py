"""`kvswarm run`: start Locust as a process of its own, watch it, and have the figures made.

In:  `RunRequest`.  Out: the run directory, a table, an exit code.
The load runs in a child in a session of its own: Ctrl-C reaches this process alone, which asks
the child to stop and keeps what was measured. Drawing and counting here cost the load nothing but
their CPU. When this process dies, the child sees its pipe break and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.commands.report import report
from kvswarm.commands.view import view_of
from kvswarm.errors import EXIT_INTERRUPTED, KvswarmError, RunDirError, UsageError
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir, new_run_dir
from kvswarm.stream.target import TLS, Target
from kvswarm.swarm.options import locust_arguments, overrides_of
from kvswarm.swarm.preflight import find_target
from kvswarm.swarm.progress import PROGRESS_FD_ENV
from kvswarm.swarm.secrets import HEADERS_ENV, headers_of, parse_headers

ARGV_ENV: Final = "KVSWARM_ARGV"
SIMULATOR_ENV: Final = "KVSWARM_SIMULATOR"
LOCUSTFILES: Final = Path(__file__).parent.parent / "locustfiles"
LOG_TAIL_LINES: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `kvswarm run` was asked for. `values` are those of `options.OPTIONS`, by key."""

    values: dict[str, Any]
    url: str | None = None
    headers: tuple[str, ...] = ()
    processes: int | None = None
    dry_run: bool = False
    as_json: bool = False
    argv: tuple[str, ...] = ()
    simulator_arguments: tuple[str, ...] = field(default_factory=tuple)


def run(request: RunRequest) -> int:
    """Run a load test to its end; give the exit code. Raises KvswarmError."""
    profile = load_profile(request.values["profile"], overrides_of(request.values))
    progress_console = Console(stderr=True)
    if request.dry_run:
        _show_dry_run(request, profile)
        return 0
    with contextlib.ExitStack() as stack:
        ready = request
        if request.url is None:
            from kvswarm.simulator.launch import start_simulator  # noqa: PLC0415 - rarely needed

            simulator = stack.enter_context(start_simulator(request.simulator_arguments))
            ready = replace(request, url=simulator.url)
            progress_console.print(f"No --url: measuring the embedded simulator, {simulator.url}")
        ready = _with_target(ready, profile)
        run_dir = new_run_dir(profile.name, _out(request))
        watched = Watched(
            profile=profile,
            run_dir=run_dir,
            console=progress_console,
            simulated=request.url is None,
        )
        interrupted, child_code = _generate(ready, watched)
    return _conclude(run_dir, interrupted=interrupted, child_code=child_code, request=request)


def _out(request: RunRequest) -> Path | None:
    out = request.values.get("out")
    return Path(out) if out else None


def _with_target(request: RunRequest, profile: Profile) -> RunRequest:
    """Find base path and model, so that a wrong URL ends here and not in a run of failures."""
    values = request.values
    headers = {**headers_of(values.get("api_key_env")), **parse_headers(request.headers)}
    tls = TLS(ca_file=values.get("ca_file"), insecure=bool(values.get("insecure")))
    target = Target.of(request.url or "", headers, tls)
    found = find_target(target, values.get("model"), profile.endpoint, profile.timeouts.connect_s)
    return replace(request, url=found.base_url, values={**values, "model": found.model})


def locust_command(request: RunRequest, profile: Profile, out: Path | None) -> list[str]:
    """The Locust command line that does what `request` asks for."""
    locustfile = LOCUSTFILES / f"{profile.name}.py"
    if not locustfile.exists():
        locustfile = LOCUSTFILES / "standard.py"
    values = {**request.values, "out": str(out) if out else None}
    command = ["locust", "-f", str(locustfile), "--headless", "--only-summary"]
    command += ["--host", request.url or "http://127.0.0.1:PORT"]
    if request.processes is not None:
        command += ["--processes", str(request.processes)]
        # At Locust's usual port, the workers of two runs on one machine would take any master.
        port = str(_free_port())
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        command += ["--master-port", port]
    if out is not None:
        command += ["--csv", str(out / "locust")]
    return command + locust_arguments(values)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _show_dry_run(request: RunRequest, profile: Profile) -> None:
    plain = {
        "profile": profile.to_dict(),
        "target": request.url or "the embedded simulator",
        "locust": shlex.join(locust_command(request, profile, _out(request))),
    }
    Console(soft_wrap=True).print_json(data=plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One run of Locust, and where it is shown."""

    profile: Profile
    run_dir: RunDir
    console: Console
    simulated: bool


def _generate(request: RunRequest, watched: Watched) -> tuple[bool, int]:
    """Run Locust; tell whether a person interrupted it, and its exit code."""
    run_dir, console, simulated = watched.run_dir, watched.console, watched.simulated
    command = locust_command(request, watched.profile, run_dir.path)
    console.print(f"Run directory: {run_dir.path}", soft_wrap=True)
    plain = shlex.join(locust_command(request, watched.profile, None))
    console.print(f"The same with plain Locust: {plain}", soft_wrap=True, style="dim")
    read_fd, write_fd = os.pipe()
    environ = {
        **os.environ,
        PROGRESS_FD_ENV: str(write_fd),
        ARGV_ENV: shlex.join(request.argv),
        "LOCUST_SKIP_UPDATE_CHECK": "1",
    }
    if simulated:
        environ[SIMULATOR_ENV] = "1"
    if request.headers:
        environ[HEADERS_ENV] = json.dumps(parse_headers(request.headers))
    if request.processes is None:
        environ.pop("LOCUST_PROCESSES", None)
    with run_dir.locust_log.open("wb") as log:
        child = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
            pass_fds=(write_fd,),
            start_new_session=True,
        )
    os.close(write_fd)
    with _forwarding_signals(child) as signals, view_of(console) as view:
        with os.fdopen(read_fd, "rb") as lines:
            for line in lines:
                view.show(json.loads(line))
        child_code = child.wait()
    return bool(signals), child_code


@contextlib.contextmanager
def _forwarding_signals(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Hand Ctrl-C and SIGTERM to the child: once to end the run in order, thrice to kill it."""
    seen: list[int] = []

    def forward(number: int, _frame: object) -> None:
        seen.append(number)
        if child.poll() is None:
            patience = 3
            child.send_signal(signal.SIGKILL if len(seen) >= patience else signal.SIGTERM)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, forward) for kind in kinds}
    try:
        yield seen
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _conclude(run_dir: RunDir, *, interrupted: bool, child_code: int, request: RunRequest) -> int:
    if not run_dir.run_json.exists():
        raise _never_began(run_dir, child_code)
    info = run_dir.read_info()
    if interrupted and info.ended in {"stopped", None}:
        info.ended = "interrupted"
        run_dir.write_info(info)
    code = report(run_dir.path, as_json=request.as_json)
    return EXIT_INTERRUPTED if interrupted or (info.ended is None and not code) else code


def _never_began(run_dir: RunDir, child_code: int) -> KvswarmError:
    tail = run_dir.locust_log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    error: KvswarmError = (UsageError if child_code == UsageError.exit_code else RunDirError)(
        f"Locust ended with code {child_code} before the load began; the end of its log:\n"
        + "\n".join(f"    {line}" for line in tail),
        fix=f"The whole log: {run_dir.locust_log}",
    )
    error.exit_code = child_code if child_code > 0 else 1
    return error
