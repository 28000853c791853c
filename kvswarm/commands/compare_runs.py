"""`kvswarm compare RUN_A RUN_B ...`: finished runs against each other.

In:  run directories, and directories of `kvswarm compare` or of a sweep: their runs.
Out: a table and sentences, or the comparison as JSON, a page where one is asked for; an exit code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.analysis.comparable import Member, Origin, read_member
from kvswarm.analysis.comparison import compare_runs
from kvswarm.analysis.comparison_file import RunComparison
from kvswarm.analysis.comparison_table import render
from kvswarm.commands.compare_file import COMPARISON_FILE, read_comparison
from kvswarm.commands.series_file import Outcome
from kvswarm.commands.sweep_file import read_sweep
from kvswarm.commands.swept import SWEEP_FILE
from kvswarm.errors import EXIT_INVALID_MEASUREMENT, EXIT_PASSED, RunDirError, UsageError
from kvswarm.rundir import RunDir, write_atomically

DONE: Final = "done"
DEPLOYMENT: Final = "deployment.json"


def compare_runs_typed(values: Mapping[str, Any]) -> int:
    """Compare as the flags say, by their names; give the exit code. Raises KvswarmError."""
    comparison = compare_paths([Path(path) for path in values["runs"]], values["baseline"])
    if values["html"] is not None:
        _write_page(comparison, values["html"])
    if values["as_json"]:
        packed = msgspec.json.format(msgspec.json.encode(comparison.plain()), indent=2)
        sys.stdout.write(packed.decode() + "\n")
    else:
        render(comparison)
    return exit_code(comparison)


def _write_page(comparison: RunComparison, path: Path) -> None:
    from kvswarm.analysis.report_comparison import comparison_page  # noqa: PLC0415 - plotly is slow

    try:
        write_atomically(path, comparison_page(comparison).encode())
    except OSError as error:
        raise RunDirError(
            f"--html {path}: cannot be written: {error}", fix="Choose another place."
        ) from error


def exit_code(comparison: RunComparison) -> int:
    """3 where a run is invalid; else 0."""
    invalid = any(run.verdict == "invalid" for run in comparison.runs)
    return EXIT_INVALID_MEASUREMENT if invalid else EXIT_PASSED


def compare_paths(paths: Sequence[Path], baseline: Path | None) -> RunComparison:
    """Compare the runs of directories with that of `baseline`, or with the first.

    Raises RunDirError for what is neither a run nor holds runs; UsageError for fewer than two runs,
    the same run twice, a baseline that is none of them, and where no two can be compared.
    """
    notes: list[str] = []
    origins = [origin for path in paths for origin in origins_of(path, notes)]
    place = _baseline_place(origins, baseline)
    _check_once(origins)
    members = [read_member(origin) for origin in origins]
    comparison = compare_runs(members, place, notes)
    _check_any(comparison, members)
    return comparison


def origins_of(path: Path, notes: list[str]) -> Iterator[Origin]:
    """The runs of a directory; what is not there yet goes to the notes. Raises RunDirError."""
    if (path / COMPARISON_FILE).is_file():
        yield from _of_comparison(path, notes)
    elif (path / SWEEP_FILE).is_file():
        sweep = read_sweep(path)
        for value in _done(path, sweep.values, notes):
            yield Origin(path=path / value.directory, name=f"{sweep.key}={value.text}")
    elif (path / "run.json").is_file():
        yield Origin(path=path, name=path.resolve().name, gpus=_deployed_gpus(path))
    else:
        raise RunDirError(
            f"{path}: is no run directory: it holds no run.json, {COMPARISON_FILE} or {SWEEP_FILE}",
            fix="Name a directory that `kvswarm run`, `compare` or a sweep wrote.",
        )


def _deployed_gpus(path: Path) -> float | None:
    """GPUs of a run's service by the deployment.json in or beside its directory; None: not told.

    A file that cannot be read, or is of another service, tells nothing.
    """
    service = RunDir(path).read_info().target.service
    for place in (path / DEPLOYMENT, path.resolve().parent / DEPLOYMENT):
        try:
            deployment = json.loads(place.read_bytes())
            its = (deployment["namespace"], deployment["service"])
            gpus, replicas = deployment["flags"]["gpus"], len(deployment["pods"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if service is not None and its == (service.namespace, service.name) and gpus and replicas:
            return float(gpus * replicas)
    return None


def _of_comparison(path: Path, notes: list[str]) -> Iterator[Origin]:
    comparison = read_comparison(path)
    gpus = comparison.machine.gpus or None
    for variant in _done(path, comparison.variants, notes):
        if variant.unlike:
            left = ", ".join(variant.unlike)
            notes.append(f"{variant.text} leaves out what another has: {left}.")
        yield Origin(
            path=path / variant.directory,
            name=variant.text,
            model=comparison.model,
            backend=variant.backend,
            quantization=variant.quantization,
            gpus=gpus,
        )


def _done(path: Path, outcomes: Sequence[Any], notes: list[str]) -> Iterator[Any]:
    for outcome in outcomes:
        if outcome.status == DONE:
            yield outcome
        else:
            notes.append(f"{path}: {outcome.text} is left out: it is {_state(outcome)}.")


def _state(outcome: Outcome) -> str:
    return f"{outcome.status}: {outcome.error}" if outcome.error else outcome.status


def _baseline_place(origins: Sequence[Origin], baseline: Path | None) -> int:
    if baseline is None:
        return 0
    for place, origin in enumerate(origins):
        if origin.path.resolve() == baseline.resolve() or origin.name == str(baseline):
            return place
    names = ", ".join(origin.name for origin in origins)
    raise UsageError(
        f"--baseline {baseline}: is none of the runs that are compared",
        fix=f"Name one of them, by its directory or by its name: {names}.",
    )


def _check_once(origins: Sequence[Origin]) -> None:
    seen: set[Path] = set()
    for origin in origins:
        if (path := origin.path.resolve()) in seen:
            raise UsageError(f"{origin.path}: is given twice", fix="Name each run once.")
        seen.add(path)


def _check_any(comparison: RunComparison, members: Sequence[Member]) -> None:
    """Refuse what holds no two runs that can be compared."""
    if any(member.info.imported for member in members):
        return  # they stand beside others, and nothing is said of them
    if all(pair.obstacles for pair in comparison.pairs):
        names = {run.label: run.name for run in comparison.runs}
        texts = [
            f"{names[pair.run]} and {names[pair.against]}: {'; '.join(pair.obstacles)}"
            for pair in comparison.pairs
        ]
        raise UsageError(
            f"none of the {len(members)} runs can be compared: {' | '.join(texts)}",
            fix="Run them with the same profile, flags and seed; only the server may differ.",
        )
