"""`kvswarm sweep` and `kvswarm run --sweep`: one run per value, one after the other, and a table.

In:  `RunRequest`, and what is swept.
Out: a directory with a run directory for each value, sweep.json and a page; a table; an exit code.

All values are checked before the first is run. Where kvswarm starts the server, every value has one
of its own, so that none finds the prompts of another in a cache. sweep.json is written after every
run, and what a directory holds of finished runs is kept: the same command goes on where it ended.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.analysis.baseline import differences
from kvswarm.commands.checks import check, written_of
from kvswarm.commands.costs import check_costs
from kvswarm.commands.dry_run import plan_of
from kvswarm.commands.guard import guard_run
from kvswarm.commands.load import RunRequest
from kvswarm.commands.measure import measure
from kvswarm.commands.series import (
    Measured,
    Series,
    check_same,
    field_differences,
    folder_of,
    is_begun,
    make_run,
    profile_differences,
    worst_code,
)
from kvswarm.commands.serve import NO_WARMUP, has_warmup
from kvswarm.commands.simulated import simulator_arguments
from kvswarm.commands.sweep_file import Sweep, ValueRun, read_sweep
from kvswarm.commands.sweep_table import render
from kvswarm.commands.swept import PROFILE_KEY, SWEEP_FILE, Swept, SweptValue
from kvswarm.errors import EXIT_INTERRUPTED, ProfileError, UsageError
from kvswarm.profiles.model import Profile
from kvswarm.profiles.settings import read_setting
from kvswarm.rundir import RunDir

SIMULATOR: Final = "simulator"


@dataclass(frozen=True, slots=True)
class Planned:
    """The run of one value, checked."""

    request: RunRequest
    profile: Profile


def sweep(request: RunRequest, swept: Swept) -> int:
    """Run every value; give the worst exit code of their runs. Raises KvswarmError."""
    _check_flags(request, swept)
    planned = _plan(request, swept)
    state = _state(request, swept, planned)
    if request.out is not None and is_begun(request.out, SWEEP_FILE):
        _go_on(request.out, state, planned)
    if request.dry_run:
        runs = [plan_of(each.request, each.profile) for each in planned]
        Console(soft_wrap=True).print_json(data={"key": swept.key, "runs": runs})
        return 0
    folder = folder_of(request.out, SWEEP_FILE, _name(state))
    state.write(folder)
    console = Console(stderr=True)
    series = Series(folder, state.values, console)
    interrupted = False
    for number, (entry, each) in enumerate(zip(state.values, planned, strict=True), 1):
        head = f"Sweep {number} of {len(planned)}: {swept.key}={entry.text}"
        console.print(head, style="bold", soft_wrap=True, markup=False)
        measured = _measured(each.request, each.profile)
        interrupted = not make_run(series, entry, each.profile, measured)
        state.write(folder)
        if interrupted:
            break
    if request.as_json:
        sys.stdout.write((folder / SWEEP_FILE).read_text())
    else:
        render(state, folder)
    return EXIT_INTERRUPTED if interrupted else worst_code(state.values)


def _check_flags(request: RunRequest, swept: Swept) -> None:
    """Refuse what does not go with a sweep of this key. Raises UsageError."""
    if swept.of_server and (request.url is not None or request.service is not None):
        there = "at --url" if request.url is not None else "of --service"
        raise UsageError(
            f"{swept.flag} {swept.key}: is a setting of the server, and the one {there} runs "
            "already",
            fix="Have the server started anew for each value with --serve 'COMMAND', or leave out "
            "--url for the embedded simulator.",
        )
    if request.baseline is not None:
        raise UsageError(
            f"{swept.flag} with --baseline: a sweep compares each value with the first",
            fix="Leave out --baseline; `kvswarm report DIR --baseline` compares afterwards.",
        )
    for text in request.values.get("set") or ():
        if read_setting(text).key in swept.keys:
            raise UsageError(
                f"--set {text}: {swept.flag} varies that key", fix="Keep one of the two."
            )
    for name in swept.values[0].flags:
        if name != PROFILE_KEY and request.values.get(name) is not None:
            raise UsageError(f"--{name}: {swept.flag} varies that", fix="Keep one of the two.")


def _plan(request: RunRequest, swept: Swept) -> list[Planned]:
    """Make the runs and check them all. Raises KvswarmError for the first that cannot be."""
    planned = []
    warned: set[str] = set()
    for value in swept.values:
        each = replace(request, values=_values(request, value), sweep=None, quiet=True)
        try:
            written = written_of(each)
            check(each, written.profile)
            check_costs(each.costs, written.profile.cost)
            guard_run(each, written, warned)
        except (ProfileError, UsageError) as error:
            told = error.message
            for key in swept.keys:
                told = told.replace(f"--set {key}", f"{swept.flag} {key}")
            raise UsageError(told, fix=error.fix) from error
        planned.append(Planned(each, written.profile))
    return planned


def _values(request: RunRequest, value: SweptValue) -> dict[str, Any]:
    """The flags' values for the run of one value."""
    settings = (*(request.values.get("set") or ()), *value.settings)
    return {**request.values, **value.flags, "set": settings, "out": None}


def _state(request: RunRequest, swept: Swept, planned: list[Planned]) -> Sweep:
    """Give the sweep before anything was run."""
    seeds = {each.profile.seed for each in planned}
    return Sweep(
        key=swept.key,
        profile=", ".join(dict.fromkeys(each.profile.name for each in planned)),
        seed=seeds.pop() if len(seeds) == 1 else None,
        target=target_name(request),
        values=[
            ValueRun(value=value.value, text=value.text, directory=value.directory)
            for value in swept.values
        ],
        notes=_notes(request, swept, planned),
    )


def _name(state: Sweep) -> str:
    """What the directory is called, between its time and its mark."""
    return "profiles-sweep" if ", " in state.profile else f"{state.profile}-sweep"


def target_name(request: RunRequest) -> str:
    """What is measured, as people name it."""
    if request.service is not None:
        return request.service.shown
    return request.url or (SIMULATOR if request.serve is None else request.serve.shown)


def _notes(request: RunRequest, swept: Swept, planned: list[Planned]) -> list[str]:
    """What a reader must know of how the values were compared."""
    notes = []
    if request.url is not None or request.service is not None:
        there = "at --url" if request.url is not None else "of --service"
        notes.append(
            f"The server {there} was not started anew between values, which send the same prompts: "
            "with prefix caching, later values may find them in its cache. --serve starts it anew."
        )
    elif request.serve is not None and not all(has_warmup(each.profile) for each in planned):
        notes.append(f"Each value has a new server, and {NO_WARMUP}")
    arguments = {simulator_arguments(each.profile) for each in planned}
    if request.simulated and swept.of_server and len(arguments) == 1:
        notes.append(f"The embedded simulator has nothing that {swept.key} changes.")
    if any(differences(planned[0].profile, each.profile) for each in planned):
        notes.append(f"{swept.key} changes the workload, so there are no effects of like on like.")
    return notes


def _go_on(folder: Path, state: Sweep, planned: list[Planned]) -> None:
    """Take over what an earlier call of the same sweep did. Raises UsageError for another sweep."""
    before = read_sweep(folder)
    different = field_differences(before, state, ("key", "profile", "seed", "target"))
    for entry, each in zip(state.values, planned, strict=True):
        different += profile_differences(RunDir(folder / entry.directory), each.profile)
    check_same("sweep", folder, different)
    known = {entry.text: entry for entry in before.values}
    state.values = [known.get(entry.text, entry) for entry in state.values]


def _measured(request: RunRequest, profile: Profile) -> Measured:
    """How the run of one value is made."""

    def measured(run: RunDir, base: Path | None) -> int:
        values = {**request.values, "out": str(run.path)}
        return measure(replace(request, values=values, baseline=base), profile)

    return measured
