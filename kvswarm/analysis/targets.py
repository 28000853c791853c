"""Targets of a search for the highest load, and how many requests of a run met each.

In:  texts such as `ttft_p95_ms=300`, the profile's SLOs; a run directory that was finished.
Out: `Target`s; counts of requests.

A percentile of the run is the share of requests (of gaps, for ITL) that must be within the limit.
A limit without a percentile is one of each request: all of these make one target, the goodput.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from kvswarm.analysis.gates import SLO_NAME
from kvswarm.analysis.rows import Rows, read_rows
from kvswarm.analysis.slos import meets_all_slos, meets_slo
from kvswarm.errors import UsageError
from kvswarm.rundir import RunDir

GOODPUT: Final = "goodput"
DEFAULT_GOODPUT_SHARE: Final = 0.99


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """A share of requests that must be within limits."""

    name: str
    """`goodput`, or the percentile, such as `ttft_p95_ms`."""
    share: float
    """At least this share of the requests, 0 to 1."""
    limits_ms: dict[str, float]
    """By name; of a percentile its own."""


def read_targets(
    texts: Sequence[str], profile_slo: Mapping[str, float], goodput_share: float | None
) -> tuple[Target, ...]:
    """Read `--slo NAME=MS` and `--goodput`; without the former the SLOs are the profile's.

    Raises UsageError for a name or limit that is none, and where there is no SLO at all.
    """
    targets = []
    limits_ms: dict[str, float] = {}
    for text in texts:
        name, limit_ms = _read(text)
        percentile = _share_of(name)
        if percentile is None:
            limits_ms[name] = limit_ms
        else:
            targets.append(Target(name=name, share=percentile, limits_ms={name: limit_ms}))
    if not texts:
        limits_ms = dict(profile_slo)
    if limits_ms:
        share = DEFAULT_GOODPUT_SHARE if goodput_share is None else goodput_share
        targets.insert(0, Target(name=GOODPUT, share=share, limits_ms=limits_ms))
    elif goodput_share is not None and targets:
        raise UsageError(
            "--goodput: --slo gives percentiles alone, each with its own share",
            fix="Leave it out, or limit each request, such as --slo ttft_ms=300.",
        )
    if not targets:
        raise UsageError(
            "--search: the profile has no slo to search by",
            fix="Give one or more, such as --slo ttft_p95_ms=300.",
        )
    return tuple(targets)


def _read(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    name = name.strip()
    match = SLO_NAME.fullmatch(name)
    if not equals or match is None or match[2] in {"mean", "max"}:
        raise UsageError(
            f"--slo {text}: is no limit that a search can go by",
            fix="Give a percentile of the run, such as ttft_p95_ms=300, or a limit of each "
            "request: ttft_ms, ttft_from_intended_ms, itl_ms, tpot_ms or e2e_ms.",
        )
    try:
        limit_ms = float(value)
    except ValueError:
        limit_ms = math.nan
    if not 0 < limit_ms < math.inf:
        raise UsageError(f"--slo {text}: {value!r} is no number of ms", fix=f"Give {name}=300.")
    return name, limit_ms


def _share_of(name: str) -> float | None:
    """The share that a percentile stands for."""
    match = SLO_NAME.fullmatch(name)
    if match is None or match[2] is None:
        return None
    share = float(f"0.{match[2][1:]}")
    if not 0 < share < 1:
        raise UsageError(f"--slo {name}: is no percentile", fix="Give one such as ttft_p95_ms=300.")
    return share


def count_targets(run: RunDir, targets: Sequence[Target]) -> tuple[int, list[float]]:
    """Count the measured requests of a run, and those that met each target.

    A request that failed met none. Of a percentile of ITL, the share of gaps stands for as many
    requests: gaps of one request say less than as many requests would.
    Raises RunDirError where the table is damaged.
    """
    requests = 0
    met = [0.0] * len(targets)
    gaps = [[0, 0] for _ in targets]
    successful = 0
    for rows in read_rows(run):
        requests += int(rows.measured.sum())
        successful += int(rows.good.sum())
        for place, target in enumerate(targets):
            if _of_gaps(target):
                _count_gaps(rows, next(iter(target.limits_ms.values())), gaps[place])
            else:
                met[place] += _met(rows, target)
    for place, target in enumerate(targets):
        if _of_gaps(target):
            within, total = gaps[place]
            met[place] = successful * (within / total if total else 1.0)
    return requests, met


def _of_gaps(target: Target) -> bool:
    return target.name.startswith("itl_")


def _met(rows: Rows, target: Target) -> int:
    if target.name == GOODPUT:
        return int((rows.measured & meets_all_slos(rows, target.limits_ms)).sum())
    ((name, limit_ms),) = target.limits_ms.items()
    return int((rows.good & meets_slo(rows, name, limit_ms)).sum())


def _count_gaps(rows: Rows, limit_ms: float, counts: list[int]) -> None:
    gaps_us = rows.flat("itl_us", rows.good)
    counts[0] += int(np.count_nonzero(gaps_us <= limit_ms * 1e3))
    counts[1] += len(gaps_us)
