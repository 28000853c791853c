"""sweep.json: what was swept, and what came of each value.

In:  the figures of runs.  Out: `Sweep`, as plain data on disk; `sweep.schema.json` describes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import jsonschema
import msgspec
import numpy as np

from kvswarm.analysis.rows import read_rows
from kvswarm.commands.swept import SWEEP_FILE
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, write_atomically

SCHEMA_PATH: Final = Path(__file__).with_name("sweep.schema.json")
SCHEMA_VERSION: Final = 1


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


class ValueRun(msgspec.Struct, kw_only=True):
    """One value and its run."""

    value: Any
    text: str
    """As it was written."""
    directory: str
    """The run directory, beside sweep.json."""
    status: Literal["pending", "done", "failed", "interrupted"] = "pending"
    exit_code: int | None = None
    error: str | None = None
    """Why the value could not be run."""
    verdict: str | None = None
    reasons: list[str] = []
    figures: Figures | None = None
    effects: list[dict[str, Any]] = []
    """Against the run of the first value, as in summary.json's baseline; none where the workload
    differs."""


class Sweep(msgspec.Struct, kw_only=True):
    """sweep.json."""

    schema_version: int = SCHEMA_VERSION
    key: str
    profile: str
    seed: int | None
    """Of every run; None where it is what is swept."""
    target: str
    """The URL, the command of the server, or `simulator`."""
    values: list[ValueRun]
    notes: list[str] = []

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        plain = msgspec.to_builtins(self)
        _validator().validate(plain)
        packed = msgspec.json.format(msgspec.json.encode(plain), indent=2)
        write_atomically(folder / SWEEP_FILE, packed + b"\n")


def read_sweep(folder: Path) -> Sweep:
    """Read what an earlier sweep wrote. Raises RunDirError where it is damaged or not ours."""
    path = folder / SWEEP_FILE
    try:
        plain = msgspec.json.decode(path.read_bytes())
        if isinstance(plain, dict) and plain.get("schema_version") != SCHEMA_VERSION:
            raise RunDirError(
                f"{path}: schema_version {plain.get('schema_version')}, this kvswarm reads "
                f"{SCHEMA_VERSION}",
                fix="Give another --out.",
            )
        return msgspec.convert(plain, Sweep)
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
def _validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text("utf-8")))
