"""`kvswarm gate`: hold a finished run against SLOs, and against a baseline."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvswarm.analysis.baseline import baseline_profile, check_same_workload
from kvswarm.analysis.finish import finish
from kvswarm.analysis.gate_markdown import gate_markdown
from kvswarm.analysis.gate_words import gating_lines
from kvswarm.analysis.gating import Gated, Gating, limit_checks, regression_checks
from kvswarm.analysis.junit import junit_xml
from kvswarm.analysis.samples import samples_of
from kvswarm.analysis.slo_file import SloFile, read_slo_file
from kvswarm.errors import RunDirError, UsageError
from kvswarm.rundir import RunDir, Versioned, check_version, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What was typed."""

    run: Path
    slo: Path
    baseline: Path | None
    junit: Path | None
    markdown: str | None
    as_json: bool


def gate(request: GateRequest) -> int:
    """Judge, write and show; give the exit code.

    Raises UsageError for a file of SLOs that cannot be understood and for a baseline of another
    workload, RunDirError for what is no finished run and for files that cannot be written.
    """
    if request.as_json and request.markdown == "-":
        raise UsageError(
            "--json and --markdown -: both want standard output",
            fix="Give --markdown a file.",
        )
    slos = read_slo_file(request.slo)
    _check_asked(slos, request)
    gating = judge(slos, request)
    if request.junit is not None:
        _write(request.junit, "--junit", junit_xml(gating))
    if request.markdown not in {None, "-"}:
        _append(Path(str(request.markdown)), gate_markdown(gating))
    if request.as_json:
        packed = msgspec.json.format(msgspec.json.encode(gating.to_dict()), indent=2)
        sys.stdout.write(packed.decode() + "\n")
    elif request.markdown == "-":
        sys.stdout.write(gate_markdown(gating))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in gating_lines(gating)))
    return gating.exit_code


def judge(slos: SloFile, request: GateRequest) -> Gating:
    """Hold the run against the file, and against the baseline where there is one."""
    if request.baseline is not None:
        check_same_workload(baseline_profile(request.run), request.baseline)
    run = _gated(request.run)
    checks = limit_checks(slos, run.summary)
    baseline = None
    if request.baseline is not None:
        baseline = _gated(request.baseline)
        checks += regression_checks(
            slos,
            samples_of(RunDir(request.run)),
            samples_of(RunDir(request.baseline)),
            paired=not baseline_profile(request.run).has_dialogues,
        )
    return Gating(slo=slos.source, run=run, baseline=baseline, checks=tuple(checks))


def _check_asked(slos: SloFile, request: GateRequest) -> None:
    """Neither a margin nor a baseline may be left aside in silence."""
    if slos.margins and request.baseline is None:
        raise UsageError(
            f"{slos.source}: regression needs a baseline to compare with",
            fix="Give --baseline RUN, or leave `regression` out of the file.",
        )
    if request.baseline is not None and request.baseline.resolve() == request.run.resolve():
        raise UsageError(
            f"--baseline {request.baseline}: is the run itself", fix="Give an earlier run."
        )
    if request.baseline is not None and not slos.margins:
        raise UsageError(
            f"--baseline {request.baseline}: {slos.source} has no `regression`",
            fix="Say what may not get worse, such as `regression: {ttft_p95_ms: 5%}`.",
        )


def _gated(path: Path) -> Gated:
    """A finished run; one that was cut off is finished here. Raises RunDirError."""
    run = RunDir(path)
    run.read_info()
    if run.going_on:
        raise RunDirError(f"{path}: the run goes on", fix="Wait until it has ended.")
    if not (run.summary.exists() and run.requests.exists()):
        return Gated(path=str(path), summary=finish(path))
    try:
        content = run.summary.read_bytes()
        check_version(run.summary, msgspec.json.decode(content, type=Versioned).schema_version)
        return Gated(path=str(path), summary=msgspec.json.decode(content))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunDirError(
            f"{run.summary}: cannot be read: {error}", fix=f"Remake it: kvswarm report {path}"
        ) from error


def _write(path: Path, flag: str, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise RunDirError(
            f"{flag} {path}: cannot be written: {error.strerror}", fix="Give another path."
        ) from error


def _append(path: Path, text: str) -> None:
    """To what is there: a job's summary has the words of other steps."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunDirError(
            f"--markdown {path}: cannot be written: {error.strerror}", fix="Give another path."
        ) from error
