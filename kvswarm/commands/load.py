"""The load of `kvswarm run`: Locust as a process of its own, watched to its end.

In:  `RunRequest`, the profile, a run directory.  Out: `Ended`, and what Locust left behind.
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
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.commands.cost_options import NO_COSTS, CostAsked
from kvswarm.commands.in_cluster_options import InCluster
from kvswarm.commands.serve import Serve
from kvswarm.commands.service_options import ServiceAsked
from kvswarm.commands.view import view_of
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir
from kvswarm.swarm.handover import Handover
from kvswarm.swarm.options import locust_arguments, locust_users
from kvswarm.swarm.progress import ARGV_ENV, PROGRESS_FD_ENV, SIMULATOR_ENV
from kvswarm.swarm.secrets import HEADERS_ENV, headers_of

LOCUST_ENV_PREFIX: Final = "LOCUST_"
LOCUSTFILES: Final = {
    path.stem: path
    for path in (Path(__file__).parent.parent / "locustfiles").glob("*.py")
    if path.stem != "__init__"
}
"""The packaged locustfiles by name: each of one profile, or of a folder of profiles."""
WORKERS_WAIT_S: Final = 60
"""How long Locust waits for its own processes: by default for ever, also for one that died."""
FAR_WORKERS_WAIT_S: Final = 600
"""The same for workers that people or a cluster start."""
KILLING_SIGNAL: Final = 3
"""A person who asks so often is not waiting for the last rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """A run whose load is made by `kvswarm worker` processes, here or elsewhere."""

    workers: int = 1
    """How many it waits for."""
    bind_host: str = "*"
    bind_port: int = 5557


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `kvswarm run` was asked for. `values` are those of `options.OPTIONS`, by key."""

    values: dict[str, Any]
    url: str | None = None
    headers: tuple[str, ...] = ()
    processes: int | None = None
    master: Master | None = None
    dry_run: bool = False
    validated: bool = True
    """Whether the rules are applied before anything is sent."""
    as_json: bool = False
    baseline: Path | None = None
    """Run directory to compare with."""
    serve: Serve | None = None
    """The server to start for the run; None: it is there, or the embedded simulator."""
    service: ServiceAsked | None = None
    """The service of KServe to measure."""
    handover: Handover | None = None
    """What was found of it."""
    costs: CostAsked = NO_COSTS
    """Prices, and what a replica is."""
    sweep: str | None = None
    """`KEY=V1,V2,...`: one run for each value."""
    hand_over_port: int | None = None
    """Where the results wait to be fetched once the run has ended."""
    in_cluster: InCluster | None = None
    """The cluster that the run is made on; None: it is made here."""
    quiet: bool = False
    """Print no figures of the run: a sweep prints its own."""
    argv: tuple[str, ...] = ()

    @property
    def out(self) -> Path | None:
        """The run directory, where one was named."""
        return Path(self.values["out"]) if self.values.get("out") else None

    @property
    def simulated(self) -> bool:
        """Whether the embedded simulator is what is measured."""
        return self.url is None and self.serve is None and self.service is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How Locust ended: its exit code, negative for a signal, and whether a person asked for it."""

    code: int
    interrupted: bool


def locust_command(request: RunRequest, profile: Profile, out: Path | None) -> list[str]:
    """The Locust command line that does what `request` asks for."""
    # A profile's name is anybody's text: it chooses among our own files, and never makes a path.
    name = profile.name.partition("/")[0].replace("-", "_")
    locustfile = LOCUSTFILES.get(name, LOCUSTFILES["standard"])
    processes = request.master.workers if request.master is not None else request.processes
    users = str(locust_users(profile.load, processes or 1))
    command = ["locust", "-f", str(locustfile), "--headless", "--only-summary"]
    command += ["--host", request.url or "http://127.0.0.1:PORT"]
    command += ["--users", users, "--spawn-rate", users]
    if request.master is not None:
        command += ["--master", "--expect-workers", str(request.master.workers)]
        command += ["--expect-workers-max-wait", str(FAR_WORKERS_WAIT_S)]
        command += ["--master-bind-host", request.master.bind_host]
        command += ["--master-bind-port", str(request.master.bind_port)]
    elif request.processes is not None:
        command += ["--processes", str(request.processes)]
        command += ["--expect-workers-max-wait", str(WORKERS_WAIT_S)]
        # At Locust's usual port, the workers of two runs on one machine would take any master.
        port = str(_free_port())
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        command += ["--master-port", port]
    if out is not None:
        command += ["--csv", str(out / "locust")]
    return command + locust_arguments({**request.values, "out": str(out) if out else None})


def plain_command(request: RunRequest, profile: Profile, out: Path | None) -> str:
    """`locust_command` for a shell; where there are headers to be set, with their names only."""
    command = shlex.join(locust_command(request, profile, out))
    if not request.headers:
        return command
    hint = json.dumps(dict.fromkeys(headers_of(None, flags=request.headers), "***"))
    return f"{HEADERS_ENV}={shlex.quote(hint)} {command}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def generate(
    request: RunRequest, profile: Profile, run_dir: RunDir, console: Console, *, simulated: bool
) -> Ended:
    """Run Locust to its end and show where it stands meanwhile."""
    read_fd, write_fd = os.pipe()
    with _Signals() as signals:
        with run_dir.locust_log.open("wb") as log:
            command = locust_command(request, profile, run_dir.path)
            child = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [sys.executable, "-m", "kvswarm.swarm.child", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(request, write_fd, simulated=simulated),
                pass_fds=(write_fd,),
                start_new_session=True,
            )
        os.close(write_fd)
        signals.go_to(child)
        threading.Thread(target=_end_session_of, args=(child,), daemon=True).start()
        with view_of(console) as view, os.fdopen(read_fd, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # what a killed process was writing has no end
                    view.show(json.loads(line))
        return Ended(code=child.wait(), interrupted=signals.seen > 0)


def locust_environment() -> dict[str, str]:
    """This environment for Locust: without its own variables."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(LOCUST_ENV_PREFIX)
    }
    return environ | {"LOCUST_SKIP_UPDATE_CHECK": "1"}


def _environment(request: RunRequest, progress_fd: int, *, simulated: bool) -> dict[str, str]:
    """This environment, less what would set Locust's options behind the command line's back."""
    environ = locust_environment()
    environ |= {PROGRESS_FD_ENV: str(progress_fd), ARGV_ENV: shlex.join(request.argv)}
    if simulated:
        environ[SIMULATOR_ENV] = "1"
    if request.handover is not None:
        environ |= request.handover.to_environment()
    if headers := headers_of(None, flags=request.headers):
        environ[HEADERS_ENV] = json.dumps(headers)
    return environ


def _end_session_of(child: subprocess.Popen[bytes]) -> None:
    """Wait for the child, then kill what it left.

    Workers of a master that was killed would send on for a while, to nobody, and hold the pipe
    open. One that ends in order has waited for its workers.
    """
    child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


class _Signals:
    """Hands Ctrl-C and SIGTERM to the child: once to end the run in order, thrice to kill it.

    It is there before the child is, so that no moment is left in which one of them would end this
    process and leave the load running.
    """

    KINDS: Final = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.seen = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        """Take the signals."""
        self._before = {kind: signal.signal(kind, self._on_signal) for kind in self.KINDS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def go_to(self, child: subprocess.Popen[bytes]) -> None:
        """Send the child what has come, and what will come."""
        self._child = child
        if self.seen:
            self._pass_on()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.seen += 1
        self._pass_on()

    def _pass_on(self) -> None:
        if self._child is not None and self._child.poll() is None:
            kill = self.seen >= KILLING_SIGNAL
            self._child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
