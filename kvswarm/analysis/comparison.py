"""Finished runs against each other: every figure, its change, and whether that is more than noise.

In:  `Member`s (`comparable.py`).
Out: `RunComparison` (`comparison_file.py`).
Not: words, tables, pages: see `comparison_words.py`, `comparison_table.py`, `report_comparison.py`.

A run is compared with the baseline; one that differs from it in its load alone, with the run of the
baseline's server under that load, where there is one. p-values are corrected for all figures of all
runs together (`differences.hold`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from kvswarm.analysis.blocks import LEAST_BLOCKS, Floats
from kvswarm.analysis.comparable import Member, obstacles, pairs_up, same_work
from kvswarm.analysis.comparison_file import (
    FASTER,
    HIGHER,
    LABELS,
    LOWER,
    NO_DIFFERENCE,
    SLOWER,
    TOO_LITTLE,
    Change,
    Pair,
    RunComparison,
    RunFigures,
)
from kvswarm.analysis.comparison_words import sentences
from kvswarm.analysis.differences import (
    CONFIDENCE,
    LEAST_BEYOND,
    Difference,
    Sample,
    compare_samples,
    hold,
    needed_values,
    tells,
)
from kvswarm.analysis.factors import factors_of
from kvswarm.analysis.samples import FIGURES, OVER_TIME, Figure, RunSamples, samples_of
from kvswarm.errors import UsageError
from kvswarm.rundir import RunDir

SECTIONS: Final = ("cost", "energy")
"""Sections of summary.json whose figures by work are shown as they are, without interval."""
LATENCY_UNIT: Final = "ms"
OF_SLOS: Final = frozenset({"goodput_rps", "goodput_share"})


def compare_runs(
    members: Sequence[Member], baseline: int = 0, notes: Sequence[str] = ()
) -> RunComparison:
    """Compare runs with the one at the place `baseline`.

    Raises UsageError for fewer than two runs or more than there are labels, RunDirError where a
    table is damaged.
    """
    if not 2 <= len(members) <= len(LABELS):  # noqa: PLR2004 - one run is no comparison
        raise UsageError(
            f"{len(members)} runs: a comparison is of 2 to {len(LABELS)} runs",
            fix="Name the run directories, or a directory of `compare` or of a sweep.",
        )
    places = [place for place in range(len(members)) if place != baseline]
    against = [_against(members, place, baseline) for place in places]
    both = [(members[one], members[other]) for one, other in zip(places, against, strict=True)]
    # The baseline is in nearly every pair, and is the one that is asked for last.
    samples = lru_cache(maxsize=2)(samples_of)
    changes, tests = _judged([_drafts_of_runs(*pair, samples) for pair in both])
    pairs = [
        Pair(
            run=LABELS[one],
            against=LABELS[other],
            obstacles=obstacles(*pair),
            same_work=same_work(members[one], members[baseline]),
            changes=of_pair,
        )
        for one, other, pair, of_pair in zip(places, against, both, changes, strict=True)
    ]
    comparison = RunComparison(
        baseline=LABELS[baseline],
        runs=[_figures(member, LABELS[place]) for place, member in enumerate(members)],
        pairs=pairs,
        tests=tests,
        notes=list(notes),
    )
    return msgspec.structs.replace(
        comparison, sentences=sentences(comparison), factors=factors_of(comparison)
    )


def changes_between(ours: RunSamples, theirs: RunSamples, *, paired: bool) -> list[Change]:
    """Compare the samples of two runs, whatever they are of; a figure that neither has is left out.

    `paired`: requests of the same index are the same request. Corrected for the figures of this
    comparison alone.
    """
    changes, _ = _judged([list(_drafts(ours, theirs, paired=paired))])
    return changes[0]


def _judged(drafts: Sequence[Sequence[Draft]]) -> tuple[list[list[Change]], int]:
    """Judge all figures of all pairs together; also give how many tests that are."""
    p_values = hold([draft.p_value for of_pair in drafts for draft in of_pair])
    tests = sum(value is not None for value in p_values)
    corrected = iter(p_values)
    return [
        [_change(draft, next(corrected), tests) for draft in of_pair] for of_pair in drafts
    ], tests


def figure_value(summary: Mapping[str, Any], figure: Figure) -> float | None:
    """A figure as summary.json has it; None: it has none."""
    name = figure.name
    if figure.unit == LATENCY_UNIT:
        latency, _, percentile = name.removesuffix("_ms").rpartition("_")
        value = summary[f"{latency}_ms"][percentile]
    elif name == "error_share":
        requests = summary["requests"]
        ended = requests["ok"] + requests["failed"]
        value = requests["failed"] / ended if ended else None
    elif name == "valid_output_share":
        value = (summary["outputs"] or {}).get("valid_share")
    elif name.startswith("goodput"):
        value = summary["goodput"]["share" if name == "goodput_share" else "requests_per_s"]
    else:
        value = summary["throughput"][name]
    return None if value is None else float(value)


def _figures(member: Member, label: str) -> RunFigures:
    summary, profile, imported = member.summary, member.profile, member.info.imported
    load = profile.load if profile else imported
    return RunFigures(
        label=label,
        name=member.origin.name,
        path=str(member.origin.path),
        run_id=member.info.run_id,
        profile=profile.name if profile else f"imported from {imported.tool if imported else '?'}",
        model=member.model,
        backend=member.backend,
        quantization=member.quantization,
        server_version=member.info.target.server_version,
        simulator=member.info.target.simulator,
        concurrency=load.concurrency if load else None,
        rate_rps=load.rate_rps if load else None,
        gpus=member.gpus,
        requests=summary["requests"]["sent"],
        slo=dict(profile.slo) if profile else {},
        verdict=summary["verdict"]["status"],
        reasons=list(summary["verdict"]["reasons"]),
        figures={figure.name: figure_value(summary, figure) for figure in FIGURES},
        cost={
            f"{section}.{name}": float(value)
            for section in SECTIONS
            for name, value in (summary.get(section) or {}).items()
            if "per_" in name and isinstance(value, float)
        },
    )


def _against(members: Sequence[Member], place: int, baseline: int) -> int:
    """The run that one is compared with: the baseline, or its server under the same load."""
    one, base = members[place], members[baseline]
    if not obstacles(one, base) or not same_work(one, base):
        return baseline
    server = (base.backend, base.quantization, base.model)
    for number, other in enumerate(members):
        same = (other.backend, other.quantization, other.model) == server
        if number != place and same and not obstacles(one, other):
            return number
    return baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A figure of two runs, before it is known how many others there are."""

    figure: Figure
    difference: Difference | None
    why: str | None
    """Why there is too little to tell."""
    faster_share: float | None = None
    requests_by_value: float = 1.0
    """Requests of the smaller run by its values: gaps, or slices of time."""

    @property
    def same(self) -> bool:
        """Whether all values of both runs are one, such as no errors: there is nothing to test."""
        found = self.difference
        return found is not None and found.error == 0.0 and found.difference == 0.0

    @property
    def p_value(self) -> float | None:
        """None: nothing can be told, or nothing is to be tested."""
        return self.difference.p_value if self.difference and not self.same else None


def _drafts_of_runs(
    one: Member, other: Member, samples: Callable[[RunDir], RunSamples]
) -> list[Draft]:
    """Compare figure by figure what can be compared."""
    if obstacles(one, other):
        return []
    pair = samples(one.run), samples(other.run)
    drafts = list(_drafts(*pair, paired=pairs_up(one, other)))
    if one.profile and other.profile and one.profile.slo == other.profile.slo:
        return drafts
    why = "the SLOs of the two differ"
    return [
        Draft(figure=draft.figure, difference=None, why=why)
        if draft.figure.name in OF_SLOS
        else draft
        for draft in drafts
    ]


def _drafts(ours: RunSamples, theirs: RunSamples, *, paired: bool) -> Iterator[Draft]:
    requests = min(len(ours.by_name["error"].index), len(theirs.by_name["error"].index))
    faster: dict[str, float | None] = {}
    for figure in FIGURES:
        mine, yours = ours[figure], theirs[figure]
        if not len(mine.values) and not len(yours.values):
            continue
        together = paired and figure.name not in OVER_TIME
        difference = compare_samples(mine, yours, figure.statistic, paired=together)
        if figure.unit == LATENCY_UNIT and figure.sample not in faster:
            faster[figure.sample] = faster_share(mine.values, yours.values)
        yield Draft(
            figure=figure,
            difference=difference,
            why=_why(figure, mine, yours, difference),
            faster_share=faster.get(figure.sample),
            requests_by_value=requests / difference.count if difference else 1.0,
        )


def faster_share(ones: Floats, others: Floats) -> float | None:
    """How probably one of the first values is below one of the others; ties count half.

    The common language effect size (McGraw and Wong, Psychological Bulletin 111, 1992, 361-365),
    with all pairs counted. None where there are no pairs.
    """
    if not len(ones) or not len(others):
        return None
    ordered = np.sort(others)
    above = len(ordered) - np.searchsorted(ordered, ones, side="right")
    level = len(ordered) - np.searchsorted(ordered, ones, side="left") - above
    return float((above + level / 2).mean() / len(ordered))


def _why(figure: Figure, one: Sample, other: Sample, difference: Difference | None) -> str | None:
    if difference is None:
        return "one of the two has no such values"
    if difference.error is not None:
        return None
    if not all(tells(side.values, figure.statistic) for side in (one, other)):
        return f"of {difference.count} values fewer than {LEAST_BEYOND} lie beyond this percentile"
    return (
        f"{difference.count} values are so like their neighbours that they count as "
        f"{difference.blocks} of the {LEAST_BLOCKS} blocks that are needed, and the difference is "
        "not far above what either run did by itself"
    )


def _change(draft: Draft, p_corrected: float | None, tests: int) -> Change:
    found = draft.difference
    if found is None:
        return Change(figure=draft.figure.name, verdict=TOO_LITTLE, why=draft.why)
    values = needed_values(found, tests=tests)
    needed = None if values is None else math.ceil(values * draft.requests_by_value)
    value = found.reference + found.difference
    verdict = NO_DIFFERENCE if draft.same else verdict_of(draft.figure, found, p_corrected)
    return Change(
        figure=draft.figure.name,
        difference=found.difference,
        reference=found.reference,
        change_share=found.change_share,
        ratio=value / found.reference if found.reference else None,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        p_corrected=1.0 if draft.same else p_corrected,
        faster_share=draft.faster_share,
        count=found.count,
        blocks=found.blocks,
        paired=found.paired,
        needed_requests=needed,
        verdict=verdict,
        why=draft.why if verdict == TOO_LITTLE else None,
    )


def verdict_of(figure: Figure, found: Difference, p_corrected: float | None) -> str:
    """What can be said of a difference."""
    if p_corrected is None:
        return TOO_LITTLE
    if p_corrected >= 1.0 - CONFIDENCE:
        return TOO_LITTLE if found.error is None else NO_DIFFERENCE
    if figure.unit == LATENCY_UNIT:
        return FASTER if found.difference < 0 else SLOWER
    return LOWER if found.difference < 0 else HIGHER
