"""What came of each run of a series, as plain data in a JSON file beside the run directories.

In:  the figures of runs.  Out: `Outcome`s; a file, checked by its JSON Schema.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import jsonschema
import msgspec
import numpy as np

from kvswarm.analysis.rows import read_rows
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, write_atomically


class Figures(msgspec.Struct, kw_only=True):
    """The main figures of a run, from its summary.json; None: there is none."""

    requests_ok: int
    requests_failed: int
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    itl_p99_ms: float | None
    tpot_p50_ms: float | None
    output_tokens_per_s: float
    tokens_per_event: float | None
    """Of all measured requests together, where the server tells how many tokens it made."""
    acceptance_share: float | None
    """Accepted of the drafted tokens, by the server's counters."""
    mean_acceptance_length: float | None


class Outcome(msgspec.Struct, kw_only=True):
    """One run of a series."""

    text: str
    """What it is a run of, as people read it."""
    directory: str
    """The run directory, beside the file."""
    status: Literal["pending", "done", "failed", "interrupted"] = "pending"
    exit_code: int | None = None
    error: str | None = None
    """Why it could not be run."""
    verdict: str | None = None
    reasons: list[str] = []
    figures: Figures | None = None
    effects: list[dict[str, Any]] = []
    """Against the run of the first, as in summary.json's baseline; none where the workload
    differs."""


Series = TypeVar("Series", bound=msgspec.Struct)


def write_series(series: msgspec.Struct, path: Path, schema_path: Path) -> None:
    """Write the file whole or not at all."""
    plain = msgspec.to_builtins(series)
    _validator(schema_path).validate(plain)
    packed = msgspec.json.format(msgspec.json.encode(plain), indent=2)
    write_atomically(path, packed + b"\n")


def read_series(path: Path, kind: type[Series], schema_version: int) -> Series:
    """Read what an earlier call wrote. Raises RunDirError where it is damaged or not ours."""
    try:
        plain = msgspec.json.decode(path.read_bytes())
        if isinstance(plain, dict) and plain.get("schema_version") != schema_version:
            raise RunDirError(
                f"{path}: schema_version {plain.get('schema_version')}, this kvswarm reads "
                f"{schema_version}",
                fix="Give another --out.",
            )
        return msgspec.convert(plain, kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RunDirError(
            f"{path}: cannot be read: {error}", fix="Restore it from a copy, or give another --out."
        ) from error


def figures_of(run: RunDir, summary: dict[str, Any]) -> Figures:
    """Take the main figures out of a run's summary and rows."""
    requests = summary["requests"]
    speculation = (summary["server"] or {}).get("speculation") or {}
    return Figures(
        requests_ok=requests["ok"],
        requests_failed=requests["failed"],
        ttft_p50_ms=summary["ttft_ms"]["p50"],
        ttft_p99_ms=summary["ttft_ms"]["p99"],
        itl_p99_ms=summary["itl_ms"]["p99"],
        tpot_p50_ms=summary["tpot_ms"]["p50"],
        output_tokens_per_s=summary["throughput"]["output_tokens_per_s"],
        tokens_per_event=_tokens_per_event(run),
        acceptance_share=speculation.get("acceptance_share"),
        mean_acceptance_length=speculation.get("mean_acceptance_length"),
    )


def _tokens_per_event(run: RunDir) -> float | None:
    tokens = events = 0.0
    for rows in read_rows(run):
        told = rows.good & ~np.isnan(rows["completion_tokens"])
        tokens += float(rows["completion_tokens"][told].sum())
        events += float(rows["events"][told].sum())
    return tokens / events if events else None


@cache
def _validator(schema_path: Path) -> Any:
    return jsonschema.Draft202012Validator(json.loads(schema_path.read_text("utf-8")))
