"""What the servers say of the measured window: the summary's `server`, but for its reconciliation.

In:  server.parquet, run.json, and the window: from the first measured request's sending to the last
     one's end.
Out: `ServerFigures`, or None where no server told anything.  docs/metrics.md defines each figure.

A figure that a server does not tell is None, never 0. Means are of growth: what the histograms'
sums and counts have grown by in the window. There are no quantiles: vLLM's buckets of queue and E2E
begin at 0.3 s, so that any quantile below would be made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kvswarm.analysis.gpu_figures import GpuPages, gpu_figures, gpu_names
from kvswarm.analysis.series import Level, Span, read_replicas
from kvswarm.analysis.server_told import LEVELS, Told, all_names, kind_of, tell, together
from kvswarm.rundir import RunDir, RunInfo

MEANS: Final = (
    "queue_time_ms", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "prefill_time_ms", "decode_time_ms",
)  # fmt: skip


NOTHING: Final = Told("", Span(0, 0, (0, 0), (0, 0), whole=False))


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run: first sent, last end, ns."""

    first_sent_ns: int
    last_end_ns: int
    output_tokens: float | None = None
    """Those of the answers, where they tell."""


@dataclass(frozen=True)
class ServerFigures:
    """All of them."""

    total: Told | None
    """All replicas together; None where only GPUs told something."""
    section: dict[str, Any]
    all_given: bool
    """Whether --metrics-url or the pods of the service name the replicas, and each of them told."""
    replicas: int = 1
    """How many told."""


def server_figures(run: RunDir, info: RunInfo, window: Window) -> ServerFigures | None:
    """Compute them. Raises RunDirError where the table is damaged."""
    replicas = read_replicas(run, sorted(all_names() | gpu_names()))
    notes: list[str] = []
    late = {source.name for source in info.metrics if source.late}
    told: dict[str, Told] = {}
    gpus: list[GpuPages] = []
    for replica in replicas:
        is_late = replica.name in late
        span = replica.span(window.first_sent_ns, window.last_end_ns, late=is_late)
        has_gpus = any(name in replica.series for name in gpu_names())
        kind = kind_of(replica)
        if has_gpus:
            gpus.append(GpuPages(replica, span))
        if kind is not None and replica.several:
            notes.append(
                f"{replica.name}: several servers answer there by turns, so its counters mean "
                "nothing. Name the address of each with --metrics-url."
            )
        elif kind is not None:
            told[replica.name] = tell(replica, kind, span)
        elif not has_gpus:
            notes.append(f"{replica.name}: no metric of it is known here.")
    asked = {source.name for source in info.metrics if not source.own}
    if asked & told.keys():
        notes += [
            f"{name}: left out, because --metrics-url names the replicas behind it."
            for name in told.keys() - asked
        ]
        told = {name: each for name, each in told.items() if name in asked}
    if not told and not gpus and not notes:
        return None
    total = together(list(told.values())) if told else None
    tokens = total.counters.get("generation_tokens") if total is not None else None
    spans = [t.span for t in told.values()] or [page.span for page in gpus]
    length = info.target.model_card.get("max_model_len")
    section = {
        "window": _window(spans) if spans else None,
        "notes": [*notes, *_notes(told)],
        **figures_of(total, length),
        "replicas": {n: figures_of(t, length) for n, t in told.items()} if len(told) > 1 else {},
        "gpu": gpu_figures(gpus, window.output_tokens if tokens is None else tokens),
    }
    heard = told.keys() | {page.replica.name for page in gpus}
    all_given = bool(asked & told.keys()) and asked <= heard
    return ServerFigures(total, section, all_given=all_given, replicas=len(told))


def figures_of(told: Told | None, max_model_len: int | None = None) -> dict[str, Any]:
    """A replica's figures (or those of all together) as the summary has them."""
    told = told or NOTHING
    counters = told.counters
    return {
        "kind": told.kind or None,
        **{name: _mean(told, name) for name in MEANS},
        **{name: _level(told.levels.get(name)) for name in LEVELS},
        "preemptions": _count(counters.get("preemptions")),
        "prefix_cache": _prefix_cache(counters),
        "speculation": _speculation(told),
        "requests": {k: round(v) for k, v in sorted(told.reasons.items())} or None,
        "prompt_tokens": _count(counters.get("prompt_tokens")),
        "generation_tokens": _count(counters.get("generation_tokens")),
        "kv_cache": _kv_cache(told.cache, max_model_len),
        "lora": None
        if told.lora is None
        else {"max_running_adapters": told.lora[0], "max_loras": told.lora[1]},
    }


def _kv_cache(cache: dict[str, Any] | None, max_model_len: int | None) -> dict[str, Any] | None:
    """The cache, and how many requests of the longest context it holds at once."""
    if cache is None:
        return None
    fits = cache["tokens"] is not None and max_model_len
    return {**cache, "max_concurrency": cache["tokens"] / max_model_len if fits else None}


def _mean(told: Told, name: str) -> dict[str, float | int] | None:
    mean_ms = told.mean_ms(name)
    return None if mean_ms is None else {"mean": mean_ms, "count": round(told.means[name][1])}


def _level(found: Level | None) -> dict[str, float] | None:
    return None if found is None else {"mean": found.mean, "max": found.max}


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _prefix_cache(counters: dict[str, float]) -> dict[str, Any] | None:
    query, hit = counters.get("query_tokens"), counters.get("hit_tokens")
    if query is None or hit is None:
        return None
    return {
        "query_tokens": round(query),
        "hit_tokens": round(hit),
        "hit_share": _share(hit, query),
    }


def _speculation(told: Told) -> dict[str, Any] | None:
    """None without a draft in the window.

    Mean acceptance length: the token that the model itself makes at each step, and the accepted
    drafts before it, as vLLM logs it.
    """
    drafts = told.counters.get("drafts")
    draft_tokens = told.counters.get("draft_tokens")
    accepted = told.counters.get("accepted_tokens")
    if not draft_tokens or accepted is None:
        return None
    accepted_per_draft = _share(accepted, drafts)
    return {
        "drafts": _count(drafts),
        "draft_tokens": round(draft_tokens),
        "accepted_tokens": round(accepted),
        "acceptance_share": accepted / draft_tokens,
        "mean_acceptance_length": None if accepted_per_draft is None else 1 + accepted_per_draft,
        "acceptance_by_position": [
            told.positions[position] / drafts for position in sorted(told.positions)
        ]
        if drafts
        else [],
    }


def _window(spans: Sequence[Span]) -> dict[str, Any]:
    start_ns, end_ns = min(s.start_ns for s in spans), max(s.end_ns for s in spans)
    return {
        "start": _moment(start_ns),
        "end": _moment(end_ns),
        "duration_s": (end_ns - start_ns) / 1e9,
        "whole": all(span.whole for span in spans),
    }


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).isoformat()


def _notes(told: dict[str, Told]) -> list[str]:
    notes = []
    for name, each in told.items():
        if not each.span.whole:
            notes.append(
                f"{name}: its pages are not from before the first measured request to after the "
                "last, so its figures are of a part."
            )
        if each.restarted:
            notes.append(
                f"{name}: was started anew in the window; what it had counted since the page "
                "before is lost."
            )
    return notes
