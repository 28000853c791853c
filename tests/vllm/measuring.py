"""Run `kvswarm run` as a process against a server, and keep what both sides counted.

In:  a `Server` and the flags of a run.
Out: `Measured`: exit code, rows, summary, and the server's metrics from before and after.

A run that kvswarm calls invalid (exit code 3) is measured again, as its user would: on two cores
that other programs share, the client may be kept from running. What was counted must agree all the
same, so the counts of every attempt are handed back.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from serving import Histogram, Metrics, Server

logger = logging.getLogger("kvswarm.vllm")

ATTEMPTS = 5
PASSED, GATE_MISSED, INVALID = 0, 1, 3
"""Exit codes of `kvswarm run` after a measurement."""
RUN_S = 240.0
FINISHED = "vllm:request_success_total"


@dataclass(frozen=True)
class Measured:
    """One run, as both sides saw it."""

    path: Path
    """The run directory."""
    code: int
    output: str
    rows: pd.DataFrame
    summary: dict[str, Any]
    before: Metrics
    after: Metrics
    earlier: list[Measured] = field(default_factory=list)
    """The attempts that ended invalid."""

    @property
    def attempts(self) -> list[Measured]:
        """All of them, this one last."""
        return [*self.earlier, self]

    def counted(self, name: str) -> float:
        """By how much the run raised one of the server's counters."""
        return self.after.value(name) - self.before.value(name)

    def histogram(self, name: str) -> Histogram:
        """What the run added to one of the server's histograms."""
        return self.after.histogram(name).since(self.before.histogram(name))


def refined(name: str, server: Server, directory: Path, *more: str) -> Path:
    """Refine a packaged profile: exact prompts, and no gates on latency meant for a GPU."""
    path = directory / f"{name}.yaml"
    lines = [
        f"extends: {name}",
        f"tokenizer: {server.tokenizer}",
        "slo: null",
        "gate: {error_share: 0}",
        *more,
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(server: Server, directory: Path, *flags: str, seed: int | None = None) -> Measured:
    """Run until the verdict is not `invalid`, at most ATTEMPTS times.

    Each has another seed, so that no prompt comes twice, unless one is given.
    """
    earlier: list[Measured] = []
    while True:
        number = len(list(directory.iterdir()))
        chosen = number if seed is None else seed
        measured = _run(server, directory / f"run-{number}", *flags, "--seed", str(chosen))
        if measured.code != INVALID:
            return Measured(**{**vars(measured), "earlier": earlier})
        logger.info("called invalid:\n%s", measured.output)
        earlier.append(measured)
        if len(earlier) == ATTEMPTS:
            pytest.fail(f"invalid {ATTEMPTS} times; the last:\n{measured.output}")


def _run(server: Server, out: Path, *flags: str) -> Measured:
    before = server.metrics()
    command = [sys.executable, "-m", "kvswarm", "run", "--url", server.url, "--out", str(out)]
    ended = subprocess.run(
        [*command, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if ended.returncode not in {PASSED, GATE_MISSED, INVALID}:
        pytest.fail(f"kvswarm measured nothing, exit code {ended.returncode}:\n{ended.stdout}")
    rows = pd.read_parquet(out / "requests.parquet")
    return Measured(
        path=out,
        code=ended.returncode,
        output=ended.stdout,
        rows=rows,
        summary=json.loads((out / "summary.json").read_bytes()),
        before=before,
        after=_settled(server, before, len(rows)),
    )


def check_served(run: Measured) -> None:
    """One row for each request the server served, all of them ok, and the same tokens on both sides."""
    rows, requests = run.rows, run.summary["requests"]
    assert rows["error_kind"].isna().all(), rows["error_detail"].tolist()
    assert sum(requests["phases"].values()) == len(rows)
    assert requests["sent"] == requests["ok"] == (rows["phase"] == "measure").sum()
    assert sorted(rows["index"]) == list(range(len(rows)))
    assert run.counted(FINISHED) == len(rows)
    assert run.counted("vllm:generation_tokens_total") == rows["completion_tokens"].sum()
    assert run.counted("vllm:prompt_tokens_total") == rows["prompt_tokens"].sum()


def _settled(server: Server, before: Metrics, requests: int) -> Metrics:
    """Read the metrics when the server has counted the last request, which it does a moment late."""
    deadline = time.monotonic() + 10
    while True:
        after = server.metrics()
        if after.value(FINISHED) - before.value(FINISHED) >= requests:
            return after
        if time.monotonic() > deadline:
            return after
        time.sleep(0.1)
