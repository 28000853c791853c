"""What the measured window cost, and per request and token.

In:  cost.json, cluster.jsonl and the figures of a run.
Out: the sections `cost` and `energy` of summary.json.  docs/cost.md tells what is in them and why.

A cost is that of the machines for as long as they were held, used or not: all of it is borne by the
tokens and requests of the window. What lacks a price is None, never 0; a note says what to give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.analysis.cost_basis import CostBasis, read_basis
from kvswarm.analysis.energy import Work, energy_section
from kvswarm.analysis.pods import OVER, Pod, told_by
from kvswarm.analysis.rows import Floats, ahead_ns, clock_offsets_ns, open_table
from kvswarm.clusterlog import read_log
from kvswarm.rundir import RunDir, RunInfo

NS_PER_HOUR: Final = 3.6e12
SLICE: Final = re.compile(r"\dg\.\d+gb")
"""A GPU by whose name it is a part of one: exporters tell of the whole."""
PER_MILLION: Final = 1e6
PER_THOUSAND: Final = 1e3


@dataclass(frozen=True, slots=True)
class Counted:
    """The part of a run that throughput is counted over, ns."""

    start_ns: float
    end_ns: float

    @property
    def hours(self) -> float:
        """Its length."""
        return max(0.0, self.end_ns - self.start_ns) / NS_PER_HOUR


def cost_sections(
    run: RunDir, info: RunInfo, summary: dict[str, Any], counted: Counted | None
) -> dict[str, Any]:
    """`cost` and `energy`, by the other figures of the summary. `counted`: None, where none is.

    Raises RunDirError where a file is damaged.
    """
    basis = read_basis(run)
    if counted is None or not np.isfinite([counted.start_ns, counted.end_ns]).all():
        return {"cost": None, "energy": None}
    rates, duration_s = summary["throughput"], summary["duration_s"]
    work = Work(
        start_ns=int(counted.start_ns),
        end_ns=int(counted.end_ns),
        requests=rates["requests_per_s"] * duration_s,
        output_tokens=rates["output_tokens_per_s"] * duration_s,
    )
    energy = energy_section(run, work, None if basis is None else basis.idle_w_per_gpu)
    if basis is None:
        return {"cost": None, "energy": energy}
    return {"cost": _cost(run, info, summary, counted, basis), "energy": energy}


@dataclass(frozen=True, slots=True)
class _Held:
    """How long replicas were held in the window, and who says so."""

    replica_hours: float | None
    by: str | None
    notes: tuple[str, ...] = ()


def _cost(
    run: RunDir, info: RunInfo, summary: dict[str, Any], counted: Counted, basis: CostBasis
) -> dict[str, Any]:
    held = _held(run, counted, basis)
    replica_hour_usd = basis.replica_hour_usd
    window_usd = None
    if replica_hour_usd is not None and held.replica_hours is not None:
        window_usd = replica_hour_usd * held.replica_hours
    hours = counted.hours
    idle_share, idle_by = _idle(run, info, summary, counted)
    gpus = basis.gpus_per_replica
    replica_hours = held.replica_hours
    return {
        "gpu": basis.gpu,
        "gpus_per_replica": gpus,
        "replicas_mean": None if replica_hours is None or not hours else replica_hours / hours,
        "replicas_by": held.by,
        "replica_hours": replica_hours,
        "gpu_hours": None if replica_hours is None or gpus is None else gpus * replica_hours,
        "gpu_hour_usd": basis.gpu_hour_usd,
        "replica_hour_usd": replica_hour_usd,
        "overhead_share": basis.overhead_share,
        "price_source": basis.price_source,
        "price_as_of": basis.price_as_of,
        "price_region": basis.price_region,
        "window_usd": window_usd,
        "per_hour_usd": None if window_usd is None or not hours else window_usd / hours,
        **_per_work(window_usd, summary),
        "idle_share": idle_share,
        "idle_by": idle_by,
        "idle_usd": None if window_usd is None or idle_share is None else window_usd * idle_share,
        "notes": [*basis.notes, *held.notes, *_lacking(basis, held), *_gpus_told(summary, basis)],
    }


def _per_work(window_usd: float | None, summary: dict[str, Any]) -> dict[str, float | None]:
    """The whole cost of the window by each kind of work that was done in it."""
    duration_s, rates, requests = (summary[k] for k in ("duration_s", "throughput", "requests"))
    ok = rates["requests_per_s"] * duration_s
    prompt = rates["input_tokens_per_s"] * duration_s
    output = rates["output_tokens_per_s"] * duration_s
    ended_per_ok = (requests["ok"] + requests["failed"]) / requests["ok"] if requests["ok"] else 0.0
    valid_share = (summary["outputs"] or {}).get("valid_share")

    def per(amount: float, unit: float = 1.0) -> float | None:
        return None if window_usd is None or amount <= 0 else window_usd / amount * unit

    return {
        "per_request_usd": per(ok * ended_per_ok),
        "per_successful_request_usd": per(ok),
        "per_good_request_usd": per(summary["goodput"]["requests_per_s"] * duration_s),
        "per_valid_answer_usd": per(0.0 if valid_share is None else ok * valid_share),
        "per_1k_input_tokens_usd": per(prompt, PER_THOUSAND),
        "per_1k_output_tokens_usd": per(output, PER_THOUSAND),
        "per_1k_tokens_usd": per(prompt + output, PER_THOUSAND),
        "per_million_input_tokens_usd": per(prompt, PER_MILLION),
        "per_million_output_tokens_usd": per(output, PER_MILLION),
        "per_million_tokens_usd": per(prompt + output, PER_MILLION),
    }


def _held(run: RunDir, counted: Counted, basis: CostBasis) -> _Held:
    """By what a person said, else by what the cluster saw, else by the pods before the load."""
    if basis.replicas_given and basis.replicas is not None:
        return _Held(basis.replicas * counted.hours, "given")
    log = read_log(run.cluster_log)
    told = None if log is None else told_by(log)
    if told is not None and told.service.pods_known and told.pods:
        held_ns = 0.0
        for pod in told.pods:
            scheduled = pod.reached.get("scheduled")
            if scheduled is not None:  # without a node, it holds none
                begin_ns = max(scheduled.ns, counted.start_ns)
                held_ns += max(0.0, min(_left_ns(pod), counted.end_ns) - begin_ns)
        return _Held(held_ns / NS_PER_HOUR, "cluster")
    if basis.replicas is not None:
        note = "replicas are those before the load; what came or went meanwhile is not known."
        return _Held(basis.replicas * counted.hours, "before", (note,))
    return _Held(None, None)


def _left_ns(pod: Pod) -> float:
    """When it gave its node back: at its end, or where it was told to end, once it is gone."""
    if pod.deleted_ns is not None:
        return pod.deleted_ns
    return float(pod.there.times_ns[-1]) if pod.last.phase in OVER else np.inf


def _lacking(basis: CostBasis, held: _Held) -> list[str]:
    """What to give so that there is a cost."""
    lacking = [*basis.lacking]
    if held.replica_hours is None:
        lacking.append("how many replicas ran: --replicas R")
    return [f"no cost: give {'; '.join(lacking)}."] if lacking else []


def _gpus_told(summary: dict[str, Any], basis: CostBasis) -> list[str]:
    """A note, where the exporters tell of other GPUs than those that are paid for."""
    told = ((summary["server"] or {}).get("gpu") or {}).get("gpus")
    wanted = basis.gpus_per_replica and basis.replicas and basis.gpus_per_replica * basis.replicas
    if not told or not wanted or told == wanted or SLICE.search(basis.gpu or ""):
        return []
    return [
        f"the exporters tell of {told} GPUs, the cost is of {wanted}: use and energy are of all "
        "that they tell of."
    ]


def _idle(
    run: RunDir, info: RunInfo, summary: dict[str, Any], counted: Counted
) -> tuple[float | None, str | None]:
    """The share of the window in which nothing was done for it, and by what."""
    use = ((summary["server"] or {}).get("gpu") or {}).get("utilisation_share")
    if use is not None:
        return max(0.0, 1.0 - use), "gpu_utilisation"
    length_ns = counted.end_ns - counted.start_ns
    if length_ns <= 0:
        return None, None
    parts = list(_in_flight(run, info))
    sent = np.concatenate([np.empty(0), *(each for each, _ in parts)])
    end = np.concatenate([np.empty(0), *(each for _, each in parts)])
    return max(0.0, 1.0 - busy_ns(sent, end, counted) / length_ns), "in_flight"


def _in_flight(run: RunDir, info: RunInfo) -> Iterator[tuple[Floats, Floats]]:
    """When requests were sent and ended, of all that were sent, ns."""
    offsets_ns = clock_offsets_ns(info)
    with open_table(run) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["sent_ns", "end_ns", "worker"])
            sent, end, worker = (
                table.column(name).to_numpy().astype(np.float64) for name in table.column_names
            )
            ahead = ahead_ns(worker, offsets_ns)
            was_sent = ~np.isnan(sent) & ~np.isnan(end)
            yield (sent - ahead)[was_sent], (end - ahead)[was_sent]


def busy_ns(begins: Floats, ends: Floats, counted: Counted) -> float:
    """For how long of the window any of these spans went on, ns."""
    length_ns = counted.end_ns - counted.start_ns
    begins = np.clip(begins - counted.start_ns, 0.0, length_ns)
    ends = np.clip(ends - counted.start_ns, 0.0, length_ns)
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    before = np.concatenate(([0.0], ends))[:-1]
    return float(np.maximum(ends - np.maximum(begins, before), 0.0).sum())
