"""Start kvswarm as a person would, in a process of its own, and read what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from kvswarm.rundir import JournalReader, RunDir
from kvswarm.simulator.launch import start_simulator

CHECKOUT = Path(__file__).parents[2]
KVSWARM = (sys.executable, "-m", "kvswarm")
LOCUST = (sys.executable, "-m", "locust")
LONG_S = 240.0
"""A bound far above what anything takes on a busy machine, so that a hang ends as a failure."""

FORGIVING = """\
pattern: steady
requests: 20
concurrency: 4
input_tokens: 16
max_tokens: 6
verdict:
  invalid_error_share: 1.0
  invalid_error_ms: 1000000
  invalid_send_lag_p99_ms: 1000000
"""
"""A profile whose runs pass on a machine that is busy with other things."""


def forgiving(folder: Path, more: str = "") -> Path:
    """Write the forgiving profile, with more keys or others."""
    (folder / "forgiving.yaml").write_text(FORGIVING)
    profile = folder / "mine.yaml"
    profile.write_text(f"extends: ./forgiving.yaml\n{more}\n")
    return profile


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without what would tell kvswarm or Locust anything."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KVSWARM_", "LOCUST_", "COLUMNS"))
    }
    return {**kept, "LOCUST_SKIP_UPDATE_CHECK": "1", **(extra or {})}


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str
    directory: Path | None = None

    @cached_property
    def run(self) -> Run:
        """The run directory that was given with --out."""
        assert self.directory is not None
        return Run(self.directory)


@dataclass(frozen=True)
class Run:
    """A run directory."""

    path: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return summary

    @cached_property
    def info(self) -> dict[str, Any]:
        """run.json."""
        info: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        return info

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """requests.parquet, by index."""
        rows = pq.read_table(self.path / "requests.parquet").to_pylist()
        return sorted(rows, key=lambda row: row["index"])

    def journalled(self) -> int:
        """Requests in the journal of a run that goes on; 0 where there is none."""
        try:
            return sum(len(batch) for batch in JournalReader(RunDir(self.path).journal))
        except FileNotFoundError:
            return 0


class Going:
    """A process that goes on while the test does something to it."""

    def __init__(
        self, arguments: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None, logs: Path
    ) -> None:
        self._logs = (logs / "stdout.txt", logs / "stderr.txt")
        with self._logs[0].open("wb") as out, self._logs[1].open("wb") as err:
            self.process = subprocess.Popen(
                [str(word) for word in arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environ(env),
            )  # fmt: skip

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._logs[1].read_text()

    def tree(self) -> list[psutil.Process]:
        """The processes below this one, Locust's session included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def locusts(self) -> list[psutil.Process]:
        """The Locust processes below this one: master or only one first, then its workers."""
        below = {child.pid for child in self.tree()}
        known = psutil.process_iter(["cmdline", "create_time"])  # leaves out what has just ended
        found = [p for p in known if p.pid in below and "locust" in (p.info["cmdline"] or [])]
        return sorted(found, key=lambda process: process.info["create_time"])

    def address(self) -> str:
        """Where it listens for HTTP, once it does."""
        found: list[int] = []

        def listens() -> bool:
            assert self.process.poll() is None, self.err
            sockets = psutil.Process(self.process.pid).net_connections("tcp")
            found.extend(s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN)
            return bool(found)

        until(listens, "somebody listens")
        return f"http://127.0.0.1:{found[0]}"

    def end(self, number: int | None = None) -> Done:
        """Send a signal, if given, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(LONG_S)
        return Done(code, self._logs[0].read_text(), self._logs[1].read_text())


@contextlib.contextmanager
def going(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    logs: Path | None = None,
) -> Iterator[Going]:
    """Start a command line; whatever is left of it at the end is killed."""
    started = Going(arguments, cwd, env, logs or cwd)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            left = started.tree()
            started.process.kill()
            for process in left:
                kill(process)
            started.process.wait()


def command(
    arguments: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None
) -> Done:
    """Run a whole command line to its end."""
    with (
        tempfile.TemporaryDirectory() as logs,
        going(*arguments, cwd=cwd, env=env, logs=Path(logs)) as started,
    ):
        return started.end()


def kvswarm(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """`kvswarm ARGUMENTS` to its end."""
    return command([*KVSWARM, *arguments], cwd, env)


def run(out: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
    """`kvswarm run ARGUMENTS --out OUT` to its end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = kvswarm("run", *arguments, "--out", out, cwd=out.parent, env=env)
    return Done(done.code, done.out, done.err, out)


@contextlib.contextmanager
def simulator(*arguments: str) -> Iterator[str]:
    """A simulator in a process of its own; give its URL."""
    with start_simulator(arguments) as started:
        yield started.url


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def post(address: str, form: str) -> None:
    """Send a form, such as Locust's web UI does."""
    with urllib.request.urlopen(address, form.encode(), timeout=30) as response:  # noqa: S310 - http
        assert json.load(response)["success"] is True


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    give_up_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < give_up_s, f"in {LONG_S:g} s this did not come true: {what}"
        time.sleep(0.05)


def kill(process: psutil.Process) -> None:
    """`kill -9`, unless it has ended by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
