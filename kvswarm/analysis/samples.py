"""What two runs are compared by: their figures, and the values that these are made of.

In:  a run directory that was finished.
Out: `RunSamples`: for each of `FIGURES` a `Sample`.

Rates are compared by slices of the time in which requests were sent: what a run did while it began
and ended says more of its length than of the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kvswarm.analysis.blocks import Floats, Integers
from kvswarm.analysis.differences import Sample, Statistic
from kvswarm.analysis.rows import Rows, read_rows
from kvswarm.analysis.slos import meets_all_slos
from kvswarm.profiles.model import profile_from_dict
from kvswarm.rundir import RunDir

SLICES: Final = 400
MOMENT_S: Final = 1e-4
"""What took no time is spread over so much: over less, rates would be too high to be summed up."""
MOST_GAPS: Final = 20_000_000
"""More gaps than that are not held: every so-manieth request stands for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a comparison."""

    name: str
    heading: str
    unit: str
    sample: str
    statistic: Statistic
    more_is_better: bool = False


def _latency(name: str, heading: str, *shares: float) -> Iterator[Figure]:
    for share in shares:
        percentile = f"p{share * 100:g}"
        yield Figure(
            name=f"{name}_{percentile}_ms",
            heading=f"{heading} {percentile}",
            unit="ms",
            sample=f"{name}_ms",
            statistic=share,
        )


FIGURES: Final = (
    *_latency("ttft", "TTFT", 0.5, 0.95, 0.99),
    *_latency("itl", "ITL", 0.5, 0.99),
    *_latency("tpot", "TPOT", 0.5, 0.99),
    *_latency("e2e", "E2E", 0.5, 0.99),
    Figure(
        name="output_tokens_per_s",
        heading="output tokens/s",
        unit="tokens/s",
        sample="output_tokens_per_s",
        statistic="mean",
        more_is_better=True,
    ),
    Figure(
        name="requests_per_s",
        heading="requests/s",
        unit="requests/s",
        sample="requests_per_s",
        statistic="mean",
        more_is_better=True,
    ),
    Figure(
        name="goodput_rps",
        heading="goodput/s",
        unit="requests/s",
        sample="goodput_rps",
        statistic="mean",
        more_is_better=True,
    ),
    Figure(
        name="goodput_share",
        heading="goodput",
        unit="",
        sample="good",
        statistic="mean",
        more_is_better=True,
    ),
    Figure(name="error_share", heading="errors", unit="", sample="error", statistic="mean"),
    Figure(
        name="valid_output_share",
        heading="valid answers",
        unit="",
        sample="valid",
        statistic="mean",
        more_is_better=True,
    ),
)
PER_REQUEST: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
OVER_TIME: Final = ("output_tokens_per_s", "requests_per_s", "goodput_rps")


@dataclass(frozen=True, slots=True)
class RunSamples:
    """The samples of one run by name."""

    by_name: dict[str, Sample]

    def __getitem__(self, figure: Figure) -> Sample:
        return self.by_name[figure.sample]


def samples_of(run: RunDir) -> RunSamples:
    """Read a run's samples. Raises RunDirError where its table is damaged.

    Goodput has values where the profile has SLOs or answers were judged: else it is throughput.
    """
    slo = profile_from_dict(run.read_info().profile).slo
    parts, gaps = [], 0
    for rows in read_rows(run):
        parts.append(_part(rows, slo))
        gaps += len(rows.lists["itl_us"][0])
    whole = {name: np.concatenate([part[name] for part in parts]) for name in PARTS}
    order = np.argsort(whole["moment_ns"], kind="stable")
    whole = {name: values[order] for name, values in whole.items()}
    good = whole["ok"] == 1.0
    index = whole["index"].astype(np.int64)
    if not slo and np.isnan(whole["valid"]).all():
        whole["good"] = np.full(len(good), np.nan)
    samples = {name: Sample.of(whole[name][good], index[good]) for name in PER_REQUEST}
    samples["error"] = Sample.of(1.0 - whole["ok"], index)
    samples["good"] = Sample.of(whole["good"], index)
    samples["valid"] = Sample.of(whole["valid"][good], index[good])
    samples["itl_ms"] = _gaps(run, index[good], gaps)
    samples |= _slices(whole, good)
    return RunSamples(samples)


PLAIN: Final = (
    "index", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", *PER_REQUEST,
)  # fmt: skip
PARTS: Final = (*PLAIN, "moment_ns", "ok", "valid", "good", "tokens")


def _part(rows: Rows, slo: Mapping[str, float]) -> dict[str, Floats]:
    """The columns of the measured requests, but of those that the end of the run cancelled.

    One that could not be sent failed as well; its moment is when it was to be.
    """
    wanted = rows.measured & (rows.texts["error_kind"] != "cancelled")
    sent = rows["sent_ns"][wanted]
    valid = np.array(
        [np.nan if value is None else float(value) for value in rows.output_valid[wanted]]
    )
    return {
        **{name: rows[name][wanted] for name in PLAIN},
        "moment_ns": np.where(np.isnan(sent), rows["intended_ns"][wanted], sent),
        "ok": rows.ok[wanted].astype(np.float64),
        "valid": valid.astype(np.float64),
        "good": meets_all_slos(rows, slo)[wanted].astype(np.float64),
        "tokens": rows.output_tokens[wanted],
    }


def _gaps(run: RunDir, index: Integers, total: int) -> Sample:
    """The gaps of the successful requests, those of one request together, in ms.

    `total`: as many as the run has. They are read in a pass of their own, so as to hold no more.
    """
    step = -(-total // MOST_GAPS) if total else 1
    kept = index[::step]
    place_of = np.argsort(kept, kind="stable")
    values: list[Any] = []
    owners: list[Any] = []
    for rows in read_rows(run):
        wanted = rows.good & np.isin(rows["index"], kept)
        counts = np.diff(rows.lists["itl_us"][1])[wanted]
        values.append(rows.flat("itl_us", wanted) / 1e3)
        places = place_of[np.searchsorted(kept[place_of], rows["index"][wanted])]
        owners.append(np.repeat(places, counts))
    if not values:
        return Sample(np.zeros(0), np.zeros(0, dtype=np.int64), kept)
    owner = np.concatenate(owners).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    return Sample(np.concatenate(values)[order], owner[order], kept)


def _slices(whole: dict[str, Floats], good: Any) -> dict[str, Sample]:
    """Rates over equal slices of the time from the first request sent to the last.

    A request counts in each slice by the part of its time that lies there, and its tokens by the
    part of the time in which they came: by its end alone, requests that end together make waves.
    """
    sent = whole["sent_ns"][~np.isnan(whole["sent_ns"])]
    if len(sent) < 2 or sent[-1] <= sent[0]:  # noqa: PLR2004 - one moment is no time
        nothing = Sample.of(np.zeros(0), np.zeros(0, dtype=np.int64))
        return dict.fromkeys(OVER_TIME, nothing)
    edges = np.linspace(0.0, (sent[-1] - sent[0]) / 1e9, min(SLICES, len(sent)) + 1)

    def seconds(name: str, wanted: Any = good) -> Floats:
        values: Floats = (whole[name][wanted] - sent[0]) / 1e9
        return values

    met = whole["good"] == 1.0
    sums = {
        "requests_per_s": spread_over(edges, seconds("sent_ns"), seconds("end_ns"), 1.0),
        "output_tokens_per_s": spread_over(
            edges,
            seconds("first_token_ns"),
            seconds("last_token_ns"),
            whole["tokens"][good],
        ),
        "goodput_rps": spread_over(edges, seconds("sent_ns", met), seconds("end_ns", met), 1.0),
    }
    if np.isnan(whole["good"]).all():
        sums["goodput_rps"] = np.full(len(edges) - 1, np.nan)
    index = np.arange(len(edges) - 1)
    return {name: Sample.of(each / np.diff(edges), index) for name, each in sums.items()}


def spread_over(edges: Floats, begin: Floats, end: Floats, amount: Floats | float) -> Floats:
    """How much of the amounts lies in each slice, each spread evenly from its begin to its end."""
    there = ~(np.isnan(begin) | np.isnan(end))
    begin, end = begin[there], end[there]
    amount = np.broadcast_to(amount, there.shape)[there]
    end = np.maximum(end, begin + MOMENT_S)
    rate = amount / (end - begin)
    # What has come by a time t: sum of rate * (t - begin) of those begun, less that of those ended.
    by = _ramps(edges, begin, rate) - _ramps(edges, end, rate)
    slices: Floats = np.diff(by)
    return slices


def _ramps(times: Floats, starts: Floats, rate: Floats) -> Floats:
    """The sum of `rate * (time - start)` over all starts before each time."""
    order = np.argsort(starts, kind="stable")
    before = np.searchsorted(starts[order], times)
    rates = np.concatenate(([0.0], np.cumsum(rate[order])))
    moments = np.concatenate(([0.0], np.cumsum(rate[order] * starts[order])))
    ramps: Floats = times * rates[before] - moments[before]
    return ramps
