"""Make everything that a run directory should end up with: table, summary, report.

Works on a finished run and on one that was cut off, and again on one that was finished before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec

from kvswarm.analysis.baseline import against_baseline
from kvswarm.analysis.estimates import estimate_section
from kvswarm.analysis.report import report_page
from kvswarm.analysis.schemas import SUMMARY, validator
from kvswarm.analysis.server import finish_server_table
from kvswarm.analysis.summary import summarise
from kvswarm.analysis.table import finish_table
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, write_atomically


def finish(path: Path, baseline: Path | None = None) -> dict[str, Any]:
    """Make requests.parquet, summary.json and report.html; give the summary.

    Raises RunDirError where `path` is no run directory, where the run goes on, and where its files
    are damaged or cannot be read or written; UsageError where `baseline` had another workload.
    """
    run = RunDir(path)
    info = run.read_info()
    try:
        table = finish_table(run)
        finish_server_table(run)
        summary = summarise(run, table)
        if baseline is not None:
            summary["baseline"] = against_baseline(run, baseline)
        summary["estimate"] = estimate_section(run, summary)
        validator(SUMMARY).validate(summary)
        packed = msgspec.json.format(msgspec.json.encode(summary), indent=2)
        write_atomically(run.summary, packed + b"\n")
        write_atomically(run.report, report_page(run, info, summary).encode())
    except OSError as error:
        raise RunDirError(
            f"{path}: the figures cannot be made: {error}",
            fix="What was measured is kept; make room or mend access, then run "
            f"`kvswarm report {path}`.",
        ) from error
    except jsonschema.ValidationError as error:
        raise RunDirError(
            f"{path}: what its files hold makes no summary: {error.json_path}: {error.message}",
            fix="No run writes that. Restore run.json or requests.parquet from a copy.",
        ) from error
    return summary
