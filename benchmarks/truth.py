"""Truth under load: what kvswarm reports against what the server did, and what it costs.

A C server on one core sends the first token after 100 ms and then one every 10 ms, 128 in all,
each in a packet of its own, and logs when it did. `kvswarm run` on another core measures it; so
does a C client with epoll, the floor. Ends with code 1 where a figure is missed.

Use: python benchmarks/truth.py [--streams 512 1024] [--repeat 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import target

LIMITS_MS = {"ttft_p50_ms": 0.5, "ttft_p99_ms": 1.0, "itl_p50_ms": 0.2, "itl_p99_ms": 0.2}
MIN_IDEAL_SHARE = 0.95
MAX_US_AT_512 = 14.0
MAX_RATIO = 2.0


def kvswarm_run(port: int, streams: int, out: Path) -> dict[str, Any]:
    """Run kvswarm on the client's core; give its summary."""
    command = target.run_command(port, streams, 2 * streams, out)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not done.stdout:
        raise SystemExit(f"kvswarm failed with code {done.returncode}:\n{done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def measure(streams: int, folder: Path) -> dict[str, Any]:
    """One run of both clients against one server."""
    with target.server(folder / "truth") as port:
        floor = target.floor(port, streams, 2 * streams)
        summary = kvswarm_run(port, streams, folder / "run")
    truth = target.read_truth(folder / "truth", with_id=True)
    true, seen = truth.figures(), target.reported(summary)
    # Two rounds of requests, each TTFT plus 127 gaps long, and no time between them.
    ideal_s = 2 * (target.TTFT_MS + (target.TOKENS - 1) * target.ITL_MS) / 1e3
    ideal_per_s = 2 * streams * target.TOKENS / ideal_s
    cpu_us = summary["generator"]["cpu_us_per_token_event"]
    row: dict[str, Any] = {"streams": streams, "ok": summary["requests"]["ok"]}
    for name in LIMITS_MS:
        row[f"true {name}"] = true[name]
        row[f"error {name}"] = seen[name] - true[name]
    row["of ideal rate"] = summary["throughput"]["output_tokens_per_s"] / ideal_per_s
    row["verdict"] = summary["verdict"]["status"]
    row["CPU us/event"] = cpu_us
    row["C client us/event"] = floor["cpu_us_per_event"]
    row["ratio"] = cpu_us / floor["cpu_us_per_event"]
    row["read lag p99 ms"] = summary["generator"]["read_lag_ms"]["p99"]
    row["coalesced"] = summary["generator"]["coalesced_share"]
    print("\n".join(summary["verdict"]["reasons"]), file=sys.stderr)
    return row


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over repeated runs; the worst verdict."""
    merged: dict[str, Any] = {}
    for key, value in rows[0].items():
        values = [row[key] for row in rows]
        merged[key] = max(values, key=len) if isinstance(value, str) else statistics.median(values)
    return merged


def misses(row: dict[str, Any]) -> list[str]:
    """What of the row is not as it must be."""
    found = [
        f"{name} off by {row[f'error {name}']:+.2f} ms, limit {limit} ms"
        for name, limit in LIMITS_MS.items()
        if abs(row[f"error {name}"]) > limit
    ]
    if row["of ideal rate"] < MIN_IDEAL_SHARE:
        found.append(
            f"{row['of ideal rate']:.1%} of the ideal rate, at least {MIN_IDEAL_SHARE:.0%}"
        )
    if row["verdict"] != "valid":
        found.append(f"verdict {row['verdict']}")
    if row["streams"] == 512 and row["CPU us/event"] > MAX_US_AT_512:
        found.append(f"{row['CPU us/event']:.1f} us per event, at most {MAX_US_AT_512}")
    if row["ratio"] > MAX_RATIO:
        found.append(f"{row['ratio']:.2f} times the C client, at most {MAX_RATIO}")
    return found


def main() -> int:
    """Measure and print; 1 where something is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    target.build()
    rows = []
    for streams in options.streams:
        runs = []
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(measure(streams, Path(folder)))
        rows.append(median(runs))
    figures = [{"figure": key, **{str(r["streams"]): r[key] for r in rows}} for key in rows[0]]
    print(target.markdown(figures))
    found = [f"{row['streams']} streams: {miss}" for row in rows for miss in misses(row)]
    print("\n".join(found) if found else "all figures held")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
