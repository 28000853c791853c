"""`kvswarm worker`: a load-generating process for the run of a master, here or elsewhere.

In:  where the master is.  Out: Locust's exit code: this process becomes Locust.

The locustfile comes from the master, for its user class must be the same; secrets come from this
process's own environment. A worker trusts its master, whose Python code it runs.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from dataclasses import dataclass

from kvswarm.commands.load import Master, locust_environment
from kvswarm.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """What `kvswarm worker` was asked for."""

    master_host: str
    master_port: int
    processes: int


def worker_command(request: WorkerRequest) -> list[str]:
    """The Locust command line that does what `request` asks for."""
    command = ["locust", "--worker", "-f", "-", "--master-host", request.master_host]
    command += ["--master-port", str(request.master_port)]
    if request.processes > 1:
        command += ["--processes", str(request.processes)]
    return command


def invitation(master: Master) -> str:
    """What a person types to join a master."""
    host = socket.gethostname() if master.bind_host == "*" else master.bind_host
    command = shlex.join(
        worker_command(WorkerRequest(master_host=host, master_port=master.bind_port, processes=1))
    )
    return (
        f"Waiting for {master.workers} workers: kvswarm worker --master-host {host} "
        f"--master-port {master.bind_port} (with plain Locust: {command})"
    )


def work(request: WorkerRequest) -> None:
    """Become a Locust worker. Raises UsageError where the host makes no sense."""
    if "://" in request.master_host or ":" in request.master_host.strip("[]").rpartition(".")[2]:
        raise UsageError(
            f"--master-host {request.master_host!r}: is no host",
            fix="Give its name or address alone; the port goes with --master-port.",
        )
    command = worker_command(request)
    sys.stderr.write(f"The same with plain Locust: {shlex.join(command)}\n")
    sys.stderr.flush()
    # No process of our own between: signals and the exit code are Locust's.
    os.execve(  # noqa: S606 - our own command, no shell
        sys.executable,
        [sys.executable, "-m", "kvswarm.swarm.child", *command],
        locust_environment(),
    )
