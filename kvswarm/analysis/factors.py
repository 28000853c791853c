"""Runs by backend, quantization and load: which are surpassed by none, and which suits what.

In:  `RunComparison`.
Out: `Factors`: a row for each run, Pareto fronts, a recommendation for each use case.

Only the baseline enters and what is comparable with it, or would be under the same load.
Fronts and recommendations are of the figures themselves. Whether the best one is better than the
next by more than noise is said where the two were compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.analysis.comparison_file import (
    NO_DIFFERENCE,
    TOO_LITTLE,
    FactorRow,
    Factors,
    Front,
    Recommendation,
    RunComparison,
    RunFigures,
)
from kvswarm.analysis.comparison_words import FIGURE_OF, value_text

COST: Final = "cost.per_million_output_tokens_usd"
PER_GPU: Final = "output_tokens_per_gpu_s"
FRONTS: Final = (
    (PER_GPU, "ttft_p95_ms"),
    (PER_GPU, "itl_p99_ms"),
    ("goodput_share", "per_million_output_tokens_usd"),
)
"""Figures of a front: more of the first is better, less of the second."""
ENOUGH_GOODPUT_SHARE: Final = 0.95
"""What is cheap but misses the SLOs more often than that is not recommended for its cost."""
HEADINGS: Final = {
    PER_GPU: ("output tokens/s per GPU", "tokens/s"),
    COST: ("cost of a million output tokens", "USD"),
}

Reading = Callable[[RunFigures], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a use case is decided: the best by the first criterion that tells runs apart."""

    use_case: str
    criteria: tuple[tuple[str, bool, str], ...]
    """Figure, whether more of it is better, and what the best one is called."""
    enough_goodput: bool = False


RULES: Final = (
    Rule(
        use_case="production baseline",
        criteria=(
            ("goodput_share", True, "most requests meet the SLOs"),
            ("error_share", False, "fewest errors"),
            ("ttft_p99_ms", False, "the least tail of the first token"),
        ),
    ),
    Rule(
        use_case="cost",
        criteria=((COST, False, "cheapest of those with a goodput of 95 %"),),
        enough_goodput=True,
    ),
    Rule(
        use_case="latency",
        criteria=(
            ("ttft_p95_ms", False, "the earliest first token"),
            ("itl_p99_ms", False, "the shortest gaps"),
        ),
    ),
    Rule(
        use_case="API integration",
        criteria=(
            ("valid_output_share", True, "most answers valid"),
            ("error_share", False, "fewest errors"),
            ("e2e_p50_ms", False, "the shortest whole answers"),
        ),
    ),
    Rule(use_case="capacity", criteria=((PER_GPU, True, "most tokens for each GPU"),)),
)


def factors_of(comparison: RunComparison) -> Factors | None:
    """Group the runs; None where neither backend nor quantization nor load differs."""
    fit = {pair.run for pair in comparison.pairs if pair.same_work} | {comparison.baseline}
    runs = [run for run in comparison.runs if run.label in fit and run.verdict != "invalid"]
    if len({(run.backend, run.quantization, load_text(run)) for run in runs}) < 2:  # noqa: PLR2004
        return None
    rows = [_row(run) for run in runs]
    return Factors(
        rows=rows,
        fronts=[front for more, less in FRONTS if (front := front_of(rows, more, less))],
        recommendations=[_recommended(comparison, runs, rule) for rule in RULES],
    )


def front_of(rows: Sequence[FactorRow], more: str, less: str) -> Front | None:
    """The rows that no other surpasses; None where fewer than two have both figures.

    One surpasses another that is no worse in both figures and better in one.
    """
    points = [
        (row.run, float(getattr(row, more)), float(getattr(row, less)))
        for row in rows
        if getattr(row, more) is not None and getattr(row, less) is not None
    ]
    if len(points) < 2:  # noqa: PLR2004 - one alone is surpassed by none
        return None
    front = [
        (label, gain, price)
        for label, gain, price in points
        if not any(
            other >= gain and low <= price and (other > gain or low < price)
            for _, other, low in points
        )
    ]
    ordered = sorted(front, key=lambda point: (-point[1], point[2]))
    return Front(more=more, less=less, runs=[label for label, _, _ in ordered])


def load_text(run: RunFigures) -> str:
    """The load of a run in words."""
    if run.rate_rps:
        return f"{run.rate_rps:g} requests/s"
    return f"{run.concurrency} users" if run.concurrency else "-"


def _row(run: RunFigures) -> FactorRow:
    return FactorRow(
        run=run.label,
        backend=run.backend,
        quantization=run.quantization,
        load=load_text(run),
        output_tokens_per_s=run.figures["output_tokens_per_s"],
        output_tokens_per_gpu_s=_value(run, PER_GPU),
        ttft_p95_ms=run.figures["ttft_p95_ms"],
        itl_p99_ms=run.figures["itl_p99_ms"],
        goodput_share=run.figures["goodput_share"],
        per_million_output_tokens_usd=run.cost.get(COST),
    )


def _value(run: RunFigures, name: str) -> float | None:
    if name == COST:
        return run.cost.get(COST)
    if name != PER_GPU:
        return run.figures[name]
    tokens = run.figures["output_tokens_per_s"]
    return tokens / run.gpus if tokens is not None and run.gpus else None


def _recommended(
    comparison: RunComparison, runs: Sequence[RunFigures], rule: Rule
) -> Recommendation:
    """The best by a rule, against the next by the figure that decided."""
    able = [
        run
        for run in runs
        if not rule.enough_goodput or (run.figures["goodput_share"] or 0.0) >= ENOUGH_GOODPUT_SHARE
    ]
    for name, more, because in rule.criteria:
        known = [(run, value) for run in able if (value := _value(run, name)) is not None]
        if len(known) < 2 or len({value for _, value in known}) == 1:  # noqa: PLR2004
            continue
        ordered = sorted(known, key=lambda each: -each[1] if more else each[1])
        (best, _), (following, _) = ordered[:2]
        if _value(best, name) == _value(following, name):
            able = [run for run, value in ordered if value == ordered[0][1]]
            continue
        return Recommendation(
            use_case=rule.use_case,
            run=best.label,
            text=f"{rule.use_case}: {_told_text(comparison, name, because, (best, following))}",
            figures=[f"{run.label}.{name}" for run in (best, following)],
        )
    return Recommendation(use_case=rule.use_case, run=None, text=_silent(rule, able), figures=[])


def _told_text(
    comparison: RunComparison, name: str, because: str, two: tuple[RunFigures, RunFigures]
) -> str:
    best, following = two
    heading = HEADINGS[name][0] if name in HEADINGS else FIGURE_OF[name].heading
    texts = [_figure_text(run, name) for run in two]
    return (
        f"{best.label} ({best.name}), {because}: {heading} {texts[0]}; the next is "
        f"{following.label} with {texts[1]}{_certainty(comparison, name, two)}."
    )


def _figure_text(run: RunFigures, name: str) -> str:
    value = _value(run, name)
    if name in HEADINGS:
        return f"{value:.4g} {HEADINGS[name][1]}"
    figure = FIGURE_OF[name]
    return f"{value_text(figure, value)}{f' {figure.unit}' if figure.unit else ''}"


def _certainty(comparison: RunComparison, name: str, two: tuple[RunFigures, RunFigures]) -> str:
    """Whether the two differ by more than noise, where they were compared."""
    if name == COST:
        return "; a price has no interval"
    measured = "output_tokens_per_s" if name == PER_GPU else name
    labels = {run.label for run in two}
    for pair in comparison.pairs:
        if {pair.run, pair.against} == labels:
            for change in pair.changes:
                if change.figure == measured and change.verdict in {NO_DIFFERENCE, TOO_LITTLE}:
                    return f" ({change.verdict})"
                if change.figure == measured:
                    return " (more than noise)"
    return " (the two were not tested against each other)"


def _silent(rule: Rule, able: Sequence[RunFigures]) -> str:
    """Why there is no recommendation."""
    if rule.enough_goodput and len(able) < 2:  # noqa: PLR2004
        return f"{rule.use_case}: fewer than two runs meet their SLOs in 95 of 100 requests."
    if any(_value(run, name) is not None for name, _, _ in rule.criteria for run in able):
        return f"{rule.use_case}: the runs are the same in all that it is decided by."
    lacking = {
        COST: "no cost is known: summary.json has no section `cost`",
        PER_GPU: "it is not known how many GPUs served",
    }
    return f"{rule.use_case}: {lacking.get(rule.criteria[0][0], 'no such figure is known')}."
