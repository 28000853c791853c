"""`kvswarm run --sweep`: one run per value of a key, one after the other, and a table of them.

In:  `RunRequest` and the text of the flag.
Out: a directory with a run directory for each value and sweep.json; a table; an exit code.

All values are checked before the first is run. Where kvswarm starts the server, every value has one
of its own, so that none finds the prompts of another in a cache. sweep.json is written after every
run, and what a directory holds of finished runs is kept: the same command goes on where it ended.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.analysis.baseline import baseline_profile, differences
from kvswarm.analysis.finish import finish
from kvswarm.analysis.gates import exit_code
from kvswarm.commands.checks import check, written_of
from kvswarm.commands.dry_run import plan_of
from kvswarm.commands.guard import guard_run
from kvswarm.commands.load import RunRequest
from kvswarm.commands.measure import measure
from kvswarm.commands.serve import NO_WARMUP, has_warmup
from kvswarm.commands.simulated import simulator_arguments
from kvswarm.commands.sweep_file import Sweep, ValueRun, figures_of, read_sweep
from kvswarm.commands.sweep_table import render
from kvswarm.commands.swept import FLAG, SWEEP_FILE, Swept, read_swept
from kvswarm.errors import (
    EXIT_INTERRUPTED,
    EXIT_TARGET_UNREACHABLE,
    KvswarmError,
    ProfileError,
    UsageError,
)
from kvswarm.profiles.model import Profile
from kvswarm.profiles.settings import read_setting
from kvswarm.rundir import RunDir, new_run_dir

SIMULATOR: Final = "simulator"
COMPLETED: Final = "completed"


@dataclass(frozen=True, slots=True)
class Planned:
    """The run of one value, checked."""

    request: RunRequest
    profile: Profile


def sweep(request: RunRequest, text: str) -> int:
    """Run every value; give the worst exit code of their runs. Raises KvswarmError."""
    swept = read_swept(text)
    _check_flags(request, swept)
    planned = _plan(request, swept)
    state = _state(request, swept, planned)
    if request.out is not None and request.out.exists():
        _go_on(request.out, state, planned)
    if request.dry_run:
        runs = [plan_of(each.request, each.profile) for each in planned]
        Console(soft_wrap=True).print_json(data={"key": swept.key, "runs": runs})
        return 0
    folder = _folder(request.out, state)
    state.write(folder)
    console = Console(stderr=True)
    interrupted = False
    for number, (entry, each) in enumerate(zip(state.values, planned, strict=True), 1):
        head = f"Sweep {number} of {len(planned)}: {swept.key}={entry.text}"
        console.print(head, style="bold", soft_wrap=True, markup=False)
        interrupted = not _run_value(folder, state, entry, each, console)
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
    if swept.of_server and request.url is not None:
        raise UsageError(
            f"{FLAG} {swept.key}: is a setting of the server, and the one at --url runs already",
            fix="Have the server started anew for each value with --serve 'COMMAND', or leave out "
            "--url for the embedded simulator.",
        )
    if request.baseline is not None:
        raise UsageError(
            f"{FLAG} with --baseline: a sweep compares each value with the first",
            fix="Leave out --baseline; `kvswarm report DIR --baseline` compares afterwards.",
        )
    for text in request.values.get("set") or ():
        if read_setting(text).key == swept.key:
            raise UsageError(f"--set {text}: {FLAG} varies that key", fix="Keep one of the two.")


def _plan(request: RunRequest, swept: Swept) -> list[Planned]:
    """Make the runs and check them all. Raises KvswarmError for the first that cannot be."""
    planned = []
    warned: set[str] = set()
    for value in swept.values:
        settings = (*(request.values.get("set") or ()), f"{swept.key}={value.text}")
        values = {**request.values, "set": settings, "out": None}
        each = replace(request, values=values, sweep=None, quiet=True)
        try:
            written = written_of(each)
            check(each, written.profile)
            guard_run(each, written, warned)
        except (ProfileError, UsageError) as error:
            told = error.message.replace(f"--set {swept.key}", f"{FLAG} {swept.key}")
            raise UsageError(told, fix=error.fix) from error
        planned.append(Planned(each, written.profile))
    return planned


def _state(request: RunRequest, swept: Swept, planned: list[Planned]) -> Sweep:
    """Give the sweep before anything was run."""
    profile = planned[0].profile
    return Sweep(
        key=swept.key,
        profile=profile.name,
        seed=None if swept.key == "seed" else profile.seed,
        target=request.url or (SIMULATOR if request.serve is None else request.serve.shown),
        values=[
            ValueRun(value=value.value, text=value.text, directory=value.directory)
            for value in swept.values
        ],
        notes=_notes(request, swept, planned),
    )


def _notes(request: RunRequest, swept: Swept, planned: list[Planned]) -> list[str]:
    """What a reader must know of how the values were compared."""
    notes = []
    if request.url is not None:
        notes.append(
            "The server at --url was not started anew between values, which send the same prompts: "
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
    """Take over what an earlier call of the same sweep did in `folder`, if there was one.

    Raises RunDirError where it holds something else, UsageError for another sweep.
    """
    if not (folder / SWEEP_FILE).exists():
        new_run_dir(state.profile, folder)  # refuses what holds files
        return
    before = read_sweep(folder)
    different = [
        f"{name} {getattr(before, name)!r}, now {getattr(state, name)!r}"
        for name in ("key", "profile", "seed", "target")
        if getattr(before, name) != getattr(state, name)
    ]
    for entry, each in zip(state.values, planned, strict=True):
        different += _profile_differences(RunDir(folder / entry.directory), each.profile)
    if different:
        raise UsageError(
            f"--out {folder}: holds another sweep: {'; '.join(different)}",
            fix="Give a directory that is new, or the profile and flags that it was made with.",
        )
    known = {entry.text: entry for entry in before.values}
    state.values = [known.get(entry.text, entry) for entry in state.values]


def _profile_differences(run: RunDir, profile: Profile) -> list[str]:
    """Keys in which a value's earlier run had another profile; its file may have moved."""
    if not run.run_json.exists():
        return []
    then, now = run.read_info().profile, json.loads(json.dumps(profile.to_dict()))
    return [
        f"{key} of {run.path.name}" for key in now if key != "source" and then.get(key) != now[key]
    ]


def _folder(out: Path | None, state: Sweep) -> Path:
    """Make the directory of a sweep, or take the one that it goes on in."""
    if out is not None and (out / SWEEP_FILE).exists():
        return out.resolve()
    return new_run_dir(f"{state.profile}-sweep", out).path


def _run_value(
    folder: Path, state: Sweep, entry: ValueRun, planned: Planned, console: Console
) -> bool:
    """Run one value, unless that was done; put what came of it into its entry.

    False: a person interrupted it.
    """
    run = RunDir(folder / entry.directory)
    entry.error = None
    base = _baseline(folder, state, entry, planned.profile)
    try:
        if _is_finished(run):
            console.print(f"Done before: {run.path}", soft_wrap=True, markup=False)
            entry.exit_code = exit_code(finish(run.path, base))
        else:
            _set_aside(run)
            values = {**planned.request.values, "out": str(run.path)}
            request = replace(planned.request, values=values, baseline=base)
            entry.exit_code = measure(request, planned.profile)
    except KeyboardInterrupt:
        entry.exit_code = EXIT_INTERRUPTED
    except KvswarmError as error:
        entry.status, entry.exit_code, entry.error = "failed", error.exit_code, str(error)
        console.print(f"kvswarm: {error}", soft_wrap=True, markup=False, highlight=False)
        return True
    _take_figures(run, entry)
    return entry.exit_code != EXIT_INTERRUPTED


def _baseline(folder: Path, state: Sweep, entry: ValueRun, profile: Profile) -> Path | None:
    """The run of the first value, where it is there and had the same workload."""
    first = state.values[0]
    path = folder / first.directory
    if entry is first or first.status != "done" or differences(profile, baseline_profile(path)):
        return None
    return path


def _is_finished(run: RunDir) -> bool:
    return run.run_json.exists() and run.read_info().ended == COMPLETED


def _set_aside(run: RunDir) -> None:
    """Keep what an unfinished run left, out of the way of the next."""
    if not run.run_json.exists():
        return
    number = 1
    while (aside := run.path.with_name(f"{run.path.name}-unfinished-{number}")).exists():
        number += 1
    run.path.rename(aside)


def _take_figures(run: RunDir, entry: ValueRun) -> None:
    """Fill an entry from the run directory, as far as there are figures."""
    interrupted = entry.exit_code == EXIT_INTERRUPTED
    entry.status = "interrupted" if interrupted else "done"
    if not run.summary.exists():
        return
    summary: dict[str, Any] = json.loads(run.summary.read_bytes())
    if not interrupted and summary["run"]["ended"] != COMPLETED:
        entry.status = "failed"
        entry.error = f"the run did not end in order ({summary['run']['ended'] or 'cut off'})"
    entry.verdict, entry.reasons = summary["verdict"]["status"], summary["verdict"]["reasons"]
    entry.figures = figures_of(run, summary)
    if summary["baseline"] is not None:
        entry.effects = summary["baseline"]["effects"]


def worst_code(entries: list[ValueRun]) -> int:
    """4 where a value could not be run, else the worst of the runs: 3 before 1 before 0."""
    codes = [
        EXIT_TARGET_UNREACHABLE if entry.status == "failed" else entry.exit_code or 0
        for entry in entries
    ]
    return max(codes)
