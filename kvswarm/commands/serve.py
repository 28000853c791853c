"""A server for the time of a run: started as the profile wants it, waited for, and stopped.

In:  the command of --serve, and a profile.
Out: `ServerCommand`, decided without starting anything; `served` gives the URL of the running one.

Its output goes to a file. It has a process group of its own, so that Ctrl-C reaches this process
alone, which ends the load first and the server afterwards. Where this process is killed, the keeper
between the two ends the server.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.commands.keeper import STOP_TIMEOUT_S
from kvswarm.commands.wanted import draft_of, server_features
from kvswarm.errors import TargetError, UsageError
from kvswarm.profiles.model import Profile
from kvswarm.serving.flags import vllm_flags
from kvswarm.serving.versions import NEWEST

TIMEOUT_S: Final = 600.0
ASK_EVERY_S: Final = 0.2
ANSWER_TIMEOUT_S: Final = 5.0
LOG_TAIL_LINES: Final = 20
PORT: Final = "{port}"
HOST: Final = "127.0.0.1"
NO_WARMUP: Final = (
    "the profile has no warm-up, and a server that was just started answers its first requests "
    "late: --set warmup.requests=8 keeps the first 8 out of the figures."
)
KEY_OF_SERVER: Final = re.compile(r"(--api-key[=\s]+)('[^']*'|\"[^\"]*\"|\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What --serve and its kin asked for."""

    command: str
    version: str = str(NEWEST)
    """vLLM's, whose flags the profile is written in."""
    timeout_s: float = TIMEOUT_S

    @property
    def shown(self) -> str:
        """The command without the key that it may hold."""
        return without_key(self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """A server's command line, but for its port, and what it needs in its environment."""

    given: tuple[str, ...]
    """Words of the command as it was given."""
    flags: tuple[str, ...]
    """What the profile adds to them."""
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    """What a person should know: of keys that were renamed or left out, of a missing warm-up."""

    def at(self, port: int | str) -> list[str]:
        """The whole command line for a port."""
        words = [word.replace(PORT, str(port)) for word in self.given]
        listen = [] if any(PORT in word for word in self.given) else ["--port", str(port)]
        return [*words, *self.flags, *listen]


def without_key(text: str) -> str:
    """Mask the key that a server's command line may hold."""
    return KEY_OF_SERVER.sub(r"\1***", text)


def server_command(serve: Serve, profile: Profile, model: str | None) -> ServerCommand:
    """Decide how the server is started. `model`: as --model gave it, which may name the draft's.

    Raises UsageError for a command that cannot be run, ProfileError for features that no flags
    of that version can say.
    """
    try:
        given = tuple(shlex.split(serve.command))
    except ValueError as error:
        raise UsageError(
            f"--serve {serve.shown!r}: cannot be divided into words: {error}",
            fix="Close every quote; the command goes to no shell.",
        ) from error
    if not given or shutil.which(given[0]) is None:
        name = given[0] if given else serve.command
        raise UsageError(
            f"--serve: {name!r} is no program that can be run",
            fix="Give a command such as --serve 'vllm serve MODEL'; it goes to no shell.",
        )
    features = server_features(profile)
    if features.get("speculative") == "auto":
        features["speculative"] = draft_of(_named_model(given, model))
    flags = vllm_flags(features, serve.version)
    return ServerCommand(
        given=given,
        flags=flags.arguments,
        environment=flags.environment,
        notes=(*flags.notes, *([] if has_warmup(profile) else [NO_WARMUP])),
    )


def has_warmup(profile: Profile) -> bool:
    """Whether the first requests stay out of the figures."""
    return bool(profile.warmup.requests or profile.warmup.duration_s)


def _named_model(words: tuple[str, ...], model: str | None) -> str:
    """The model that a command serves. Raises UsageError where nothing names it."""
    name = _served_model(words) or model
    if name is None:
        raise UsageError(
            "speculative is auto, and --serve names no model to choose a draft for",
            fix="Name the model with --model.",
        )
    return name


def _served_model(words: tuple[str, ...]) -> str | None:
    """The model in `vllm serve MODEL`, or `--model MODEL`; None where neither is there."""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        if word.startswith("--model="):
            return word.removeprefix("--model=")
        if word == "--model" or (word == "serve" and not after.startswith("-")):
            return after or None
    return None


@contextlib.contextmanager
def served(command: ServerCommand, timeout_s: float, log: Path, console: Console) -> Iterator[str]:
    """Start the server, wait until it is healthy, give its URL; stop it however this ends.

    SIGTERM and SIGHUP end the context as Ctrl-C does. Raises TargetError where the server ends
    before it is ready, or is not ready in time.
    """
    port = _free_port()
    words = command.at(port)
    for note in command.notes:
        console.print(f"Server: {note}", soft_wrap=True, style="dim", markup=False)
    shown = without_key(shlex.join(words))
    console.print(f"Server: {shown}", soft_wrap=True, markup=False)
    with log.open("wb") as file, _Interrupts() as interrupts:
        file.write(f"$ {shown}\n".encode())
        file.flush()
        process = _started(words, command, file.fileno())
        try:
            interrupts.release()
            _wait_until_healthy(process, port, timeout_s, log)
            yield f"http://{HOST}:{port}"
            if process.poll() is not None:
                how = f"Server: it {_ending(process.returncode)} before the run was over; its log:"
                console.print(f"{how} {log}", soft_wrap=True, markup=False)
        finally:
            interrupts.hold()
            _stop(process, interrupts)


def _started(words: list[str], command: ServerCommand, log_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the person's own command, no shell
        [sys.executable, "-m", "kvswarm.commands.keeper", *words],
        stdin=subprocess.PIPE,
        stdout=log_fd,
        stderr=subprocess.STDOUT,
        env={**os.environ, **command.environment},
        start_new_session=True,
    )


def _wait_until_healthy(
    process: subprocess.Popen[bytes], port: int, timeout_s: float, log: Path
) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not _healthy(port):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ASK_EVERY_S)
        if process.returncode is not None:
            raise _not_ready(f"it {_ending(process.returncode)} before it was ready", log)
        if time.monotonic() > give_up_s:
            raise _not_ready(
                f"GET /health did not answer 200 within {timeout_s:g} s (--serve-timeout)", log
            )


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _not_ready(what: str, log: Path) -> TargetError:
    tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    lines = "".join(f"\n    {line}" for line in tail)
    return TargetError(
        f"--serve: the server did not start: {what}; the end of its log:{lines}",
        fix=f"The whole log: {log}",
    )


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _stop(process: subprocess.Popen[bytes], interrupts: _Interrupts) -> None:
    """Ask the server's whole group to end; kill what is left, at once where a person presses."""
    _signal_group(process, signal.SIGTERM)
    give_up_s = time.monotonic() + STOP_TIMEOUT_S
    while process.poll() is None and not interrupts.pending and time.monotonic() < give_up_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ASK_EVERY_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None  # noqa: S101 - asked for when it was started
    process.stdin.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class _Interrupts:
    """Makes signals a KeyboardInterrupt, but for the time in which one would lose the server.

    They are held from the beginning, while the server is being started, and again from the first
    one on, or while it is stopped. What came meanwhile is raised afterwards.
    """

    KINDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.pending = False
        self._held = True
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupts:
        """Take the signals, but for those that are ignored, such as SIGHUP under nohup."""
        for kind in self.KINDS:
            if signal.getsignal(kind) is not signal.SIG_IGN:
                self._before[kind] = signal.signal(kind, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back, and raise what came while the server was stopped."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        if self.pending:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Only note what comes from here on."""
        self._held = True

    def release(self) -> None:
        """Raise what came, and what will come."""
        self._held = False
        if self.pending:
            self.pending, self._held = False, True
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._held:
            self.pending = True
        else:
            self._held = True  # a second one must not fall between the first and the stopping
            raise KeyboardInterrupt
