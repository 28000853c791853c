"""Figures by variant, what variants cost against each other, and how outputs were judged.

In:  rows, as `read_rows` gives them.
Out: the sections `variants`, `effects` and `outputs` of summary.json.

Only measured, successful requests enter, as everywhere; failed ones are counted.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.effects import Effect, Floats, paired_effect, unpaired_effect
from kvswarm.analysis.rows import Flags, Rows
from kvswarm.profiles.model import Profile

FIGURES: Final = ("ttft_ms", "itl_ms", "tpot_ms", "output_tokens_per_s")
"""What effects are told of; per request, so `itl_ms` is the mean gap of each. No E2E: variants may
have answers of different lengths."""
REFERENCES: Final = ("control", "own prefix", "base", "no image", "turn 1", "auto")
"""Variants that others are compared with, where they are there."""
PAIRED: Final = frozenset({"control"})
MAX_VARIANTS: Final = 64
MAX_DETAILS: Final = 10
LEADING_NUMBER: Final = re.compile(r"\d+")

Key = tuple[str, str]
"""Scenario and variant; an empty text for none."""


@dataclass
class VariantTotals:
    """What is gathered of one variant."""

    sent: int = 0
    ok: int = 0
    latencies: dict[str, Tally] = field(
        default_factory=lambda: {name: Tally() for name in ("ttft", "itl", "tpot", "e2e")}
    )
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    cached_told: int = 0
    completion_tokens: float = 0.0
    token_events: int = 0
    scores: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[Floats]] = field(default_factory=lambda: defaultdict(list))
    """Per request, in the order of the rows: FIGURES, `group`, `cached_tokens`, `sent_ns`."""

    def value(self, name: str) -> Floats:
        """All values of a name, shape (ok,)."""
        parts = self.values.get(name)
        return np.concatenate(parts) if parts else np.zeros(0)


class Variants:
    """Gathers the rows of a profile's run; see the module."""

    def __init__(self, profile: Profile) -> None:
        parts = profile.parts
        self._adapters = {part.name: frozenset(part.adapters) for part in parts}
        self._with_prefixes = {p.name for p in parts if p.prompt.shared_prefix_tokens}
        self._mixed = bool(profile.mix)
        self._totals: dict[Key, VariantTotals] = {}
        self._scores: Counter[str] = Counter()
        self._cases: dict[str, Counter[str]] = defaultdict(Counter)
        self._details: Counter[str] = Counter()
        self._checked = 0
        self._valid = 0

    def add(self, rows: Rows) -> None:
        """Take the rows of one piece of the table."""
        pairs = zip(rows.texts["scenario"], rows.texts["variant"], strict=True)
        labels = np.array([f"{scenario or ''}\0{variant or ''}" for scenario, variant in pairs])
        names, kinds = np.unique(labels, return_inverse=True)
        for kind, name in enumerate(names.tolist()):
            scenario, _, variant = name.partition("\0")
            same: Flags = (kinds == kind) & rows.measured
            if not same.any():
                continue
            key = (scenario, variant)
            if key not in self._totals and len(self._totals) >= MAX_VARIANTS:
                key = (scenario, "others")
            self._add_variant(self._totals.setdefault(key, VariantTotals()), rows, same, key)
        self._add_scores(rows)

    def _add_variant(self, totals: VariantTotals, rows: Rows, wanted: Flags, key: Key) -> None:
        good = wanted & rows.ok
        totals.sent += int(wanted.sum())
        totals.ok += int(good.sum())
        for name in ("ttft_ms", "cached_tokens"):
            totals.values[name].append(rows[name][good])
        if not key[1] and not self._mixed:
            return  # the run's own figures are this one's
        for name in ("ttft", "tpot", "e2e"):
            totals.latencies[name].add(rows.of(f"{name}_ms", good) * 1e3)
        totals.latencies["itl"].add(rows.flat("itl_us", good))
        totals.prompt_tokens += float(rows.of("prompt_tokens", good).sum())
        cached = rows.of("cached_tokens", good)
        totals.cached_tokens += float(cached.sum())
        totals.cached_told += len(cached)
        totals.completion_tokens += float(rows.of("completion_tokens", good).sum())
        totals.token_events += int(
            rows["events"][good & ~np.isnan(rows["completion_tokens"])].sum()
        )
        kinds = rows.texts["output_score"][good]
        totals.scores.update(kind for kind in kinds.tolist() if kind is not None)
        for name in ("tpot_ms", "group", "sent_ns"):
            totals.values[name].append(rows[name][good])
        totals.values["itl_ms"].append(mean_gap_ms(rows)[good])
        totals.values["output_tokens_per_s"].append(tokens_per_s(rows)[good])

    def _add_scores(self, rows: Rows) -> None:
        good = rows.good
        columns = ("output_score", "case", "output_detail")
        scores, cases, details = (rows.texts[name][good].tolist() for name in columns)
        for score, case, detail, valid in zip(
            scores, cases, details, rows.output_valid[good].tolist(), strict=True
        ):
            if score is None:
                continue
            self._scores[score] += 1
            self._cases[case or ""][score] += 1
            if valid is not None:
                self._checked += 1
                self._valid += bool(valid)
            if detail is not None and len(self._details) < MAX_VARIANTS * MAX_DETAILS:
                self._details[f"{score}: {detail}"] += 1

    def outputs(self) -> dict[str, Any] | None:
        """How answers were judged; None where none was."""
        if not self._scores:
            return None
        return {
            "checked": self._checked,
            "valid": self._valid,
            "valid_share": self._valid / self._checked if self._checked else None,
            "by_score": dict(sorted(self._scores.items())),
            "by_case": {
                case: dict(sorted(scores.items())) for case, scores in sorted(self._cases.items())
            },
            "details": [
                {"detail": detail, "count": count}
                for detail, count in self._details.most_common(MAX_DETAILS)
            ],
        }

    def figures(self) -> list[dict[str, Any]]:
        """One entry per variant, in a natural order; none where all requests are of one kind."""
        if not self._mixed and not any(variant for _, variant in self._totals):
            return []
        return [_figures(key, self._totals[key]) for key in sorted(self._totals, key=_natural)]

    def effects(self) -> list[dict[str, Any]]:
        """What variants cost against the one that they are compared with, per scenario."""
        found: list[dict[str, Any]] = []
        by_scenario: dict[str, dict[str, VariantTotals]] = defaultdict(dict)
        for scenario, variant in sorted(self._totals, key=_natural):
            if variant:
                by_scenario[scenario][variant] = self._totals[scenario, variant]
        for scenario, variants in by_scenario.items():
            found += _against_reference(scenario, variants)
            adapters = self._adapters.get(scenario, frozenset())
            found += _switching(
                scenario, {name: t for name, t in variants.items() if name in adapters}
            )
        return found + self._of_prefix_hits()

    def _of_prefix_hits(self) -> list[dict[str, Any]]:
        """TTFT of requests with cached prompt tokens against those without, as usage tells."""
        shared = [
            totals
            for (scenario, _), totals in self._totals.items()
            if scenario in self._with_prefixes
        ]
        if not shared:
            return []
        tokens = np.concatenate([totals.value("cached_tokens") for totals in shared])
        ttft_ms = np.concatenate([totals.value("ttft_ms") for totals in shared])
        effect = unpaired_effect(ttft_ms[tokens > 0], ttft_ms[tokens == 0])
        return [_entry("", "prefix hit", "prefix miss", "ttft_ms", effect)] if effect else []


def mean_gap_ms(rows: Rows) -> Floats:
    """Mean gap between token events of each row, in ms; NaN where it has none."""
    gaps_us, offsets = rows.lists["itl_us"]
    counts = np.diff(offsets)
    row_of_gap = np.repeat(np.arange(len(rows)), counts)
    sums = np.bincount(row_of_gap, weights=gaps_us, minlength=len(rows))
    means: Floats = np.divide(sums, counts * 1e3, out=np.full(len(rows), np.nan), where=counts > 0)
    return means


def tokens_per_s(rows: Rows) -> Floats:
    """Output tokens/s of each row from its first token to its last: 1 / TPOT; NaN without one."""
    tpot_ms = rows["tpot_ms"]
    rates: Floats = 1e3 / np.where(tpot_ms > 0, tpot_ms, np.nan)
    return rates


def _natural(key: Key) -> tuple[str, int, int, str]:
    """References first, then by the first number in the name, then by name."""
    scenario, variant = key
    number = LEADING_NUMBER.search(variant)
    return (scenario, variant not in REFERENCES, int(number[0]) if number else 0, variant)


def _figures(key: Key, totals: VariantTotals) -> dict[str, Any]:
    def per(value: float, count: int) -> float | None:
        return value / count if count else None

    return {
        "scenario": key[0],
        "variant": key[1] or None,
        "sent": totals.sent,
        "ok": totals.ok,
        **{f"{name}_ms": tally.latency() for name, tally in totals.latencies.items()},
        "mean_prompt_tokens": per(totals.prompt_tokens, totals.ok),
        "mean_cached_tokens": per(totals.cached_tokens, totals.cached_told),
        "mean_output_tokens": per(totals.completion_tokens, totals.ok),
        "tokens_per_event": per(totals.completion_tokens, totals.token_events),
        "outputs": dict(sorted(totals.scores.items())),
    }


def _entry(scenario: str, of: str, against: str, figure: str, effect: Effect) -> dict[str, Any]:
    return {
        "scenario": scenario or None,
        "of": of,
        "against": against,
        "figure": figure,
        **effect.to_dict(),
    }


def _against_reference(scenario: str, variants: dict[str, VariantTotals]) -> list[dict[str, Any]]:
    names = list(variants)
    reference = next((name for name in REFERENCES if name in variants), names[0])
    entries = []
    for name in names:
        if name == reference:
            continue
        for figure in FIGURES:
            if reference in PAIRED:
                effect = paired_effect(*_pairs(variants[name], variants[reference], figure))
            else:
                ones, others = variants[name].value(figure), variants[reference].value(figure)
                effect = unpaired_effect(ones, others)
            if effect is not None:
                entries.append(_entry(scenario, name, reference, figure, effect))
    return entries


def _pairs(one: VariantTotals, other: VariantTotals, figure: str) -> tuple[Floats, Floats]:
    """Values of both, where they have a group in common, in the same order."""
    _, ours, theirs = np.intersect1d(one.value("group"), other.value("group"), return_indices=True)
    return one.value(figure)[ours], other.value(figure)[theirs]


def _switching(scenario: str, adapters: dict[str, VariantTotals]) -> list[dict[str, Any]]:
    """TTFT of requests sent after one of another adapter, against those after one of their own."""
    if len(adapters) < 2:  # noqa: PLR2004 - nothing to switch between
        return []
    sent_ns = np.concatenate([totals.value("sent_ns") for totals in adapters.values()])
    ttft_ms = np.concatenate([totals.value("ttft_ms") for totals in adapters.values()])
    which = np.repeat(
        np.arange(len(adapters)), [len(totals.value("sent_ns")) for totals in adapters.values()]
    )
    order = np.argsort(sent_ns, kind="stable")
    switched = np.diff(which[order]) != 0
    later_ms = ttft_ms[order][1:]
    effect = unpaired_effect(later_ms[switched], later_ms[~switched])
    if effect is None:
        return []
    return [_entry(scenario, "another adapter before", "same adapter before", "ttft_ms", effect)]
