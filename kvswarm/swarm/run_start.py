"""What a run begins with, and what run.json says of it before the load.

In:  the options of a process, resolved (`wishes.py`).
Out: `RunStart`, `RunInfo`.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, field

import locust

import kvswarm
from kvswarm.profiles.model import Profile
from kvswarm.rundir import InterleaveInfo, RunDir, RunInfo, TargetInfo
from kvswarm.swarm.server_pages import metrics_info
from kvswarm.telemetry.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What a run begins with, resolved."""

    run: RunDir
    profile: Profile
    target: TargetInfo
    api_key_env: str | None
    header_names: list[str]
    ca_file: str | None
    insecure: bool
    gateway: str | None
    interleave: InterleaveInfo | None
    traceparent: bool
    argv: list[str]
    workers: list[str]
    """Locust's ids of the workers, in the order of their shards."""
    metrics: tuple[Source, ...]
    """Who is asked for metrics, with the headers of the run where they may go."""
    notes: list[str] = field(default_factory=list)
    """What is known before the run of how its figures must be read."""


def first_info(start: RunStart, run_id: str) -> RunInfo:
    """What is known of a run when it begins."""
    return RunInfo(
        run_id=run_id,
        profile=start.profile.to_dict(),
        seed=start.profile.seed,
        target=start.target,
        interleave=start.interleave,
        metrics=metrics_info(start.metrics),
        notes=list(start.notes),
        argv=start.argv,
        locust_argv=["locust", *sys.argv[1:]],
        versions={
            "kvswarm": kvswarm.__version__,
            "locust": locust.__version__,
            "python": platform.python_version(),
            "server": start.target.server_version or "unknown",
        },
        host={"name": platform.node(), "system": platform.platform(), "cpus": _cpus()},
        started_ns=time.time_ns(),
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
