"""Memory over a long run: 200,000 requests of 128 tokens must stay under 400 MB in the client.

`kvswarm run` against `kvswarm simulate --exact` with tiny times; the resident memory of the
process that measures is looked at all the time. What is recorded goes to the run directory, so
memory must not grow with the number of requests. Ends with code 1 above the limit.

Use: python benchmarks/memory.py [--requests 200000] [--streams 256]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import target

from kvswarm.simulator.launch import start_simulator

LIMIT_MB = 400
LOOK_S = 0.5
EXACT = ["--exact", "10", "1"]


def rss_mb(process: subprocess.Popen[str]) -> dict[str, float]:
    """Resident memory of kvswarm's processes, by what each does."""
    found: dict[str, float] = {}
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process.pid)
        for member in [parent, *parent.children(recursive=True)]:
            kind = "load generator" if "locust" in member.cmdline() else "command"
            found[kind] = max(found.get(kind, 0.0), member.memory_info().rss / 1e6)
    return found


def main() -> int:
    """Run, look, print; 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=256)
    options = parser.parse_args()
    most: dict[str, float] = {}
    over_time: list[float] = []
    with tempfile.TemporaryDirectory() as folder, start_simulator(EXACT) as simulator:
        os.sched_setaffinity(simulator.process.pid, {int(target.SERVER_CORE)})
        port = int(simulator.url.rpartition(":")[2])
        out = Path(folder) / "run"
        command = target.run_command(port, options.streams, options.requests, out, "sim")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started_s = time.monotonic()
        while process.poll() is None:
            for kind, megabytes in rss_mb(process).items():
                most[kind] = max(most.get(kind, 0.0), megabytes)
                if kind == "load generator":
                    over_time.append(megabytes)
            time.sleep(LOOK_S)
        took_s = time.monotonic() - started_s
        summary = json.loads(process.communicate()[0])
    tenths = [over_time[len(over_time) * tenth // 10] for tenth in range(1, 10)]
    print(f"{summary['requests']['ok']} requests ok of {options.requests} in {took_s:.0f} s")
    print("load generator, MB by tenths of the run:", *(f"{value:.0f}" for value in tenths))
    for kind, megabytes in most.items():
        print(f"{kind}: at most {megabytes:.0f} MB")
    return max(most.values()) > LIMIT_MB or summary["requests"]["ok"] != options.requests


if __name__ == "__main__":
    sys.exit(main())
