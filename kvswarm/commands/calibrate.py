"""`kvswarm calibrate`: how much can one process on this machine measure truly?

In:  the largest number of streams to try, and the error to stay within.
Out: a table and a sentence.

Runs the exact simulator and the client against it at growing load, in processes of their own, and
compares what the client reports with the simulator's truth log. The first load at which TTFT p99
or ITL p99 is further off than `error_share`, or the verdict is not `valid`, ends it. Where the
simulator itself does not keep its times, more cannot be told on this machine, and that is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from kvswarm.analysis.rows import Floats, read_rows
from kvswarm.errors import TargetError
from kvswarm.rundir import RunDir
from kvswarm.simulator.launch import start_simulator

TTFT_MS: Final = 100.0
ITL_MS: Final = 10.0
TOKENS: Final = 128
FIRST_STREAMS: Final = 32
MIN_IDEAL_SHARE: Final = 0.75
"""Of the token rate without any delay; below it the simulator is the bottleneck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as the client reported it, and as it was."""

    seen_ms: float
    true_ms: float

    @property
    def error_share(self) -> float:
        """How far the report is off."""
        return abs(self.seen_ms - self.true_ms) / self.true_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one load showed."""

    streams: int
    tokens_per_s: float
    ttft_p99: Figure
    itl_p99: Figure
    verdict: str

    @property
    def error_share(self) -> float:
        """How far the worse of the two figures is off."""
        return max(self.ttft_p99.error_share, self.itl_p99.error_share)

    def holds(self, error_share: float) -> bool:
        """Whether this load was measured within the error, and nothing speaks against the run."""
        return self.error_share <= error_share and self.verdict == "valid"


def calibrate(*, max_streams: int, error_share: float) -> int:
    """Measure and print; 0 also where the limit was found. Raises TargetError."""
    console = Console()
    levels: list[Level] = []
    end = f"--max-streams {max_streams} was reached"
    streams = min(FIRST_STREAMS, max_streams)
    while True:
        level = _measure(streams)
        levels.append(level)
        console.print(_line(level), highlight=False)
        if not level.holds(error_share):
            end = f"at {streams} streams the client falls behind"
            break
        if level.tokens_per_s < MIN_IDEAL_SHARE * _ideal_tokens_per_s(streams):
            end = f"the simulator itself does not keep {streams} streams up: it shows no more"
            break
        if streams >= max_streams:
            break
        streams = min(2 * streams, max_streams)
    _print(levels, error_share, end, console)
    return 0


def _ideal_tokens_per_s(streams: int) -> float:
    return streams * TOKENS / ((TTFT_MS + (TOKENS - 1) * ITL_MS) / 1000)


def _measure(streams: int) -> Level:
    with tempfile.TemporaryDirectory() as folder:
        truth_log, out = Path(folder) / "truth", Path(folder) / "run"
        exact = ["--exact", str(TTFT_MS), str(ITL_MS), "--truth-log", str(truth_log)]
        with start_simulator(exact) as simulator:
            summary = _run(simulator.url, streams, out)
        return level_of(streams, summary, RunDir(out), truth_log)


def level_of(streams: int, summary: dict[str, Any], run: RunDir, truth_log: Path) -> Level:
    """Hold a run against the truth. Raises TargetError where one of them is not there."""
    seen_ms = [summary[name]["p99"] for name in ("ttft_ms", "itl_ms")]
    if None in seen_ms:
        raise TargetError(
            f"the run with {streams} streams measured nothing: "
            + " ".join(summary["verdict"]["reasons"]),
            fix="Errors by kind: " + json.dumps(summary["requests"]["by_error"]),
        )
    truth_ms = _truth(run, truth_log)
    ttft_p99, itl_p99 = (
        Figure(seen_ms=seen, true_ms=float(np.quantile(true, 0.99)))
        for seen, true in zip(seen_ms, truth_ms, strict=True)
    )
    return Level(
        streams=streams,
        tokens_per_s=summary["throughput"]["output_tokens_per_s"],
        ttft_p99=ttft_p99,
        itl_p99=itl_p99,
        verdict=summary["verdict"]["status"],
    )


def _truth(run: RunDir, truth_log: Path) -> tuple[Floats, Floats]:
    """TTFT and ITL in ms of the requests that are in the run's figures.

    TTFT is when the simulator wrote the first token, after the client had sent the request: both
    clocks are this machine's, and how late the simulator reads is the simulator's affair.
    """
    sent_ns: dict[int, float] = {}
    for rows in read_rows(run):
        sent_ns.update(zip(rows["index"][rows.good], rows["sent_ns"][rows.good], strict=True))
    ttft_ms, itl_us = [], []
    for text in truth_log.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # the last one, where the simulator had to be killed: it is missed below
        index = int(line["id"].rpartition("-")[2])
        if index in sent_ns:
            ttft_ms.append((line["first_token_ns"] - sent_ns[index]) / 1e6)
            itl_us.extend(line["itl_us"])
    if len(ttft_ms) < len(sent_ns):
        raise TargetError(
            f"the simulator's log has {len(ttft_ms)} of the {len(sent_ns)} requests of the run",
            fix="The simulator did not end in time. Try again with fewer --max-streams.",
        )
    return np.array(ttft_ms), np.array(itl_us) / 1000


def _run(url: str, streams: int, out: Path) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "kvswarm", "run", "--json", "--profile", "standard"),
        *("--url", url, "--concurrency", str(streams), "--requests", str(2 * streams)),
        *("--max-tokens", str(TOKENS), "--out", str(out)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    try:
        summary: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise TargetError(
            f"the run with {streams} streams failed with code {done.returncode}:\n{done.stderr}"
        ) from error
    return summary


def _line(level: Level) -> str:
    return (
        f"{level.streams} streams: {level.tokens_per_s:.0f} tokens/s, {level.verdict}, "
        f"{level.error_share:.2%} off"
    )


def _print(levels: list[Level], error_share: float, end: str, console: Console) -> None:
    table = Table("streams", "tokens/s", "p99, ms", "true", "reported", "error", "verdict")
    for level in levels:
        streams, tokens_per_s = str(level.streams), f"{level.tokens_per_s:.0f}"
        for name, figure in (("TTFT", level.ttft_p99), ("ITL", level.itl_p99)):
            texts = f"{figure.true_ms:.2f}", f"{figure.seen_ms:.2f}", f"{figure.error_share:.2%}"
            table.add_row(streams, tokens_per_s, name, *texts, level.verdict)
    console.print(table)
    held = [level for level in levels if level.holds(error_share)]
    if held:
        best = held[-1]
        console.print(
            f"One process measured {best.streams} streams and {best.tokens_per_s:.0f} tokens/s "
            f"with TTFT and ITL p99 within {error_share:.1%} of the truth; {end}."
        )
    else:
        console.print(
            f"No load was measured with TTFT and ITL p99 within {error_share:.1%} of the truth; "
            f"{end}."
        )
