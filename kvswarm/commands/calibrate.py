"""`kvswarm calibrate`: how much can one process on this machine measure truly?

In:  the largest number of streams to try, and the error to stay within.
Out: a table and a sentence.

Runs the exact simulator and the client against it at growing load, in processes of their own, and
compares what the client reports with the simulator's truth log. The first load at which TTFT p99
is further off than `error_share`, or the verdict is not `valid`, ends it. Where the simulator
itself does not keep its times, more cannot be told on this machine, and that is said.
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
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from kvswarm.errors import TargetError
from kvswarm.simulator.launch import start_simulator

TTFT_MS: Final = 100.0
ITL_MS: Final = 10.0
TOKENS: Final = 128
FIRST_STREAMS: Final = 32
MIN_IDEAL_SHARE: Final = 0.75
"""Of the token rate without any delay; below it the simulator is the bottleneck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one load showed. `error_share` is of TTFT p99."""

    streams: int
    tokens_per_s: float
    true_p99_ms: float
    seen_p99_ms: float
    itl_p99_ms: float
    verdict: str

    @property
    def error_share(self) -> float:
        """How far the reported TTFT p99 is off."""
        return abs(self.seen_p99_ms - self.true_p99_ms) / self.true_p99_ms


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
        if level.error_share > error_share or level.verdict != "valid":
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
        true_ms = _true_ttft_ms(out, truth_log)
    return Level(
        streams=streams,
        tokens_per_s=summary["throughput"]["output_tokens_per_s"],
        true_p99_ms=float(np.quantile(true_ms, 0.99)),
        seen_p99_ms=summary["ttft_ms"]["p99"],
        itl_p99_ms=summary["itl_ms"]["p99"],
        verdict=summary["verdict"]["status"],
    )


def _true_ttft_ms(out: Path, truth_log: Path) -> list[float]:
    """When the simulator wrote each first token, after the client had sent the request.

    Both clocks are this machine's. How late the simulator reads is the simulator's affair.
    """
    table = pq.read_table(out / "requests.parquet", columns=["index", "sent_ns"])
    sent_ns = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    lines = [json.loads(line) for line in truth_log.read_text().splitlines()]
    return [
        (line["first_token_ns"] - sent_ns[int(line["id"].rpartition("-")[2])]) / 1e6
        for line in lines
    ]


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
    return f"{level.streams} streams: {level.tokens_per_s:.0f} tokens/s, {level.verdict}"


def _print(levels: list[Level], error_share: float, end: str, console: Console) -> None:
    table = Table(
        "streams", "tokens/s", "TTFT p99, true", "reported", "error", "ITL p99", "verdict"
    )
    for level in levels:
        table.add_row(
            str(level.streams),
            f"{level.tokens_per_s:.0f}",
            f"{level.true_p99_ms:.2f} ms",
            f"{level.seen_p99_ms:.2f} ms",
            f"{level.error_share:.2%}",
            f"{level.itl_p99_ms:.2f} ms",
            level.verdict,
        )
    console.print(table)
    held = [
        level for level in levels if level.error_share <= error_share and level.verdict == "valid"
    ]
    if held:
        best = held[-1]
        console.print(
            f"One process measured {best.streams} streams and {best.tokens_per_s:.0f} tokens/s "
            f"within {error_share:.1%} of the truth; {end}."
        )
    else:
        console.print(f"No load was measured within {error_share:.1%} of the truth; {end}.")
