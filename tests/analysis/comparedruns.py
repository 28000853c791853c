"""Finished run directories whose latencies are known, for tests of comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rundirs import failed, good, profile, run_info, worker, write_run

from kvswarm.analysis.finish import finish
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir


def finished_run(  # noqa: PLR0913 - what a test varies
    path: Path,
    *,
    requests: int = 300,
    factor: float = 1.0,
    noise: int = 1,
    failures: int = 0,
    of: Profile | None = None,
    **info: Any,
) -> RunDir:
    """A run with log-normal latencies, all times longer by `factor`, failures evenly spread; `noise` is its seed."""
    generator = np.random.default_rng(noise)
    common = np.random.default_rng(0).normal(0, 0.2, requests)  # of the requests, in every run
    ttft_ms = 100.0 * factor * np.exp(common + generator.normal(0, 0.2, requests))
    gaps_ms = 10.0 * factor * np.exp(generator.normal(0, 0.2, (requests, 4)))
    records: list[Any] = [
        good(
            index,
            at_ms=index * 50.0 * factor,
            ttft_ms=float(ttft_ms[index]),
            gaps_ms=tuple(gaps_ms[index]),
        )
        for index in range(requests)
    ]
    for index in range(0, requests, requests // failures) if failures else ():
        at_ms = index * 50.0 * factor
        records[index] = failed(index, "http_500", at_ms=at_ms)
    details = {"workers": [worker(records=requests)], **info}
    run = write_run(
        path, [records], run_info(of or profile(load={"requests": requests}), **details)
    )
    finish(path)
    return run
