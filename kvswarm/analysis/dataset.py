"""A folder of runs as a data set: DataFrames for notebooks and scripts.

In:  run directories that were finished (`kvswarm report` finishes one).
Out: `Dataset`: its tables `runs`, `requests`, `server`, and `gaps` of the runs that are asked for.

docs/exchange.md lists the columns. Missing is NA, NaN or None, never 0. Moments are those of the
master's clock, as in the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvswarm.analysis.rows import MOMENTS, ahead_ns, clock_offsets_ns, open_table
from kvswarm.analysis.table import LISTS
from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, RunInfo

LATENCIES: Final = ("ttft", "ttft_from_intended", "itl", "tpot", "e2e", "connect")
STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "max")
WHOLE: Final = {
    pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype(),
}  # fmt: skip
"""Types that have no room for what is missing, and those that do: as floats, ns would be lost."""


@dataclass(frozen=True)
class Dataset:
    """Finished runs. The tables but `runs` are read when first asked for."""

    root: Path
    runs: pd.DataFrame
    """One row per run, by the name in its column `run`: its path below `root`."""
    skipped: dict[str, str]
    """Run directories that are not in it, each with the reason: unfinished or damaged ones."""

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request, of all phases, failed ones too; without the gaps."""
        return _joined([_requests(name, run) for name, run in self._each()])

    @cached_property
    def server(self) -> pd.DataFrame:
        """One row per sample of the servers' own metrics: run, time_ns, replica, name, labels."""
        return _joined([_server(name, run) for name, run in self._each() if run.server.exists()])

    def gaps(self, run: str | Sequence[str] | None = None) -> pd.DataFrame:
        """One row per gap between token-bearing events, of all runs or those named.

        Columns: run, index (of the request), event (the gap's number in its request, from 0),
        itl_ms. A run of a million requests may have 10**8 of them, so name the runs you need.
        Raises RunDirError for a name that is not in `runs`.
        """
        wanted = [run] if isinstance(run, str) else run
        known = set(self.runs["run"])
        for name in wanted or ():
            if name not in known:
                raise RunDirError(
                    f"{self.root}: holds no run {name!r}",
                    fix=f"The column `run` names them: {', '.join(sorted(known)[:5])} ...",
                )
        return _joined(
            [_gaps(name, each) for name, each in self._each() if wanted is None or name in wanted]
        )

    def _each(self) -> Iterator[tuple[str, RunDir]]:
        for name in self.runs["run"]:
            yield str(name), RunDir(self.root / str(name))


def load_dataset(root: Path) -> Dataset:
    """Find the runs at or below a directory. Raises RunDirError where none is finished."""
    if not root.is_dir():
        raise RunDirError(
            f"{root}: is no directory", fix="Give a run directory, or a folder that holds some."
        )
    lines: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for run_json in sorted(root.rglob("run.json")):
        run = RunDir(run_json.parent)
        name = run.path.relative_to(root).as_posix()
        try:
            lines.append({"run": name, **_line(run)})
        except RunDirError as error:
            skipped[name] = error.message
    if not lines:
        reasons = "; ".join(skipped.values()) or "no run.json at any depth"
        raise RunDirError(
            f"{root}: holds no finished run: {reasons}",
            fix="Give a folder of run directories; `kvswarm report RUN` finishes one.",
        )
    return Dataset(root, pd.DataFrame(lines), skipped)


def _line(run: RunDir) -> dict[str, Any]:
    """The row of a run. Raises RunDirError where it is not finished, or damaged."""
    info = run.read_info()
    try:
        summary = msgspec.json.decode(run.summary.read_bytes())
        return _figures(info, summary)
    except FileNotFoundError as error:
        raise RunDirError(
            f"{run.path}: has no summary.json: it goes on, or was cut off",
            fix=f"Make it: kvswarm report {run.path}",
        ) from error
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise RunDirError(
            f"{run.summary}: cannot be read: {error}", fix=f"Remake it: kvswarm report {run.path}"
        ) from error


def _figures(info: RunInfo, summary: dict[str, Any]) -> dict[str, Any]:
    told, requests, imported = summary["run"], summary["requests"], info.imported
    load = info.profile.get("load", {})
    line: dict[str, Any] = {
        "id": told["id"],
        "verdict": summary["verdict"]["status"],
        **{name: told[name] for name in ("profile", "pattern", "model", "target", "endpoint")},
        "seed": told["seed"],
        "started": pd.to_datetime(told["started"], utc=True),
        "concurrency": load.get("concurrency") if imported is None else imported.concurrency,
        "rate_rps": load.get("rate_rps") if imported is None else imported.rate_rps,
        "imported_from": None if imported is None else imported.tool,
        "duration_s": summary["duration_s"],
        **{name: requests[name] for name in ("sent", "ok", "failed", "cancelled")},
        **summary["throughput"],
        "goodput_requests_per_s": summary["goodput"]["requests_per_s"],
        "goodput_share": summary["goodput"]["share"],
    }
    for name in LATENCIES:
        for statistic in STATISTICS:
            line[f"{name}_{statistic}_ms"] = summary[f"{name}_ms"][statistic]
    return line


def _requests(name: str, run: RunDir) -> pd.DataFrame:
    with open_table(run) as file:
        columns = [each for each in file.schema_arrow.names if each not in LISTS]
        table = file.read(columns=columns)
    frame: pd.DataFrame = table.to_pandas(types_mapper=WHOLE.get)
    offsets_ns = clock_offsets_ns(run.read_info())
    if offsets_ns:
        ahead = ahead_ns(frame["worker"].to_numpy(dtype=float), offsets_ns).astype(np.int64)
        for moment in MOMENTS:
            frame[moment] = frame[moment] - ahead
    frame.insert(0, "run", name)
    return frame


def _server(name: str, run: RunDir) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(run.server).to_pandas(types_mapper=WHOLE.get)
    except (OSError, pa.ArrowException) as error:
        raise RunDirError(
            f"{run.server}: cannot be read: {error}", fix="Restore the file from a copy."
        ) from error
    frame["labels"] = [json.loads(text) for text in frame["labels"]]
    frame.insert(0, "run", name)
    return frame


def _gaps(name: str, run: RunDir) -> pd.DataFrame:
    with open_table(run) as file:
        table = file.read(columns=["index", "itl_us"])
    gaps = table.column("itl_us").combine_chunks()
    if isinstance(gaps, pa.ChunkedArray):
        gaps = pa.concat_arrays(gaps.chunks)
    counts = gaps.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(counts)
    return pd.DataFrame(
        {
            "run": pd.Series([name], dtype="category").repeat(int(counts.sum())).array,
            "index": np.repeat(table.column("index").to_numpy(), counts),
            "event": np.arange(int(counts.sum())) - np.repeat(ends - counts, counts),
            "itl_ms": gaps.flatten().to_numpy(zero_copy_only=False) / 1000,
        }
    )


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame()
    whole = pd.concat(frames, ignore_index=True)
    whole["run"] = whole["run"].astype("category")
    return whole
