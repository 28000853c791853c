"""The C server and the C client of the benchmarks: build, start, read the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
BIN = HERE / "bin"
TTFT_MS = 100.0
ITL_MS = 10.0
TOKENS = 128
CLIENT_CORE = "0"
SERVER_CORE = "1"


def build() -> None:
    """Compile the server and the floor client with cc."""
    BIN.mkdir(exist_ok=True)
    for name in ("server", "client"):
        source = HERE / "c" / f"{name}.c"
        subprocess.run(["cc", "-O2", "-Wall", "-o", BIN / name, source], check=True)


@contextmanager
def server(
    truth: Path, *, ttft_ms: float = TTFT_MS, itl_ms: float = ITL_MS, core: str = SERVER_CORE
) -> Iterator[int]:
    """Run the server on its core; give its port. The truth file is whole afterwards."""
    command = ["taskset", "-c", core, BIN / "server", "0", str(ttft_ms), str(itl_ms), truth]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())  # type: ignore[union-attr]
    finally:
        process.terminate()
        process.wait()


def run_command(
    port: int, streams: int, requests: int, out: Path, model: str = "bench"
) -> list[str]:
    """`kvswarm run` of the standard profile against a local server, on the client's core."""
    return [
        *("taskset", "-c", CLIENT_CORE, sys.executable, "-m", "kvswarm", "run"),
        *("--profile", "standard", "--url", f"http://127.0.0.1:{port}", "--model", model),
        *("--concurrency", str(streams), "--requests", str(requests)),
        *("--max-tokens", str(TOKENS), "--out", str(out), "--json"),
    ]


def floor(port: int, streams: int, requests: int) -> dict[str, Any]:
    """Run the C client on the client's core; give what it measured."""
    command = [BIN / "client", str(port), str(streams), str(requests), str(TOKENS)]
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, *command], check=True, capture_output=True, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@dataclass(frozen=True)
class Truth:
    """What the server did: TTFT per request and all gaps, in ms, and how long it took."""

    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]
    first_ns: int
    last_ns: int

    @property
    def tokens(self) -> int:
        """Tokens sent."""
        return len(self.ttft_ms) + len(self.itl_ms)

    def figures(self) -> dict[str, float]:
        """TTFT and ITL p50 and p99, in ms."""
        return {
            f"{name}_{label}_ms": float(np.quantile(values, share))
            for name, values in (("ttft", self.ttft_ms), ("itl", self.itl_ms))
            for label, share in (("p50", 0.5), ("p99", 0.99))
        }


def read_truth(path: Path, *, with_id: bool) -> Truth:
    """Read the server's log; `with_id`: of the requests that carry an X-Request-Id, or do not."""
    ttft, gaps, first, last = [], [], [], []
    for line in path.read_text().splitlines():
        name, received, _, *sent = line.split()
        if (name != "-") is not with_id:
            continue
        times = np.array(sent, dtype=np.int64)
        ttft.append((times[0] - int(received)) / 1e6)
        gaps.append(np.diff(times) / 1e6)
        first.append(int(received))
        last.append(int(times[-1]))
    return Truth(np.array(ttft), np.concatenate(gaps), min(first), max(last))


def reported(summary: dict[str, Any]) -> dict[str, float]:
    """The same four figures as kvswarm's summary has them."""
    return {
        f"{name}_{label}_ms": summary[f"{name}_ms"][label]
        for name in ("ttft", "itl")
        for label in ("p50", "p99")
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; all have the keys of the first."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *[[_cell(row[key]) for key in head] for row in rows]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
