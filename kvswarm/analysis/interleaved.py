"""Two targets that one run measured in alternating blocks: by how much they differ.

In:  rows, as `read_rows` gives them, and how the run alternated (run.json).
Out: the section `interleave` of summary.json.

Each block gives one value of a figure, each pair of neighbouring blocks one difference, and the
differences of the pairs are the sample: what drifts slowly is in both blocks of a pair, and blocks
are so long that pairs are as good as independent. So the interval is Student's t of the mean
difference, with as many degrees of freedom as there are pairs, less one. P-values are corrected
for how many figures there are (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.differences import CONFIDENCE, POWER, RELEVANT_SHARE, hold, t_interval
from kvswarm.analysis.effects import Floats
from kvswarm.analysis.rows import Rows
from kvswarm.analysis.variants import mean_gap_ms
from kvswarm.rundir import RunInfo
from kvswarm.workload.interleaving import ARMS, LEAST_PAIRS, Interleaving, interleaving_as

COLUMNS: Final = (
    "index", "ok", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "tokens",
)  # fmt: skip
MOST_PAIRS: Final = 1_000_000
NEAR: Final = 0.98
"""More pairs need less: a step stays below what the step before wanted."""
LEAST_VALUES: Final = 5
"""A block with fewer successful requests gives no value."""
ALPHA: Final = 1.0 - CONFIDENCE
Block = dict[str, Floats]


def _median(name: str) -> Callable[[Block], float | None]:
    def of(block: Block) -> float | None:
        values = block[name][block["ok"] == 1.0]
        values = values[~np.isnan(values)]
        return float(np.median(values)) if len(values) >= LEAST_VALUES else None

    return of


def _tokens_per_s(block: Block) -> float | None:
    """Output tokens by the time that requests were on their way: what one user sees."""
    good = block["ok"] == 1.0
    seconds = float(np.nansum(block["e2e_ms"][good])) / 1e3
    if good.sum() < LEAST_VALUES or seconds == 0.0:
        return None
    return float(np.nansum(block["tokens"][good])) / seconds


def _error_share(block: Block) -> float | None:
    return 1.0 - float(block["ok"].mean()) if len(block["ok"]) >= LEAST_VALUES else None


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    heading: str
    unit: str
    of: Callable[[Block], float | None]
    more_is: str
    """In words: what a target is whose figure is above the other's."""
    less_is: str


FIGURES: Final = (
    *(
        _Figure(f"{name}_p50_ms", f"{words} p50", "ms", _median(f"{name}_ms"), "slower", "faster")
        for name, words in (
            ("ttft", "TTFT"),
            ("itl", "ITL (mean of a request)"),
            ("tpot", "TPOT"),
            ("e2e", "E2E"),
        )
    ),
    _Figure(
        "user_output_tokens_per_s",
        "output tokens/s of a user",
        "tokens/s",
        _tokens_per_s,
        "faster",
        "slower",
    ),
    _Figure("error_share", "errors", "", _error_share, "worse", "better"),
)
FIGURE_OF: Final = {figure.name: figure for figure in FIGURES}


class Interleaved:
    """Gathers the rows of a run; see the module. Holds 7 numbers of each request."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info.interleave
        self._targets = [info.target, info.interleave.target] if info.interleave else []
        self._parts: list[Block] = []
        self._latencies = [{name: Tally() for name in ("ttft", "itl", "tpot", "e2e")} for _ in ARMS]

    @property
    def _interleaving(self) -> Interleaving | None:
        return None if self._info is None else interleaving_as(self._info)

    def add(self, rows: Rows) -> None:
        """Take the rows of one piece of the table."""
        interleaving = self._interleaving
        if interleaving is None:
            return
        indices = rows["index"].astype(np.int64)
        wanted = rows.measured & interleaving.kept(indices)
        columns = {
            "index": rows["index"],
            "ok": rows.ok.astype(np.float64),
            "itl_ms": mean_gap_ms(rows),
            "tokens": rows.output_tokens,
            **{name: rows[name] for name in ("ttft_ms", "tpot_ms", "e2e_ms")},
        }
        self._parts.append({name: columns[name][wanted] for name in COLUMNS})
        arms = interleaving.arms(indices)
        for arm, latencies in enumerate(self._latencies):
            good = wanted & rows.ok & (arms == arm)
            for name in ("ttft", "tpot", "e2e"):
                latencies[name].add(rows.of(f"{name}_ms", good) * 1e3)
            latencies["itl"].add(rows.flat("itl_us", good))

    def section(self) -> dict[str, Any] | None:
        """The section; None where the run has one target."""
        interleaving = self._interleaving
        if interleaving is None or self._info is None:
            return None
        whole = {
            name: np.concatenate([part[name] for part in self._parts] or [np.zeros(0)])
            for name in COLUMNS
        }
        indices = whole["index"].astype(np.int64)
        arms = interleaving.arms(indices)
        return {
            "block_requests": self._info.block_requests,
            "guard_requests": self._info.guard_requests,
            "arms": [self._arm(arm, whole, arms == arm) for arm in range(len(ARMS))],
            "effects": effects_of(whole, interleaving),
        }

    def _arm(self, arm: int, whole: Block, here: Any) -> dict[str, Any]:
        target = self._targets[arm]
        mine = {name: values[here] for name, values in whole.items()}
        ok = int(mine["ok"].sum())
        return {
            "name": ARMS[arm],
            "target": target.base_url,
            "model": target.model,
            "server_version": target.server_version,
            "requests": int(here.sum()),
            "ok": ok,
            **{f"{name}_ms": tally.latency() for name, tally in self._latencies[arm].items()},
            "user_output_tokens_per_s": _tokens_per_s(mine),
        }


def _blocks(whole: Block, pairs: Any, arms: Any) -> list[tuple[Block, Block]]:
    """The blocks of each pair, A first; pairs that lack one are left out."""
    keys = pairs * 2 + arms
    order = np.argsort(keys, kind="stable")
    ordered = {name: values[order] for name, values in whole.items()}
    found, starts = np.unique(keys[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    blocks = {
        int(key): {name: values[start:end] for name, values in ordered.items()}
        for key, start, end in zip(found, starts.tolist(), ends, strict=True)
    }
    return [
        (blocks[key], blocks[key + 1])
        for key in sorted(blocks)
        if key % 2 == 0 and key + 1 in blocks
    ]


def effects_of(whole: Block, interleaving: Interleaving) -> list[dict[str, Any]]:
    """B against A, for each figure that both have. `whole`: COLUMNS, shape (requests,) each."""
    indices = whole["index"].astype(np.int64)
    blocks = _blocks(whole, interleaving.pairs(indices), interleaving.arms(indices))
    found = [effect for figure in FIGURES if (effect := _effect(figure, blocks)) is not None]
    corrected = hold([effect["p_value"] for effect in found])
    for effect, p_value in zip(found, corrected, strict=True):
        effect["p_value_corrected"] = p_value
        effect["pairs_needed"] = _needed(effect, len(found))
        effect["verdict"] = _words(effect)
    return found


def _effect(figure: _Figure, blocks: list[tuple[Block, Block]]) -> dict[str, Any] | None:
    values = [(figure.of(one), figure.of(other)) for one, other in blocks]
    both = np.array([pair for pair in values if None not in pair], dtype=np.float64)
    if not len(both):
        return None
    differences = both[:, 1] - both[:, 0]
    reference = float(both[:, 0].mean())
    difference = float(differences.mean())
    effect: dict[str, Any] = {
        "figure": figure.name,
        "reference": reference,
        "difference": difference,
        "change_share": difference / reference if reference else None,
        "low": None,
        "high": None,
        "p_value": None,
        "pairs": len(both),
        "pairs_needed": None,
    }
    if len(both) >= LEAST_PAIRS:
        error = float(differences.std(ddof=1)) / math.sqrt(len(both))
        found = t_interval(difference, error, len(both) - 1)
        effect |= dict(zip(("low", "high", "p_value"), found, strict=True))
    return effect


def _needed(effect: dict[str, Any], figures: int) -> int | None:
    """How many pairs would show a relevant change, with as much spread as there was.

    Of as many figures, each must be surer (Bonferroni, which Holm comes down to for the first).
    """
    from scipy.stats import t  # noqa: PLC0415 - half a second, which few commands need

    relevant = abs(effect["reference"]) * RELEVANT_SHARE
    if effect["low"] is None or relevant == 0.0:
        return None
    freedom = effect["pairs"] - 1
    half = (effect["high"] - effect["low"]) / 2
    spread = half / float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(effect["pairs"])
    needed = LEAST_PAIRS
    while needed < MOST_PAIRS:
        sure = float(t.ppf(1 - ALPHA / figures / 2, needed - 1) + t.ppf(POWER, needed - 1))
        wanted = (sure * spread / relevant) ** 2
        if wanted <= needed:
            return needed
        needed = max(needed + 1, min(MOST_PAIRS, math.floor(wanted * NEAR)))
    return MOST_PAIRS


def _words(effect: dict[str, Any]) -> str:
    """What to say of B against A."""
    if effect["p_value_corrected"] is None:
        return f"too little to tell: {effect['pairs']} pairs of blocks, {LEAST_PAIRS} are needed"
    if effect["p_value_corrected"] < ALPHA:
        figure = FIGURE_OF[effect["figure"]]
        return figure.more_is if effect["difference"] > 0 else figure.less_is
    words = "no difference that this run can show"
    if effect["pairs_needed"] is not None and effect["pairs_needed"] > effect["pairs"]:
        words += f" ({effect['pairs_needed']} pairs of blocks would show {RELEVANT_SHARE:.0%})"
    return words


def interleave_lines(section: dict[str, Any] | None) -> list[str]:
    """The section in words, for the terminal and the page."""
    if section is None:
        return []
    lines = [
        f"{arm['name']}: {arm['target']} ({arm['model']}), {arm['ok']} of {arm['requests']} ok"
        for arm in section["arms"]
    ]
    for effect in section["effects"]:
        figure = FIGURE_OF[effect["figure"]]
        parts = [f"A {effect['reference']:.4g}", f"B {effect['difference']:+.3g}"]
        change = effect["change_share"]
        share = "" if change is None else f" ({change:+.1%})"
        text = f"{figure.heading}: {', '.join(parts)} {figure.unit}".rstrip() + share
        if effect["low"] is not None:
            text += f", 95 %: {effect['low']:+.3g} to {effect['high']:+.3g}"
        lines.append(f"{text}: {_of_b(figure, effect['verdict'])}")
    lines.append("all other figures of this run are of both targets together")
    return lines


def _of_b(figure: _Figure, verdict: str) -> str:
    return f"B is {verdict}" if verdict in {figure.more_is, figure.less_is} else verdict
