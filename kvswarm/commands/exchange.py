"""`kvswarm export` and `kvswarm import`: runs as files of other tools, and theirs as runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from kvswarm.analysis.exchange import aiperf, benchmark_report, genai_bench, guidellm, vllm_bench
from kvswarm.analysis.exchange.imported_run import ImportedRun
from kvswarm.analysis.exchange.reading import parts_of
from kvswarm.analysis.exchange.source import Source, read_source
from kvswarm.analysis.finish import finish
from kvswarm.analysis.table import ROWS_PER_GROUP
from kvswarm.analysis.terminal import render
from kvswarm.errors import RunDirError, UsageError
from kvswarm.rundir import RunDir, new_run_dir, write_atomically

EXPORTS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "vllm-bench": vllm_bench.exported,
    "aiperf": aiperf.exported,
    "guidellm": guidellm.exported,
    "genai-bench": genai_bench.exported,
    "benchmark-report": benchmark_report.exported,
}
YAML: Final = "benchmark-report"
"""The format that its readers take as YAML."""


class Importer(NamedTuple):
    """One format that can be imported."""

    detected: Callable[[Any], bool]
    parts: Callable[[list[Any]], list[Any]]
    """The runs of a file, from its JSON values."""
    imported: Callable[[Any, str], ImportedRun]


IMPORTS: Final = {
    "vllm-bench": Importer(vllm_bench.detected, list, vllm_bench.imported),
    "aiperf": Importer(aiperf.detected, aiperf.parts, aiperf.imported),
    "guidellm": Importer(guidellm.detected, guidellm.parts, guidellm.imported),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What was typed."""

    path: Path
    format_name: str | None = None
    part: int | None = None
    """Which of the runs in the file, from 1."""
    out: Path | None = None


def export(path: Path, format_name: str, *, out: Path | None, detail: bool) -> None:
    """Write a run as a file of another tool, to `out` or standard output.

    Raises RunDirError where it is not finished, UsageError where `out` cannot be written.
    """
    source: Source = read_source(RunDir(path))
    content = EXPORTS[format_name](source, detail=detail)
    packed = (
        yaml.safe_dump(content, sort_keys=False).encode()
        if format_name == YAML
        else msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    )
    if out is None:
        sys.stdout.write(packed.decode())
        return
    try:
        write_atomically(out, packed)
    except OSError as error:
        raise UsageError(
            f"--out {out}: cannot be written: {error.strerror}",
            fix="Give a file in a folder that is there and may be written to.",
        ) from error


def import_file(request: ImportRequest) -> Path:
    """Make a run directory of another tool's file, and show its figures.

    Raises UsageError where the file is none of that tool's, RunDirError where the directory cannot
    be made.
    """
    values = _values(request.path)
    name = request.format_name or _format_of(request.path, values)
    importer = IMPORTS[name]
    try:
        part = _chosen(request, importer.parts(values))
        found = importer.imported(part, request.path.name)
        table = found.table()
    except (msgspec.ValidationError, pa.ArrowException, OverflowError) as error:
        raise UsageError(
            f"{request.path}: is no result of {name} that can be read: {error}",
            fix=f"Give a file as docs/exchange.md describes it; known: {', '.join(IMPORTS)}.",
        ) from error
    run = new_run_dir(name, request.out)
    run.write_info(found.info())
    pq.write_table(table, run.requests, compression="zstd", row_group_size=ROWS_PER_GROUP)
    try:
        summary = finish(run.path)
    except RunDirError as error:
        run.run_json.unlink(missing_ok=True)
        run.requests.unlink(missing_ok=True)
        raise UsageError(
            f"{request.path}: holds figures that no run has: {error.message}",
            fix="Give the file as the tool wrote it.",
        ) from error
    console = Console()
    render(summary, console)
    console.print(f"Run directory: {run.path}", soft_wrap=True)
    return run.path


def _values(path: Path) -> list[Any]:
    try:
        values = parts_of(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}",
            fix="Give the result file that the tool wrote.",
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8
        raise UsageError(
            f"{path}: cannot be read as JSON: {error}",
            fix="Give the result file that the tool wrote.",
        ) from error
    if not values:
        raise UsageError(f"{path}: is empty", fix="Give the result file that the tool wrote.")
    return values


def _format_of(path: Path, values: list[Any]) -> str:
    for name, importer in IMPORTS.items():
        if importer.detected(values[0]):
            return name
    raise UsageError(
        f"{path}: looks like no format that can be imported",
        fix=f"Name it by --format: {', '.join(IMPORTS)}.",
    )


def _chosen(request: ImportRequest, parts: list[Any]) -> Any:
    """The run that is asked for. Raises UsageError."""
    if request.part is None and len(parts) == 1:
        return parts[0]
    if request.part is None or request.part > len(parts):
        raise UsageError(
            f"{request.path}: holds {len(parts)} runs"
            + ("" if request.part is None else f", not {request.part}"),
            fix=f"Choose one by --part, from 1 to {len(parts)}.",
        )
    return parts[request.part - 1]
