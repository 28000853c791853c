"""The figures of a run that another tool measured.

In:  run.json with `imported`, and requests.parquet, which is empty where only sums are known.
Out: a summary as of any other run. Of what the tool does not tell, it has null or nothing.

Rows are counted as kvswarm counts its own: by the formulas of docs/metrics.md. Without rows the
figures are those that the tool had computed. What is judged of a run's own generator is not known,
so no such run is ever `valid`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kvswarm.analysis.counting import STATISTICS, Tally
from kvswarm.analysis.rows import Rows, read_rows
from kvswarm.analysis.run_facts import run_facts
from kvswarm.analysis.verdict import Evidence, judge
from kvswarm.origin import ImportedInfo
from kvswarm.profiles.model import VerdictLimits
from kvswarm.records import SCHEMA_VERSION
from kvswarm.rundir import RunDir, RunInfo

PER_REQUEST = ("ttft", "ttft_from_intended", "tpot", "e2e")
LATENCIES = (*PER_REQUEST, "itl", "connect")
NOTHING: dict[str, Any] = dict.fromkeys(
    (
        "baseline",
        "estimate",
        "server",
        "replicas",
        "interleave",
        "steady",
        "stalls",
        "cost",
        "energy",
        "outputs",
    ),
    None,
)
"""Sections that only a run of kvswarm's own has."""


def summarise_imported(run: RunDir, info: RunInfo, imported: ImportedInfo) -> dict[str, Any]:
    """Compute the figures. Raises RunDirError where the table is damaged."""
    figures = _counted(run) if imported.has_rows else _told(imported)
    told = _told(imported)
    if figures["duration_s"] is None:  # rows without moments
        figures |= {name: told[name] for name in ("duration_s", "throughput")}
    figures["goodput"] = told["goodput"]
    evidence = Evidence(
        imported_from=imported.tool,
        requests=figures["requests"]["sent"],
        succeeded=figures["requests"]["ok"],
        ended=info.ended,
    )
    verdict = judge(evidence, VerdictLimits())
    empty = Tally().latency()
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": {"status": verdict.status, "reasons": list(verdict.reasons)},
        "run": run_facts(info, None, imported),
        **figures,
        "generator": {
            "read_lag_ms": empty,
            "send_lag_ms": empty,
            "coalesced_share": 0.0,
            "cpu_s": None,
            "cpu_us_per_token_event": None,
            "clock": None,
            "workers": 0,
            "dropped_arrivals": 0,
            "failed_listeners": 0,
        },
        "variants": [],
        "effects": [],
        "claims": [],
        "gates": [],
        **NOTHING,
    }


def _counted(run: RunDir) -> dict[str, Any]:
    """The figures of the rows."""
    tallies = {name: Tally() for name in LATENCIES}
    errors: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    untold: Counter[str] = Counter()
    sent = ok = 0
    first_ns, last_ns = np.inf, -np.inf
    for rows in read_rows(run):
        good = rows.good
        phases.update(rows.texts["phase"].tolist())
        errors.update(rows.texts["error_kind"][rows.measured & ~rows.ok].tolist())
        sent, ok = sent + int(rows.measured.sum()), ok + int(good.sum())
        _tally(rows, tallies)
        first_ns = min(first_ns, np.fmin.reduce(rows["sent_ns"][good], initial=np.inf))
        last_ns = max(last_ns, np.fmax.reduce(rows["end_ns"][good], initial=-np.inf))
        for name in ("prompt", "completion"):
            values = rows[f"{name}_tokens"][good]
            tokens[name] += int(np.nansum(values))
            untold[name] += int(np.isnan(values).sum())
    duration_s = float(last_ns - first_ns) / 1e9 if last_ns > first_ns else None
    known = {name: None if untold[name] else tokens[name] for name in ("prompt", "completion")}

    def per_s(amount: int | None) -> float | None:
        return None if duration_s is None or amount is None else amount / duration_s

    return {
        "requests": {
            "sent": sent,
            "ok": ok,
            "failed": sum(errors.values()) - errors["cancelled"],
            "cancelled": errors["cancelled"],
            "by_error": {kind: count for kind, count in sorted(errors.items()) if count},
            "phases": dict(phases),
        },
        "duration_s": duration_s,
        "throughput": {
            "requests_per_s": per_s(ok),
            "output_tokens_per_s": per_s(known["completion"]),
            "input_tokens_per_s": per_s(known["prompt"]),
        },
        "goodput": {"requests_per_s": None, "share": None, "slo_share": {}},
        **{f"{name}_ms": tally.latency() for name, tally in tallies.items()},
        "tokens": {**known, "reasoning": None},
    }


def _tally(rows: Rows, tallies: dict[str, Tally]) -> None:
    for name in PER_REQUEST:
        tallies[name].add(rows.of(f"{name}_ms", rows.good) * 1e3)
    tallies["itl"].add(rows.flat("itl_us", rows.good))
    tallies["connect"].add(rows.of("connect_us", rows.good))


def _told(imported: ImportedInfo) -> dict[str, Any]:
    """The figures of the file, where it has no rows."""
    told = imported.figures
    return {
        "requests": {
            "sent": told.sent,
            "ok": told.ok,
            "failed": told.failed,
            "cancelled": told.cancelled,
            "by_error": {},
            "phases": {},
        },
        "duration_s": told.duration_s,
        "throughput": {
            "requests_per_s": told.requests_per_s,
            "output_tokens_per_s": told.output_tokens_per_s,
            "input_tokens_per_s": told.input_tokens_per_s,
        },
        "goodput": {
            "requests_per_s": told.goodput_requests_per_s,
            "share": None,
            "slo_share": {},
        },
        **{f"{name}_ms": _latency(told.latencies.get(f"{name}_ms", {})) for name in LATENCIES},
        "tokens": {
            "prompt": told.prompt_tokens,
            "completion": told.completion_tokens,
            "reasoning": None,
        },
    }


def _latency(told: dict[str, float | None]) -> dict[str, float | int | None]:
    """Null for each statistic that is not told; count null where others are, else 0."""
    if not told:
        return Tally().latency()
    figures: dict[str, float | int | None] = {name: told.get(name) for name in STATISTICS}
    count = told.get("count")
    figures["count"] = None if count is None else round(count)
    return figures
