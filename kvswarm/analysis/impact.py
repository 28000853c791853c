"""What each feature of serving did, measured, beside what is usually claimed of it.

In:  a baseline and runs of the same workload with other features, each a `Member`.
Out: `Impact`: a row for each feature, as plain data (`impact.schema.json`).

Between runs, the changes are those of `comparison.py`. Within one run, constrained requests against
their control and cached prefixes against others are the section `effects` of its summary. Memory
for weights is what vLLM's own log says (`Model loading took 4.3 GiB`), which a run has that started
its server; cost is that of the summaries. Both are told without an interval, and so is a claim of
them.

A claim is held against the change's interval of 95 %, as shares of the baseline's figure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from kvswarm.analysis.comparable import Member
from kvswarm.analysis.comparison import changes_between, compare_runs
from kvswarm.analysis.comparison_file import NO_DIFFERENCE, TOO_LITTLE, Change
from kvswarm.analysis.impact_features import (
    LORA,
    OF_WORKLOAD,
    WITHIN,
    Claim,
    features,
    features_of,
)
from kvswarm.analysis.samples import samples_of
from kvswarm.analysis.schemas import validator
from kvswarm.profiles.features import BASE

SCHEMA: Final = "impact.schema.json"
SHOWN: Final = ("ttft_p50_ms", "tpot_p50_ms", "e2e_p50_ms", "output_tokens_per_s")
"""Figures of a comparison that have a column."""
OF_EFFECTS: Final = {
    "ttft_ms": "ttft_p50_ms",
    "tpot_ms": "tpot_p50_ms",
}
"""Figures of effects within a run, which are medians, by their names here."""
COST: Final = "per_million_output_tokens_usd"
WEIGHTS: Final = "weights_gib"
WEIGHTS_LINE: Final = re.compile(r"Model loading took ([\d.]+) GiB")
NOT_MEASURED: Final = "not measured"
BORNE_OUT: Final = "borne out"
LESS: Final = "less than claimed"
MORE: Final = "more than claimed"
CONTRADICTED: Final = "contradicted"
CANNOT_TELL: Final = "cannot be told"


class Measured(msgspec.Struct, kw_only=True, frozen=True):
    """The change of one figure, as shares of the baseline's."""

    figure: str
    change_share: float | None
    low_share: float | None = None
    high_share: float | None = None
    """Interval of 95 %; None for memory and cost, which have none, or where too little was seen."""
    told: bool
    """Whether it is more than noise (or has no interval, and is what was read)."""
    words: str


class Held(msgspec.Struct, kw_only=True, frozen=True):
    """A claim, and whether this deployment bears it out."""

    claim: str
    figure: str
    source: str
    status: str


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """One feature, in one pair of runs or within one run."""

    feature: str
    name: str
    run: str
    against: str
    obstacles: list[str]
    """What stands against the comparison; then nothing is measured."""
    figures: list[Measured]
    claims: list[Held]


class Impact(msgspec.Struct, kw_only=True, frozen=True):
    """The table."""

    schema_version: int = 1
    baseline: str
    rows: list[Row]
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """Plain data, as its schema has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        validator(SCHEMA).validate(plain)
        return plain


def impact_of(members: Sequence[Member], names: Sequence[str | None]) -> Impact:
    """Compare runs with the first, which is the baseline, feature by feature.

    `names`: of each run the feature that it is to stand for; None: what it has and the baseline
    lacks, or the other way round. Raises RunDirError where a table is damaged, UsageError from
    `compare_runs`.
    """
    base, *others = members
    rows: list[Row] = []
    notes: list[str] = []
    lacks, *all_have = (features_of(each.info, each.summary) for each in members)
    for member, name, has in zip(others, names[1:], all_have, strict=True):
        changed = [name] if name else sorted(has ^ lacks)
        if len(changed) != 1:
            notes.append(_unclear(member, base, changed))
            continue
        # A run without what the baseline has shows what the baseline's feature did.
        swapped = name is None and changed[0] in lacks
        pair = (base, member) if swapped else (member, base)
        rows.append(_between(changed[0], *pair))
    for member, has in zip(members, (lacks, *all_have), strict=True):
        rows += _within(member, has)
    return Impact(baseline=base.origin.name, rows=rows, notes=notes)


def _unclear(member: Member, base: Member, changed: Sequence[str]) -> str:
    names = (member.origin.name, base.origin.name)
    if not changed:
        return (
            f"{names[0]}: has no feature that {names[1]} lacks, as far as the runs tell. Name it: "
            f"FEATURE={member.origin.path}."
        )
    return (
        f"{names[0]}: differs from {names[1]} in {' and '.join(changed)}, so that a change has "
        f"more than one cause. Run it with one of them, or name one: "
        f"{changed[0]}={member.origin.path}."
    )


def _between(feature: str, member: Member, base: Member) -> Row:
    """A feature by two runs: the first has it."""
    (pair,) = compare_runs([base, member]).pairs
    # A feature of requests makes other requests, so these are compared as two samples.
    others = [each for each in pair.obstacles if not each.startswith(OF_WORKLOAD.get(feature, ()))]
    changes = pair.changes
    if pair.obstacles and not others:
        changes = changes_between(samples_of(member.run), samples_of(base.run), paired=False)
    by_name = {change.figure: change for change in changes}
    figures = [_measured(by_name[name]) for name in SHOWN if name in by_name]
    if not others:
        figures += _plain_changes(member, base)
    return Row(
        feature=feature,
        name=features()[feature].name,
        run=member.origin.name,
        against=base.origin.name,
        obstacles=others,
        figures=figures,
        claims=_held(feature, figures),
    )


def _measured(change: Change) -> Measured:
    low, high, reference = change.low, change.high, change.reference
    shares: list[float | None] = [None, None]
    if low is not None and high is not None and reference:
        shares = [low / reference, high / reference]
    return Measured(
        figure=change.figure,
        change_share=change.change_share,
        low_share=shares[0],
        high_share=shares[1],
        told=change.verdict not in {NO_DIFFERENCE, TOO_LITTLE},
        words=change.verdict,
    )


def _plain_changes(member: Member, base: Member) -> Iterator[Measured]:
    """Memory and cost, of which each run has one value."""
    pairs = {
        WEIGHTS: (weights_gib(member), weights_gib(base)),
        COST: (_cost(member.summary), _cost(base.summary)),
    }
    for name, (ours, theirs) in pairs.items():
        if ours is not None and theirs:
            yield Measured(
                figure=name,
                change_share=ours / theirs - 1.0,
                told=True,
                words=f"{ours:.4g} against {theirs:.4g}",
            )


def weights_gib(member: Member) -> float | None:
    """Memory of the weights, in GiB over all GPUs, as the server's log says; None: it does not."""
    log = member.run.server_log
    if not log.is_file():
        return None
    found = WEIGHTS_LINE.findall(log.read_text("utf-8", errors="replace"))
    return sum(map(float, found)) if found else None


def _cost(summary: Mapping[str, Any]) -> float | None:
    value = (summary.get("cost") or {}).get(COST)
    return None if value is None else float(value)


def _within(member: Member, has: Collection[str]) -> Iterator[Row]:
    """Features that one run shows, by its own effects."""
    found: dict[tuple[str, str, str], list[Measured]] = {}
    for effect in member.summary["effects"]:
        feature = LORA if effect["against"] == BASE else WITHIN.get(effect["of"])
        figure = OF_EFFECTS.get(effect["figure"])
        if feature is not None and feature in has and figure is not None:
            key = (feature, effect["of"], effect["against"])
            found.setdefault(key, []).append(_of_effect(figure, effect))
    for (feature, of, against), figures in found.items():
        yield Row(
            feature=feature,
            name=features()[feature].name,
            run=f"{member.origin.name}: {of}",
            against=against,
            obstacles=[],
            figures=figures,
            claims=_held(feature, figures),
        )


def _of_effect(figure: str, effect: Mapping[str, Any]) -> Measured:
    low, high, reference = effect["low"], effect["high"], effect["reference"]
    there = low is not None and high is not None and bool(reference)
    told = there and not low <= 0.0 <= high
    return Measured(
        figure=figure,
        change_share=effect["change_share"],
        low_share=low / reference if there else None,
        high_share=high / reference if there else None,
        told=told,
        words=("higher" if effect["difference"] > 0 else "lower")
        if told
        else (NO_DIFFERENCE if there else TOO_LITTLE),
    )


def _held(feature: str, figures: Sequence[Measured]) -> list[Held]:
    by_name = {each.figure: each for each in figures}
    return [
        Held(
            claim=claim.claim,
            figure=claim.figure,
            source=claim.source,
            status=status_of(claim, by_name.get(claim.figure)),
        )
        for claim in features()[feature].claims
    ]


def status_of(claim: Claim, measured: Measured | None) -> str:
    """Whether a change bears a claim out.

    The interval decides: wholly outside the claimed range, the claim is contradicted (the other way
    round), or more or less than claimed; else it is borne out where the change itself is within the
    range and is told from noise (a claim of "hardly any" needs no change); else nobody can tell.
    """
    if measured is None or measured.change_share is None:
        return NOT_MEASURED
    change = measured.change_share
    exact = measured.low_share is None and measured.told
    low = change if exact else measured.low_share
    high = change if exact else measured.high_share
    if low is None or high is None:
        return CANNOT_TELL
    if high < claim.low_share or low > claim.high_share:
        return _beyond(claim, change)
    inside = claim.low_share <= change <= claim.high_share
    hardly_any = claim.low_share <= 0.0 <= claim.high_share
    if inside and (measured.told or (hardly_any and _covers(claim, low, high))):
        return BORNE_OUT
    return CANNOT_TELL


def _beyond(claim: Claim, change: float) -> str:
    """What to say of a change that is surely not in the claimed range."""
    middle = (claim.low_share + claim.high_share) / 2
    if change * middle < 0.0:
        return CONTRADICTED
    largest = max(abs(claim.low_share), abs(claim.high_share))
    return MORE if abs(change) > largest else LESS


def _covers(claim: Claim, low: float, high: float) -> bool:
    return claim.low_share <= low and high <= claim.high_share
