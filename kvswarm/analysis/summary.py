"""The figures of a run: summary.json.

In:  run.json and requests.parquet.
Out: `summarise(run)`, a dict that `summary.schema.json` describes; docs/metrics.md defines each.
Not: files and pages (`finish.py`, `report.py`).

Only measured, successful requests enter latencies, throughput and goodput. One pass over the row
groups, so that memory stays bounded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from kvswarm.analysis.claims import claims_of, claims_section, contradicted
from kvswarm.analysis.cost import Counted, cost_sections
from kvswarm.analysis.counting import Tally
from kvswarm.analysis.course import Course
from kvswarm.analysis.gates import gates_of
from kvswarm.analysis.imported import summarise_imported
from kvswarm.analysis.interleaved import Interleaved
from kvswarm.analysis.reconcile import server_section
from kvswarm.analysis.replicas import Replicas
from kvswarm.analysis.rows import Flags, Floats, Rows, read_rows
from kvswarm.analysis.run_facts import run_facts
from kvswarm.analysis.slos import all_met, slos_met
from kvswarm.analysis.table import TableReport
from kvswarm.analysis.uncertainty import first_late_us, spread_gaps_us
from kvswarm.analysis.variants import Variants
from kvswarm.analysis.verdict import Evidence, Interval, judge
from kvswarm.errors import RunDirError
from kvswarm.profiles.model import Profile, profile_from_dict
from kvswarm.records import SCHEMA_VERSION
from kvswarm.rundir import RunDir, RunInfo

LATENCIES: Final = ("ttft", "ttft_from_intended", "itl", "tpot", "e2e", "connect")


@dataclass
class Totals:
    """What the pass over the rows gathers."""

    latencies: dict[str, Tally] = field(
        default_factory=lambda: {name: Tally() for name in LATENCIES}
    )
    ttft_low: Tally = field(default_factory=Tally)
    itl_spread: Tally = field(default_factory=Tally)
    read_lag: Tally = field(default_factory=Tally)
    send_lag: Tally = field(default_factory=Tally)
    longest_late_us: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    ok: int = 0
    good: int = 0
    slo_met: Counter[str] = field(default_factory=Counter)
    first_sent_ns: float = np.inf
    last_end_ns: float = -np.inf
    token_events: int = 0
    coalesced_events: int = 0
    unstamped_reads: int = 0
    clocks: set[str] = field(default_factory=set)
    clock_steps: int = 0
    max_clock_step_us: float = 0.0
    idle_ns: float = 0.0
    user_ns: float = 0.0
    tokens: Counter[str] = field(default_factory=Counter)
    window_requests: int = 0
    window_good: int = 0
    window_output_tokens: float = 0.0
    window_input_tokens: float = 0.0
    rows: int = 0


@dataclass(frozen=True)
class Window:
    """The time over which throughput is counted, ns; None: from first sent to last end."""

    start_ns: float
    end_ns: float


def summarise(run: RunDir, table: TableReport | None = None) -> dict[str, Any]:
    """Compute the figures of a run. Raises RunDirError where its files cannot be read."""
    info = run.read_info()
    if info.imported is not None:
        return summarise_imported(run, info, info.imported)
    try:
        profile = profile_from_dict(info.profile)
    except msgspec.ValidationError as error:
        raise RunDirError(
            f"{run.run_json}: profile: {error}",
            fix="Restore run.json from a copy, or use the version of kvswarm that made the run.",
        ) from error
    table = table or TableReport(0)
    window = _window(info, profile)
    totals = Totals()
    variants = Variants(profile)
    replicas = Replicas(run, info, profile)
    interleaved = Interleaved(info)
    course = Course(run, info, profile)
    for rows in read_rows(run):
        course.add(rows)
        variants.add(rows)
        replicas.add(rows)
        interleaved.add(rows)
        _count(rows, totals, profile)
        _measure(rows, totals)
        _judge_slos(rows, totals, profile, window)
        if window is not None:
            _count_in_window(rows, totals, window)
    duration_s = _duration_s(totals, window)
    server = server_section(run, info)
    claims = claims_of(run, info, profile)
    contradictions = (*server.contradictions, *contradicted(claims))
    evidence = _evidence(totals, info, profile, table, contradictions)
    verdict = judge(evidence, profile.verdict)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "verdict": {"status": verdict.status, "reasons": list(verdict.reasons)},
        "run": run_facts(info, profile, None),
        "requests": {
            "sent": totals.sent,
            "ok": totals.ok,
            "failed": sum(totals.errors.values()) - totals.errors["cancelled"],
            "cancelled": totals.errors["cancelled"],
            "by_error": {kind: count for kind, count in sorted(totals.errors.items()) if count},
            "phases": dict(totals.phases),
        },
        "duration_s": duration_s,
        **_rates(totals, window, duration_s),
        **{f"{name}_ms": tally.latency() for name, tally in totals.latencies.items()},
        "generator": _generator(totals, info),
        "outputs": variants.outputs(),
        "variants": variants.figures(),
        "effects": variants.effects(),
        "baseline": None,
        "estimate": None,
        "tokens": {name: totals.tokens[name] for name in ("prompt", "completion", "reasoning")},
        "claims": claims_section(claims),
        "server": server.section,
        "replicas": replicas.section(),
        "interleave": interleaved.section(),
        **course.sections(totals.latencies),
    }
    summary |= cost_sections(run, info, summary, _counted(totals, window))
    summary["gates"] = gates_of(summary, profile)
    return summary


def _window(info: RunInfo, profile: Profile) -> Window | None:
    """Throughput of a run that ends by time: from the end of warm-up to the stop of the load."""
    load = profile.load
    if load.duration_s is None or load.requests is not None:
        return None
    if info.load_started_ns is None or info.load_stopped_ns is None:
        return None
    warmup_s, cooldown_s = profile.warmup.duration_s or 0.0, profile.cooldown.duration_s or 0.0
    window = Window(info.load_started_ns + warmup_s * 1e9, info.load_stopped_ns - cooldown_s * 1e9)
    return window if window.end_ns > window.start_ns else None


def _count(rows: Rows, totals: Totals, _profile: Profile) -> None:
    totals.rows += len(rows)
    totals.phases.update(rows.texts["phase"].tolist())
    measured = rows.measured
    totals.sent += int(measured.sum())
    totals.ok += int(rows.good.sum())
    kinds = rows.texts["error_kind"][measured & ~rows.ok]
    totals.errors.update(kinds.tolist())
    totals.token_events += int(rows["events"][measured].sum())
    totals.coalesced_events += int(rows["coalesced_events"][measured].sum())
    totals.unstamped_reads += int(rows["unstamped_reads"][measured].sum())
    totals.clocks.update(rows.texts["clock"][measured].tolist())
    steps_us = np.abs(rows.of("clock_step_us", measured))
    if len(steps_us):
        totals.clock_steps += len(steps_us)
        totals.max_clock_step_us = max(totals.max_clock_step_us, float(steps_us.max()))


def _measure(rows: Rows, totals: Totals) -> None:
    good = rows.good
    for name in ("ttft", "ttft_from_intended", "tpot", "e2e"):
        totals.latencies[name].add(rows.of(f"{name}_ms", good) * 1e3)
    totals.latencies["connect"].add(rows.of("connect_us", good))
    totals.latencies["itl"].add(rows.flat("itl_us", good))
    totals.itl_spread.add(spread_gaps_us(rows, good))
    totals.read_lag.add(rows.flat("read_lag_us", rows.measured))
    late = rows.flat("late_us", rows.measured)
    if len(late):
        totals.longest_late_us = max(totals.longest_late_us, int(late.max()))
    spread_us = np.nan_to_num(rows["send_spread_us"])
    low_us = rows["ttft_ms"] * 1e3 - first_late_us(rows) - spread_us
    totals.ttft_low.add(low_us[good & ~np.isnan(low_us)])
    connect_us = np.nan_to_num(rows["connect_us"])
    lag_us = (rows["sent_ns"] - rows["intended_ns"]) / 1e3 - connect_us
    was_sent = rows.measured & ~np.isnan(lag_us)
    totals.send_lag.add(lag_us[was_sent])
    totals.idle_ns += float(np.maximum(lag_us[was_sent], 0).sum()) * 1e3
    totals.user_ns += float((rows["end_ns"] - rows["intended_ns"])[was_sent].sum())
    if good.any():
        totals.first_sent_ns = min(totals.first_sent_ns, float(rows["sent_ns"][good].min()))
        totals.last_end_ns = max(totals.last_end_ns, float(rows["end_ns"][good].max()))
    for name in ("prompt", "reasoning"):
        totals.tokens[name] += int(rows.of(f"{name}_tokens", good).sum())
    totals.tokens["completion"] += int(rows.output_tokens[good].sum())


def _judge_slos(rows: Rows, totals: Totals, profile: Profile, window: Window | None) -> None:
    met = slos_met(rows, profile.slo)
    for name, meets in met.items():
        totals.slo_met[name] += int((meets & rows.good).sum())
    meets_all = rows.good & all_met(rows, met)
    totals.good += int(meets_all.sum())
    if window is not None:
        totals.window_good += int((meets_all & _ended_within(rows, window)).sum())


def _ended_within(rows: Rows, window: Window) -> Flags:
    ends = rows["end_ns"]
    inside: Flags = (ends >= window.start_ns) & (ends <= window.end_ns)
    return inside


def _count_in_window(rows: Rows, totals: Totals, window: Window) -> None:
    """Tokens that came within the window, whichever phase their request belongs to."""
    totals.window_requests += int((rows.ok & _ended_within(rows, window)).sum())
    first_ns = rows["first_token_ns"]
    has_token = rows.ok & ~np.isnan(first_ns)
    begun = has_token & (first_ns >= window.start_ns) & (first_ns <= window.end_ns)
    totals.window_input_tokens += float(rows.of("prompt_tokens", begun).sum())
    inside = _events_inside(rows, window)
    events = rows["events"]
    per_event = np.divide(rows.output_tokens, events, out=np.zeros(len(rows)), where=events > 0)
    totals.window_output_tokens += float((per_event * inside)[has_token].sum())


def _events_inside(rows: Rows, window: Window) -> Floats:
    """Token events of each row that came within the window."""
    gaps_us, offsets = rows.lists["itl_us"]
    counts = np.diff(offsets)
    first_ns = np.nan_to_num(rows["first_token_ns"])
    inside = ((first_ns >= window.start_ns) & (first_ns <= window.end_ns)).astype(np.float64)
    since_first_us = np.cumsum(gaps_us) - np.repeat(
        np.concatenate(([0], np.cumsum(gaps_us)))[offsets[:-1]], counts
    )
    arrivals_ns = np.repeat(first_ns, counts) + since_first_us * 1e3
    in_window = (arrivals_ns >= window.start_ns) & (arrivals_ns <= window.end_ns)
    row_of_gap = np.repeat(np.arange(len(rows)), counts)
    later: Floats = np.bincount(row_of_gap[in_window], minlength=len(rows)).astype(np.float64)
    return inside + later


def _duration_s(totals: Totals, window: Window | None) -> float:
    if window is not None:
        return (window.end_ns - window.start_ns) / 1e9
    return max(0.0, (totals.last_end_ns - totals.first_sent_ns) / 1e9) if totals.ok else 0.0


def _counted(totals: Totals, window: Window | None) -> Counted | None:
    if window is not None:
        return Counted(window.start_ns, window.end_ns)
    return Counted(totals.first_sent_ns, totals.last_end_ns) if totals.ok else None


def _rates(totals: Totals, window: Window | None, duration_s: float) -> dict[str, Any]:
    if window is not None:
        requests, good = totals.window_requests, totals.window_good
        output, prompt = totals.window_output_tokens, totals.window_input_tokens
    else:
        requests, good = totals.ok, totals.good
        output, prompt = float(totals.tokens["completion"]), float(totals.tokens["prompt"])
    per_s = 1.0 / duration_s if duration_s > 0 else 0.0
    judged = totals.sent - totals.errors["cancelled"]
    return {
        "throughput": {
            "requests_per_s": requests * per_s,
            "output_tokens_per_s": output * per_s,
            "input_tokens_per_s": prompt * per_s,
        },
        "goodput": {
            "requests_per_s": good * per_s,
            "share": totals.good / judged if judged else 0.0,
            "slo_share": {
                name: count / totals.ok if totals.ok else 0.0
                for name, count in totals.slo_met.items()
            },
        },
    }


def _generator(totals: Totals, info: RunInfo) -> dict[str, Any]:
    cpu_s = [worker.cpu_s for worker in info.workers if worker.cpu_s is not None]
    events = sum(worker.token_events for worker in info.workers)
    return {
        "read_lag_ms": totals.read_lag.latency(),
        "send_lag_ms": totals.send_lag.latency(),
        "coalesced_share": _share(totals.coalesced_events, totals.token_events),
        "cpu_s": sum(cpu_s) if cpu_s else None,
        "cpu_us_per_token_event": sum(cpu_s) * 1e6 / events if cpu_s and events else None,
        "clock": "mixed" if len(totals.clocks) > 1 else next(iter(totals.clocks), None),
        "workers": len(info.workers),
        "dropped_arrivals": sum(worker.dropped_arrivals for worker in info.workers),
        "failed_listeners": sum(worker.failed_listeners for worker in info.workers),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _evidence(
    totals: Totals,
    info: RunInfo,
    profile: Profile,
    table: TableReport,
    contradicted: tuple[str, ...],
) -> Evidence:
    dropped = sum(worker.dropped_arrivals for worker in info.workers)
    return Evidence(
        intervals=tuple(_intervals(totals)),
        open_loop=profile.load.open_loop,
        send_lag_p99_ms=totals.send_lag.quantile_ms(0.99),
        idle_share=_share(totals.idle_ns, totals.user_ns),
        longest_pause_ms=totals.longest_late_us / 1e3,
        coalesced_share=_share(totals.coalesced_events, totals.token_events),
        requests=totals.sent,
        clock_step_requests=totals.clock_steps,
        max_clock_step_ms=totals.max_clock_step_us / 1e3,
        unstamped_share=min(1.0, _share(totals.unstamped_reads, totals.token_events)),
        arrivals=totals.rows + dropped,
        dropped_arrivals=dropped,
        lost_workers=sum(worker.lost for worker in info.workers),
        late_workers=info.late_workers,
        returned_workers=sum(worker.away and not worker.lost for worker in info.workers),
        lost_in_flight=sum(worker.lost_in_flight for worker in info.workers),
        unmade_arrivals=sum(worker.unmade_arrivals for worker in info.workers),
        contradictions=contradicted,
        succeeded=totals.ok,
        missing_rows=max(
            0, sum(worker.records for worker in info.workers) - totals.rows - table.duplicates
        ),
        ended=info.ended,
        cut_short=table.cut_short,
    )


def _intervals(totals: Totals) -> list[Interval]:
    pairs = (
        ("TTFT", totals.latencies["ttft"], totals.ttft_low),
        ("ITL", totals.latencies["itl"], totals.itl_spread),
    )
    intervals = []
    for name, seen, low in pairs:
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            high_ms, low_ms = seen.quantile_ms(share), low.quantile_ms(share)
            if high_ms is not None and low_ms is not None:
                intervals.append(Interval(name=f"{name} {label}", low_ms=low_ms, high_ms=high_ms))
    return intervals
