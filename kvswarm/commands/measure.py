"""One run: its target made ready, the load made by Locust, the figures made of what was recorded.

In:  `RunRequest` and its profile, both checked.  Out: the run directory, a table, an exit code.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from rich.console import Console

from kvswarm.commands.checks import with_target
from kvswarm.commands.costs import keep_costs
from kvswarm.commands.load import Ended, RunRequest, generate, plain_command
from kvswarm.commands.report import report
from kvswarm.commands.serve import served, server_command
from kvswarm.commands.simulated import simulator_arguments
from kvswarm.commands.worker import invitation
from kvswarm.errors import (
    EXIT_GATE_MISSED,
    EXIT_INTERRUPTED,
    EXIT_TARGET_UNREACHABLE,
    EXIT_USAGE,
    RunDirError,
)
from kvswarm.profiles.model import Profile
from kvswarm.rundir import JournalReader, RunDir, new_run_dir

LOG_TAIL_LINES: Final = 15


def measure(request: RunRequest, profile: Profile) -> int:
    """Run a load test to its end; give the exit code. Raises KvswarmError."""
    console = Console(stderr=True)
    ended: Ended | None = None
    run_dir: RunDir | None = None
    try:
        with contextlib.ExitStack() as stack:
            if not (request.simulated or request.url):  # what is written before there is a target
                run_dir = new_run_dir(profile.name, request.out)
                stack.enter_context(_kept_unless_empty(run_dir))
            found = stack.enter_context(_target(request, profile, run_dir, console))
            ready = with_target(found, profile)
            run_dir = run_dir or new_run_dir(profile.name, request.out)
            console.print(f"Run directory: {run_dir.path}", soft_wrap=True)
            plain = plain_command(ready, profile, None)
            console.print(f"The same with plain Locust: {plain}", soft_wrap=True, style="dim")
            if ready.master is not None:
                console.print(invitation(ready.master), soft_wrap=True)
            ended = generate(ready, profile, run_dir, console, simulated=request.simulated)
    except KeyboardInterrupt:
        if ended is None or run_dir is None:
            raise
        ended = replace(ended, interrupted=True)  # while a server was stopped: nothing is lost
    return _conclude(run_dir, ended, request)


@contextlib.contextmanager
def _target(
    request: RunRequest, profile: Profile, run_dir: RunDir | None, console: Console
) -> Iterator[RunRequest]:
    """Give the request with the URL of what is measured, while it is there."""
    if request.url is not None:
        yield request
    elif request.service is not None and run_dir is not None:
        from kvswarm.commands.service import service_target  # noqa: PLC0415 - rarely needed

        with service_target(request, profile, run_dir, console) as found:
            yield found
    elif request.serve is not None and run_dir is not None:
        command = server_command(request.serve, profile, request.values.get("model"))
        with served(command, request.serve.timeout_s, run_dir.server_log, console) as url:
            yield replace(request, url=url)
    else:
        from kvswarm.simulator.launch import start_simulator  # noqa: PLC0415 - rarely needed

        with start_simulator(simulator_arguments(profile)) as simulator:
            console.print(f"No --url: measuring the embedded simulator, {simulator.url}")
            yield replace(request, url=simulator.url)


@contextlib.contextmanager
def _kept_unless_empty(run_dir: RunDir) -> Iterator[None]:
    """Leave no directory behind where there was nothing to put into it."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something
            run_dir.path.rmdir()


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
    keep_costs(run_dir, request.costs)
    code = report(
        run_dir.path,
        as_json=request.as_json,
        baseline=request.baseline,
        quiet=request.quiet,
    )
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
