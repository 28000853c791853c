"""Runs by what was varied: fronts that nobody surpasses, and recommendations with their figures."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.comparison_file import (
    LABELS,
    Change,
    FactorRow,
    Pair,
    Recommendation,
    RunComparison,
    RunFigures,
)
from kvswarm.analysis.factors import factors_of, front_of
from kvswarm.analysis.samples import FIGURES

NUMBERS = st.none() | st.integers(0, 5).map(float)


def run(label: str, **changes: Any) -> RunFigures:
    figures = {
        **dict.fromkeys([figure.name for figure in FIGURES], None),
        "output_tokens_per_s": 100.0,
        "ttft_p95_ms": 200.0,
        "ttft_p99_ms": 300.0,
        "itl_p99_ms": 20.0,
        "e2e_p50_ms": 900.0,
        "goodput_share": 1.0,
        "error_share": 0.0,
        **changes.pop("figures", {}),
    }
    plain: dict[str, Any] = {
        "label": label, "name": f"run-{label}", "path": f"/runs/{label}", "run_id": label,
        "profile": "p", "model": "m", "backend": "vllm", "quantization": None,
        "server_version": None, "simulator": False, "concurrency": 8, "rate_rps": None,
        "gpus": 2.0, "requests": 500, "slo": {}, "verdict": "valid", "reasons": [],
        "figures": figures, "cost": {},
    }  # fmt: skip
    return RunFigures(**{**plain, **changes})


def comparison(*runs: RunFigures, same_work: bool = True, verdict: str = "faster") -> RunComparison:
    changes = [Change(figure=figure.name, verdict=verdict) for figure in FIGURES]
    pairs = [
        Pair(run=each.label, against="A", obstacles=[], same_work=same_work, changes=changes)
        for each in runs[1:]
    ]
    return RunComparison(baseline="A", runs=list(runs), pairs=pairs, tests=1)


def recommended(of: RunComparison, use_case: str) -> Recommendation:
    factors = factors_of(of)
    assert factors is not None
    return next(each for each in factors.recommendations if each.use_case == use_case)


AWQ = {"quantization": "awq"}


def test_runs_that_differ_in_nothing_that_was_varied_have_no_factors() -> None:
    assert factors_of(comparison(run("A"), run("B"))) is None


def test_throughput_is_divided_by_the_gpus_and_unknown_where_they_are() -> None:
    factors = factors_of(comparison(run("A"), run("B", gpus=None, **AWQ)))
    assert factors is not None
    assert [row.output_tokens_per_gpu_s for row in factors.rows] == [50.0, None]


def test_the_fastest_first_token_is_recommended_for_latency_with_both_figures() -> None:
    of = comparison(run("A"), run("B", figures={"ttft_p95_ms": 150.0}, **AWQ))
    found = recommended(of, "latency")
    assert found.run == "B"
    assert found.figures == ["B.ttft_p95_ms", "A.ttft_p95_ms"]
    assert "TTFT p95 150.00 ms; the next is A with 200.00 ms (more than noise)" in found.text


def test_a_best_one_that_noise_may_have_made_is_told_so() -> None:
    silent = "no difference that these runs can show"
    two = run("A"), run("B", figures={"ttft_p95_ms": 150.0}, **AWQ)
    assert silent in recommended(comparison(*two, verdict=silent), "latency").text


def test_two_that_were_not_tested_against_each_other_are_told_so() -> None:
    ttfts = zip("ABC", (300.0, 150.0, 160.0), strict=True)
    runs = [run(name, figures={"ttft_p95_ms": ttft}, quantization=name) for name, ttft in ttfts]
    text = recommended(comparison(*runs), "latency").text
    assert "the next is C with 160.00 ms (the two were not tested against each other)" in text


def test_equals_are_told_apart_by_the_next_criterion() -> None:
    """Both lose nothing and make no errors: the tail decides."""
    of = comparison(run("A"), run("B", figures={"ttft_p99_ms": 250.0}, **AWQ))
    found = recommended(of, "production baseline")
    assert (found.run, found.figures[0]) == ("B", "B.ttft_p99_ms")


def test_what_is_cheap_but_misses_its_slos_is_not_recommended_for_its_cost() -> None:
    def priced(label: str, usd: float, goodput: float) -> RunFigures:
        return run(
            label,
            quantization=label,
            cost={"cost.per_million_output_tokens_usd": usd},
            figures={"goodput_share": goodput},
        )

    of = comparison(priced("A", 4.0, 1.0), priced("B", 3.0, 0.99), priced("C", 1.0, 0.5))
    found = recommended(of, "cost")
    assert found.run == "B"
    assert "3 USD; the next is A with 4 USD; a price has no interval" in found.text


def test_nothing_is_recommended_where_nothing_is_known() -> None:
    of = comparison(run("A", gpus=None), run("B", gpus=None, **AWQ))
    assert recommended(of, "cost").run is None
    assert "no cost is known" in recommended(of, "cost").text
    assert "not known how many GPUs" in recommended(of, "capacity").text
    assert "the same in all" in recommended(of, "latency").text


def test_runs_of_other_work_and_invalid_ones_do_not_enter() -> None:
    fast = {"figures": {"ttft_p95_ms": 1.0}, **AWQ}
    assert factors_of(comparison(run("A"), run("B", **fast), same_work=False)) is None
    assert factors_of(comparison(run("A"), run("B", verdict="invalid", **fast))) is None


@given(points=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
def test_nobody_on_a_front_is_surpassed_and_everybody_off_it_is(
    points: list[tuple[float | None, float | None]],
) -> None:
    rows = [
        FactorRow(
            run=label, backend=None, quantization=None, load="-", output_tokens_per_s=None,
            output_tokens_per_gpu_s=more, ttft_p95_ms=less, itl_p99_ms=None, goodput_share=None,
            per_million_output_tokens_usd=None,
        )
        for label, (more, less) in zip(LABELS, points, strict=False)
    ]  # fmt: skip
    known = {
        row.run: (row.output_tokens_per_gpu_s, row.ttft_p95_ms)
        for row in rows
        if row.output_tokens_per_gpu_s is not None and row.ttft_p95_ms is not None
    }
    front = front_of(rows, "output_tokens_per_gpu_s", "ttft_p95_ms")
    if len(known) < 2:
        assert front is None
        return
    assert front is not None
    for label, (more, less) in known.items():
        surpassed = any(
            other[0] >= more and other[1] <= less and other != (more, less)
            for other in known.values()
        )
        assert (label in front.runs) is not surpassed
