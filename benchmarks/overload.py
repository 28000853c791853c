"""Overload is admitted: what kvswarm reports and what verdict it gives, far past what it can do.

The C server of `truth.py`, measured over a grid: from few streams to many more than one core can
read; the client's core to itself, shared with one and with three busy loops, and the client
stopped for a second in mid-run. A run whose TTFT p99 or ITL p99 is off from the server's log by
more than 5 % or 2 ms must not be called valid; one within 1 % must not be called invalid; the
exit code is 3 where it is invalid. Ends with code 1 where one of these does not hold.

Use: python benchmarks/overload.py [--streams 256 512 1024 2048 4096] [--repeat 1]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import target

BUSY_LOOP = "while True: pass"
CONDITIONS = {"alone": 0, "1 busy loop": 1, "3 busy loops": 3, "stopped for 1 s": 0}
OFF_SHARE, OFF_MS, CLOSE_SHARE = 0.05, 2.0, 0.01
EXIT_INVALID = 3
STOP_AFTER_S = 0.8


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep the client's core busy with other work."""
    command = ["taskset", "-c", target.CLIENT_CORE, sys.executable, "-c", BUSY_LOOP]
    loops = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def stop_in_mid_run(process: subprocess.Popen[str], out: Path) -> None:
    """Stop the process that measures for a second, some time after its load has begun."""
    while process.poll() is None and not _has_begun(out):
        time.sleep(0.02)
    time.sleep(STOP_AFTER_S)
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            if "locust" in child.cmdline():
                os.kill(child.pid, signal.SIGSTOP)
                time.sleep(1)
                os.kill(child.pid, signal.SIGCONT)


def _has_begun(out: Path) -> bool:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return json.loads((out / "run.json").read_text()).get("load_started_ns") is not None
    return False


def measure(streams: int, condition: str, folder: Path) -> dict[str, Any]:
    """One run of the grid."""
    out = folder / "run"
    with target.server(folder / "truth") as port, busy_loops(CONDITIONS[condition]):
        process = subprocess.Popen(
            target.run_command(port, streams, 2 * streams, out),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if condition.startswith("stopped"):
            stop_in_mid_run(process, out)
        stdout, stderr = process.communicate()
    if not stdout:
        raise SystemExit(f"kvswarm failed with code {process.returncode}:\n{stderr}")
    summary = json.loads(stdout)
    true = target.read_truth(folder / "truth", with_id=True).figures()
    seen = target.reported(summary)
    row: dict[str, Any] = {"streams": streams, "client's core": condition}
    for name in ("ttft_p99_ms", "itl_p99_ms"):
        row[f"true {name}"] = true[name]
        row[f"reported {name}"] = seen[name]
    row["worst error"] = f"{max(errors(row), key=lambda error: error[1])[1]:.1%}"
    row["verdict"] = summary["verdict"]["status"]
    row["exit"] = process.returncode
    row["right"] = "yes" if is_right(row) else "NO"
    return row


def errors(row: dict[str, Any]) -> list[tuple[float, float]]:
    """Error of TTFT p99 and of ITL p99: in ms, and as a share of the truth."""
    return [
        (abs(row[f"reported {name}"] - row[f"true {name}"]),
         abs(row[f"reported {name}"] / row[f"true {name}"] - 1))
        for name in ("ttft_p99_ms", "itl_p99_ms")
    ]  # fmt: skip


def is_right(row: dict[str, Any]) -> bool:
    """Does the verdict say what the errors are?"""
    found = errors(row)
    off = any(error_ms > OFF_MS or share > OFF_SHARE for error_ms, share in found)
    close = all(share <= CLOSE_SHARE for _, share in found)
    if off and row["verdict"] == "valid":
        return False
    if close and row["verdict"] == "invalid":
        return False
    return (row["exit"] == EXIT_INVALID) == (row["verdict"] == "invalid")


def main() -> int:
    """Go over the grid; print the table; 1 where a verdict is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    target.build()
    rows = []
    for condition in options.conditions:
        for streams in options.streams * options.repeat:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(streams, condition, Path(folder)))
                print(rows[-1], file=sys.stderr)
    print(target.markdown(rows))
    wrong = sum(row["right"] != "yes" for row in rows)
    print(f"{wrong} of {len(rows)} verdicts are wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
