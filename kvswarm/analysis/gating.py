"""Hold a finished run against a file of SLOs, and against a baseline.

In:  the summary of a run and the file's limits; for regressions the samples of both runs.
Out: a `Gating`: a `Check` for everything that was asked, and the exit code.
Not: how it is shown: see `gate_words.py`, `gate_markdown.py` and `junit.py`.

Regression: the baseline's values are moved by the margin (a latency by 5 % up, a rate by 5 % down)
and the run is compared with that. It is worse by more than the margin where the difference is more
than chance, Holm-corrected over the figures; held where it is as surely the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from kvswarm.analysis.differences import (
    CONFIDENCE,
    LEAST_BEYOND,
    Difference,
    Sample,
    compare_samples,
    hold,
)
from kvswarm.analysis.named_figures import NamedFigure, read_figure, values_behind
from kvswarm.analysis.samples import OVER_TIME, RunSamples
from kvswarm.analysis.slo_file import Limit, Margin, SloFile
from kvswarm.errors import EXIT_GATE_MISSED, EXIT_INVALID_MEASUREMENT, EXIT_PASSED

SCHEMA_VERSION: Final = 1
Outcome = Literal["passed", "failed", "unknown"]
WORST: Final = {"valid": 0, "degraded": 1, "invalid": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure of the run against the baseline's, in the figure's unit; None where untold."""

    reference: float
    difference: float
    low: float | None
    high: float | None
    margin: float
    points: bool
    p_value: float | None
    """Of the run being as far from the baseline as the margin, corrected."""
    count: int

    @property
    def change_share(self) -> float | None:
        """The difference by the baseline's figure."""
        return self.difference / self.reference if self.reference else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was asked of a run, and what came of it."""

    kind: Literal["verdict", "slo", "regression"]
    name: str
    outcome: Outcome
    value: float | None = None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    change: Change | None = None
    reason: str | None = None
    """Why it failed or cannot be told, where the figures do not say so by themselves."""
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """A run that takes part: the one that is judged, or the baseline."""

    path: str
    summary: Mapping[str, Any]

    @property
    def status(self) -> str:
        """Its verdict."""
        return str(self.summary["verdict"]["status"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating:
    """What a gate says of a run."""

    slo: str
    run: Gated
    baseline: Gated | None
    checks: tuple[Check, ...]

    @property
    def invalid(self) -> tuple[Gated, ...]:
        """The runs whose figures say nothing."""
        runs = (self.run, self.baseline)
        return tuple(each for each in runs if each is not None and each.status == "invalid")

    @property
    def exit_code(self) -> int:
        """3 where a run is invalid, which goes before 1 for what failed; else 0."""
        if self.invalid:
            return EXIT_INVALID_MEASUREMENT
        failed = any(check.outcome == "failed" for check in self.checks)
        return EXIT_GATE_MISSED if failed else EXIT_PASSED

    @property
    def word(self) -> str:
        """The result in a word."""
        return {EXIT_PASSED: "passed", EXIT_GATE_MISSED: "failed"}.get(self.exit_code, "invalid")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; docs/gate.md names every member."""
        return {
            "schema_version": SCHEMA_VERSION,
            "result": self.word,
            "exit_code": self.exit_code,
            "slo": self.slo,
            "run": _plain_run(self.run),
            "baseline": None if self.baseline is None else _plain_run(self.baseline),
            "checks": [_plain_check(check) for check in self.checks],
        }


def _plain_run(gated: Gated) -> dict[str, Any]:
    return {
        "path": gated.path,
        "id": gated.summary["run"]["id"],
        "verdict": gated.status,
        "reasons": gated.summary["verdict"]["reasons"],
    }


def _plain_check(check: Check) -> dict[str, Any]:
    names = ("kind", "name", "outcome", "value", "unit", "at_least", "at_most", "reason", "note")
    plain = {name: getattr(check, name) for name in names}
    change = check.change
    if change is None:
        return {**plain, "change": None}
    told = (
        "reference", "difference", "low", "high", "change_share", "margin", "points", "p_value",
        "count",
    )  # fmt: skip
    return {**plain, "change": {name: getattr(change, name) for name in told}}


def limit_checks(slos: SloFile, summary: Mapping[str, Any]) -> list[Check]:
    """What the file asks of the run by itself."""
    checks = []
    if slos.verdict is not None:
        status = summary["verdict"]["status"]
        passed = WORST[status] <= WORST[slos.verdict]
        reasons = "; ".join(summary["verdict"]["reasons"])
        checks.append(
            Check(
                kind="verdict",
                name="verdict",
                outcome="passed" if passed else "failed",
                reason=None if passed else f"{status}: {reasons}",
                note=status if passed else None,
            )
        )
    return checks + [_limit_check(limit, summary) for limit in slos.limits]


def _limit_check(limit: Limit, summary: Mapping[str, Any]) -> Check:
    figure = limit.figure
    reading = read_figure(summary, figure)
    value = reading.value
    kept = value is not None and not (
        (limit.at_least is not None and value < limit.at_least)
        or (limit.at_most is not None and value > limit.at_most)
    )
    return Check(
        kind="slo",
        name=figure.name,
        outcome="passed" if kept else "failed",
        value=value,
        unit="share" if figure.is_share else figure.unit,
        at_least=limit.at_least,
        at_most=limit.at_most,
        reason=reading.reason,
        note=_few(figure, summary) if value is not None else None,
    )


def _few(figure: NamedFigure, summary: Mapping[str, Any]) -> str | None:
    """A far percentile of few values is guesswork: it says so."""
    statistic, count = figure.path[-1], values_behind(summary, figure)
    if count is None or not statistic.startswith("p") or not statistic[1:].isdecimal():
        return None
    beyond = count * (1.0 - float(f"0.{statistic[1:]}"))
    if beyond >= LEAST_BEYOND:
        return None
    return f"of {count} values: about {beyond:.2g} lie beyond it"


@dataclass(frozen=True, slots=True)
class _Compared:
    """A figure of two runs, both as they are and with the baseline moved by the margin."""

    margin: Margin
    plain: Difference
    beyond: Difference
    still: bool
    """Whether all values of each run are the same, so that there is no chance in them."""

    @property
    def worse_by(self) -> float:
        """By how much the run is worse than the margin allows."""
        difference = self.beyond.difference
        return -difference if self.margin.figure.more_is_better else difference


def regression_checks(
    slos: SloFile, run: RunSamples, baseline: RunSamples, *, paired: bool
) -> list[Check]:
    """Compare every figure that has a margin. `paired`: both sent the same requests."""
    compared = [
        _compare(margin, run[margin.figure], baseline[margin.figure], paired=paired)
        for margin in slos.margins
    ]
    corrected = hold([None if each is None else each.beyond.p_value for each in compared])
    checks = []
    for margin, each, p_value in zip(slos.margins, compared, corrected, strict=True):
        check = _regression_check(margin, each, p_value)
        if check.outcome == "unknown" and slos.unknown_fails:
            check = replace(check, outcome="failed")
        checks.append(check)
    return checks


def _compare(margin: Margin, ours: Sample, theirs: Sample, *, paired: bool) -> _Compared | None:
    together = paired and margin.figure.sample not in OVER_TIME
    statistic, moved = margin.figure.statistic, moved_by(theirs, margin)
    plain = compare_samples(ours, theirs, statistic, paired=together)
    beyond = compare_samples(ours, moved, statistic, paired=together)
    if plain is None or beyond is None:
        return None
    still = all(np.ptp(side.values) == 0.0 for side in (ours, theirs))
    return _Compared(margin, plain, beyond, still)


def moved_by(baseline: Sample, margin: Margin) -> Sample:
    """A baseline that is worse by just the margin: quantiles and means move with the values."""
    sign = -1.0 if margin.figure.more_is_better else 1.0
    if margin.points:
        return replace(baseline, values=baseline.values + sign * margin.margin)
    return replace(baseline, values=baseline.values * (1.0 + sign * margin.margin))


def _regression_check(margin: Margin, compared: _Compared | None, p_value: float | None) -> Check:
    check = Check(
        kind="regression",
        name=margin.figure.name,
        outcome="failed",
        unit="share" if margin.points else margin.figure.unit,
        reason="one of the runs has no such values",
    )
    if compared is None:
        return check
    plain = compared.plain
    change = Change(
        reference=plain.reference,
        difference=plain.difference,
        low=plain.low,
        high=plain.high,
        margin=margin.margin,
        points=margin.points,
        p_value=p_value,
        count=plain.count,
    )
    outcome, reason = _judged(compared, p_value)
    value = plain.reference + plain.difference
    return replace(check, outcome=outcome, value=value, change=change, reason=reason)


def _judged(compared: _Compared, p_value: float | None) -> tuple[Outcome, str | None]:
    count = compared.beyond.count
    certain = compared.still and count >= LEAST_BEYOND
    if p_value is None and not certain:
        return "unknown", f"cannot tell: {count} values are too few"
    if certain or (p_value is not None and p_value <= 1.0 - CONFIDENCE):
        if compared.worse_by > 0:
            return "failed", "worse by more than the margin"
        return "passed", None
    return "unknown", "cannot tell whether it is worse by more than the margin"
