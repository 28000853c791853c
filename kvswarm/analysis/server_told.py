"""What one server told of a span of pages, and several together: numbers, not yet figures.

In:  a `Replica` with its series, a `Span`.  Out: `Told`.
What a server does not tell is not there: no key, or None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np

from kvswarm.analysis import series as spans
from kvswarm.analysis.series import Level, Replica, Series, Span, level, total_increase
from kvswarm.analysis.server_names import KINDS, Names, Pick

K = TypeVar("K")
LEVELS: Final = {"running": True, "waiting": True, "kv_usage_share": False}
"""Whether those of several engines or replicas are summed, or averaged."""
CACHE_LABELS: Final = ("cache_dtype", "enable_prefix_caching", "gpu_memory_utilization")


@dataclass
class Told:
    """What one replica told, or several together, before it is put in words."""

    kind: str
    span: Span
    means: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Sum in ms, and count."""
    counters: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, float] = field(default_factory=dict)
    positions: dict[int, float] = field(default_factory=dict)
    levels: dict[str, Level] = field(default_factory=dict)
    cache: dict[str, Any] | None = None
    lora: tuple[int, int | None] | None = None
    """Most adapters that ran at once, and how many may."""
    restarted: bool = False

    @property
    def requests(self) -> float | None:
        """Requests that ended, however; None where it does not tell."""
        return float(sum(self.reasons.values())) if self.reasons else None

    def mean_ms(self, name: str) -> float | None:
        """A mean; None where it does not tell, or nothing was counted."""
        total, count = self.means.get(name, (0.0, 0.0))
        return total / count if count > 0 else None


def kind_of(replica: Replica) -> str | None:
    """vllm, trtllm, tgi, triton; None for what serves no model."""
    return next((kind for kind, names in KINDS.items() if replica.has(names.markers)), None)


def level_of(replica: Replica, name: str, span: Span) -> Level | None:
    """One of LEVELS of a server over time."""
    kind = kind_of(replica)
    for candidate in KINDS[kind].levels.get(name, ()) if kind is not None else ():
        found = level(replica.pick(candidate.pick), span, summed=LEVELS[name])
        if found is not None and candidate.of is not None:
            whole = level(replica.pick(candidate.of), span, summed=LEVELS[name])
            if whole is None or whole.max <= 0:
                continue
            found = Level(found.times_ns, found.values / whole.at(found.times_ns))
        if found is not None:
            return _from_zero(found, span, replica) if LEVELS[name] else found
    return None


def _from_zero(found: Level, span: Span, replica: Replica) -> Level:
    """The same, with nothing of it until the first page of a replica that came in the span."""
    first_ns = int(replica.times_ns[0])
    if span.start_ns >= first_ns:
        return found
    times_ns = np.concatenate(([span.start_ns, first_ns - 1], found.times_ns))
    return Level(times_ns, np.concatenate(([0.0, 0.0], found.values)))


def all_names() -> set[str]:
    """All names that are read of servers."""
    names: set[str] = set()
    for kind in KINDS.values():
        for means in kind.means.values():
            names |= {name for mean in means for name in (mean.total, mean.count)}
        for levels in kind.levels.values():
            names |= {each.pick.name for each in levels}
            names |= {each.of.name for each in levels if each.of is not None}
        for counters in kind.counters.values():
            names |= set(counters)
        names |= set(kind.requests)
        names |= {name for name in (kind.by_position, kind.cache_config, kind.lora) if name}
        names |= {pick.name for pick in kind.cache_blocks or ()}
    return names


def tell(replica: Replica, kind: str, span: Span) -> Told:
    """Read everything that a server of this kind tells of the span."""
    names = KINDS[kind]
    told = Told(kind, span, restarted=replica.restarted(span))
    for name, means in names.means.items():
        for mean in means:
            total = total_increase(_own_model(replica, names, mean.total), span)
            count = total_increase(_own_model(replica, names, mean.count), span)
            if total is not None and count is not None:
                told.means[name] = (total * mean.to_ms, count)
                break
    for name, counters in names.counters.items():
        for each in counters:
            grown = total_increase(replica.pick(Pick(each)), span)
            if grown is not None:
                told.counters[name] = grown
                break
    told.reasons = _reasons(replica, names, span)
    told.positions = _positions(replica, names, span)
    levels = {name: level_of(replica, name, span) for name in LEVELS}
    told.levels = {name: found for name, found in levels.items() if found is not None}
    told.cache = _cache(replica, names)
    told.lora = _lora(replica, names, span)
    return told


def _reasons(replica: Replica, names: Names, span: Span) -> dict[str, float]:
    """Requests that ended, by reason."""
    reasons: dict[str, float] = {}
    for name, label in names.requests.items():
        for series in _own_model(replica, names, name):
            reason = name.rpartition("_")[2] if label is None else series.labels.get(label, "")
            grown = total_increase([series], span)
            if grown is not None:
                reasons[reason] = reasons.get(reason, 0.0) + grown
    return reasons


def _positions(replica: Replica, names: Names, span: Span) -> dict[int, float]:
    """Accepted draft tokens, by their position in the draft."""
    positions: dict[int, float] = {}
    for series in replica.pick(Pick(names.by_position)) if names.by_position else []:
        position = _whole(series.labels.get("position"))
        grown = total_increase([series], span)
        if position is not None and grown is not None:
            positions[position] = positions.get(position, 0.0) + grown
    return positions


def _own_model(replica: Replica, names: Names, name: str) -> list[Series]:
    """The series of a name; of a pipeline of models those of the one that is an LLM."""
    group = replica.pick(Pick(name))
    if names.model_label is None:
        return group
    llms = {
        series.labels.get("model")
        for other, others in replica.series.items()
        if other.startswith(names.model_label)
        for series in others
    }
    mine = [series for series in group if series.labels.get("model") in llms]
    return mine or (group if len({s.labels.get("model") for s in group}) == 1 else [])


def _cache(replica: Replica, names: Names) -> dict[str, Any] | None:
    """The KV cache as configured; of several engines their tokens together."""
    if names.cache_blocks is not None:
        blocks, block_size = (replica.pick(pick) for pick in names.cache_blocks)
        if not blocks or not block_size:
            return None
        size = int(block_size[0].values[-1])
        tokens = int(sum(series.values[-1] for series in blocks)) * size
        return {"tokens": tokens, "block_size_tokens": size, **dict.fromkeys(CACHE_LABELS)}
    engines = replica.pick(Pick(names.cache_config)) if names.cache_config is not None else []
    if not engines:
        return None
    sizes = [_whole(series.labels.get("block_size")) for series in engines]
    counts = [_whole(series.labels.get("num_gpu_blocks")) for series in engines]
    known = [b * n for b, n in zip(sizes, counts, strict=True) if b is not None and n is not None]
    labels = engines[0].labels
    return {
        "tokens": sum(known) if len(known) == len(engines) else None,
        "block_size_tokens": sizes[0],
        **{name: labels.get(name) for name in CACHE_LABELS},
    }


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _lora(replica: Replica, names: Names, span: Span) -> tuple[int, int | None] | None:
    """At each page the series with the newest moment as its value is the one that holds."""
    newest: dict[int, tuple[float, Series]] = {}
    for series in replica.pick(Pick(names.lora)) if names.lora is not None else []:
        for time_ns, value in zip(series.times_ns.tolist(), series.values.tolist(), strict=True):
            if span.start_ns <= time_ns <= span.end_ns:
                newest[time_ns] = max(
                    newest.get(time_ns, (-1.0, series)), (value, series), key=_value
                )
    if not newest:
        return None
    labels = [series.labels for _, series in newest.values()]
    running = [each.get("running_lora_adapters", "").split(",") for each in labels]
    most = max(len([adapter for adapter in adapters if adapter]) for adapters in running)
    return most, _whole(labels[-1].get("max_lora"))


def _value(pair: tuple[float, Series]) -> float:
    return pair[0]


def together(parts: Sequence[Told]) -> Told:
    """Several replicas as one."""
    kinds = {part.kind for part in parts}
    total = Told(
        kinds.pop() if len(kinds) == 1 else "mixed",
        spans.together([part.span for part in parts]),
        restarted=any(part.restarted for part in parts),
    )
    for name in dict.fromkeys(name for part in parts for name in part.means):
        pairs = [part.means[name] for part in parts if name in part.means]
        if pairs:
            total.means[name] = (sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
    for part in parts:
        _add(part.reasons, total.reasons)
        _add(part.positions, total.positions)
        _add(part.counters, total.counters)
    for name, summed in LEVELS.items():
        levels = [part.levels[name] for part in parts if name in part.levels]
        if levels:
            times = np.unique(np.concatenate([each.times_ns for each in levels]))
            values = np.sum([each.at(times) for each in levels], axis=0)
            total.levels[name] = Level(times, values if summed else values / len(levels))
    total.cache = _caches_together([part.cache for part in parts])
    loras = [part.lora for part in parts if part.lora is not None]
    if loras:
        total.lora = (max(running for running, _ in loras), loras[0][1])
    return total


def _add(these: Mapping[K, float], to: dict[K, float]) -> None:
    for key, value in these.items():
        to[key] = to.get(key, 0.0) + value


def _caches_together(caches: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Tokens together; what differs between replicas is None."""
    known = [cache for cache in caches if cache is not None]
    if not known:
        return None
    tokens = [cache["tokens"] for cache in known]
    first = known[0]
    same = {k: first[k] if all(c[k] == first[k] for c in known) else None for k in first}
    return {**same, "tokens": None if None in tokens else sum(tokens)}
