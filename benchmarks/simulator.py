"""What the embedded simulator can serve: 30,000 events/s on one core, exact times kept to 2 ms.

`kvswarm simulate --exact 100 10` on one core, read by the C client on another, over growing numbers
of streams (100 events/s each). How late a first token is comes from the simulator's truth log, what
gaps the client saw from the client. Ends with code 1 where 30,000 events/s are not held.

Use: python benchmarks/simulator.py [--streams 128 256 320]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import target

from kvswarm.simulator.launch import start_simulator

ASKED_PER_S, LIMIT_MS = 30_000, 2.0


def measure(streams: int, log: Path) -> dict[str, Any]:
    """Serve `streams` streams for four rounds."""
    exact = [
        "--model",
        "bench",
        "--exact",
        str(target.TTFT_MS),
        str(target.ITL_MS),
        "--truth-log",
        str(log),
    ]
    with start_simulator(exact) as simulator:
        os.sched_setaffinity(simulator.process.pid, {int(target.SERVER_CORE)})
        port = int(simulator.url.rpartition(":")[2])
        before = psutil.Process(simulator.process.pid).cpu_times()
        seen = target.floor(port, streams, 4 * streams)
        after = psutil.Process(simulator.process.pid).cpu_times()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    late_ms = [(line["first_token_ns"] - line["read_ns"]) / 1e6 - target.TTFT_MS for line in lines]
    last_ms = [
        (line["last_token_ns"] - line["first_token_ns"]) / 1e6 - (target.TOKENS - 1) * target.ITL_MS
        for line in lines
    ]
    span_s = (
        max(line["last_token_ns"] for line in lines) - min(line["first_token_ns"] for line in lines)
    ) / 1e9
    cpu_s = after.user + after.system - before.user - before.system
    events = len(lines) * target.TOKENS
    return {
        "streams": streams,
        "events/s while streaming": events / (span_s - 3 * target.TTFT_MS / 1e3),
        "first token late p50 ms": float(np.quantile(late_ms, 0.5)),
        "p99 ms": float(np.quantile(late_ms, 0.99)),
        "last token late p99 ms": float(np.quantile(last_ms, 0.99)),
        "ITL p50 ms": seen["itl_p50_ms"],
        "ITL p99 ms": seen["itl_p99_ms"],
        "CPU us/event": cpu_s / events * 1e6,
    }


def main() -> int:
    """Print the table; 1 where no row holds what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[128, 256, 320])
    options = parser.parse_args()
    target.build()
    rows = []
    for streams in options.streams:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(streams, Path(folder) / "truth.jsonl"))
    print(target.markdown(rows))
    held = [
        row
        for row in rows
        if row["events/s while streaming"] >= ASKED_PER_S
        and max(row["p99 ms"], row["last token late p99 ms"]) <= LIMIT_MS
    ]
    print(f"{ASKED_PER_S} events/s within {LIMIT_MS:g} ms: {'held' if held else 'NOT held'}")
    return not held


if __name__ == "__main__":
    sys.exit(main())
