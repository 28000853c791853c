"""Runs of one directory, one after the other: what a sweep and a comparison have in common.

In:  `Outcome`s, each with the name of its run directory, and a way to make a run.
Out: run directories beside each other; for each its status, figures, effects against the first.

A run that was made to its end is kept, and one that was not is set aside and made again: a call
goes on where the one before it ended. One that cannot be made is told, and the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from kvswarm.analysis.baseline import baseline_profile, differences
from kvswarm.analysis.finish import finish
from kvswarm.analysis.gates import exit_code
from kvswarm.commands.series_file import Outcome, figures_of
from kvswarm.errors import (
    EXIT_INTERRUPTED,
    EXIT_TARGET_UNREACHABLE,
    KvswarmError,
    UsageError,
)
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir, new_run_dir

COMPLETED: Final = "completed"

Measured = Callable[[RunDir, Path | None], int]
"""Makes a run in a directory, compares it with that of the first, and gives its exit code."""


@dataclass(frozen=True, slots=True)
class Series:
    """Where the runs are, what is known of each, and where to tell how it goes."""

    folder: Path
    outcomes: Sequence[Outcome]
    console: Console

    def run_of(self, outcome: Outcome) -> RunDir:
        """The run directory of one."""
        return RunDir(self.folder / outcome.directory)

    def baseline(self, outcome: Outcome, profile: Profile) -> Path | None:
        """The run of the first, where it is there and had the same workload."""
        first = self.outcomes[0]
        path = self.folder / first.directory
        if outcome is first or first.status != "done":
            return None
        return None if differences(profile, baseline_profile(path)) else path


def make_run(series: Series, outcome: Outcome, profile: Profile, measured: Measured) -> bool:
    """Make the run of one, unless that was done; put what came of it into its outcome.

    False: a person interrupted it.
    """
    run = series.run_of(outcome)
    outcome.error = None
    base = series.baseline(outcome, profile)
    try:
        if is_finished(run):
            told = f"Done before: {run.path}"
            series.console.print(told, soft_wrap=True, markup=False)
            outcome.exit_code = exit_code(finish(run.path, base))
        else:
            _set_aside(run)
            outcome.verdict, outcome.reasons, outcome.figures, outcome.effects = None, [], None, []
            outcome.exit_code = measured(run, base)
    except KeyboardInterrupt:
        outcome.exit_code = EXIT_INTERRUPTED
    except KvswarmError as error:
        outcome.status, outcome.exit_code, outcome.error = "failed", error.exit_code, str(error)
        told = f"kvswarm: {error}"
        series.console.print(told, soft_wrap=True, markup=False, highlight=False)
        return True
    take_figures(run, outcome)
    return outcome.exit_code != EXIT_INTERRUPTED


def compare_again(series: Series, profiles: Sequence[Profile]) -> None:
    """Compare the runs that were made before the first's with it."""
    for outcome, profile in zip(series.outcomes, profiles, strict=True):
        run = series.run_of(outcome)
        base = series.baseline(outcome, profile)
        if base is not None and outcome.status == "done" and not outcome.effects:
            finish(run.path, base)
            take_figures(run, outcome)


def is_finished(run: RunDir) -> bool:
    """Whether a directory holds a run that was made to its end."""
    return run.run_json.exists() and run.read_info().ended == COMPLETED


def _set_aside(run: RunDir) -> None:
    """Keep what an unfinished run left, out of the way of the next."""
    if not run.run_json.exists():
        return
    number = 1
    while (aside := run.path.with_name(f"{run.path.name}-unfinished-{number}")).exists():
        number += 1
    run.path.rename(aside)


def take_figures(run: RunDir, outcome: Outcome) -> None:
    """Fill an outcome from the run directory, as far as there are figures."""
    interrupted = outcome.exit_code == EXIT_INTERRUPTED
    outcome.status = "interrupted" if interrupted else "done"
    if not run.summary.exists():
        return
    summary: dict[str, Any] = json.loads(run.summary.read_bytes())
    if not interrupted and summary["run"]["ended"] != COMPLETED:
        outcome.status = "failed"
        outcome.error = f"the run did not end in order ({summary['run']['ended'] or 'cut off'})"
    outcome.verdict, outcome.reasons = summary["verdict"]["status"], summary["verdict"]["reasons"]
    outcome.figures = figures_of(run, summary)
    if summary["baseline"] is not None:
        outcome.effects = summary["baseline"]["effects"]


def worst_code(outcomes: Sequence[Outcome]) -> int:
    """4 where one could not be run, else the worst of the runs: 3 before 1 before 0."""
    return max(
        EXIT_TARGET_UNREACHABLE if outcome.status == "failed" else outcome.exit_code or 0
        for outcome in outcomes
    )


# -- the directory ---------------------------------------------------------------------------


def is_begun(out: Path | None, file_name: str) -> bool:
    """Whether a directory holds an earlier call's file. Raises RunDirError for something else."""
    if out is None or not out.exists():
        return False
    if (out / file_name).exists():
        return True
    new_run_dir("", out)  # refuses what holds files
    return False


def folder_of(out: Path | None, file_name: str, name: str) -> Path:
    """Make the directory of a series, or take the one that it goes on in."""
    if out is not None and (out / file_name).exists():
        return out.resolve()
    return new_run_dir(name, out).path


def check_same(what: str, folder: Path, different: Sequence[str]) -> None:
    """Raise UsageError, naming all that differs, where a directory holds another one."""
    if different:
        raise UsageError(
            f"--out {folder}: holds another {what}: {'; '.join(different)}",
            fix="Give a directory that is new, or the profile and flags that it was made with.",
        )


def field_differences(
    before: msgspec.Struct, now: msgspec.Struct, names: Sequence[str]
) -> list[str]:
    """Fields in which the file of an earlier call says something else."""
    return [
        f"{name} {getattr(before, name)!r}, now {getattr(now, name)!r}"
        for name in names
        if getattr(before, name) != getattr(now, name)
    ]


def profile_differences(run: RunDir, profile: Profile) -> list[str]:
    """Keys in which an earlier run had another profile; its file may have moved."""
    if not run.run_json.exists():
        return []
    then, now = run.read_info().profile, json.loads(json.dumps(profile.to_dict()))
    return [
        f"{key} of {run.path.name}" for key in now if key != "source" and then.get(key) != now[key]
    ]
