"""Finished runs against each other: the figures of summary.json, and words that they bear out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kvswarm.analysis.comparable import Origin, base_name, read_member
from kvswarm.analysis.comparison import compare_runs, faster_share
from kvswarm.analysis.comparison_file import Change, RunComparison
from kvswarm.analysis.report_comparison import comparison_page, forest_plot
from kvswarm.analysis.rows import read_rows
from kvswarm.analysis.samples import FIGURES
from kvswarm.errors import RunDirError, UsageError
from kvswarm.profiles.features import Conversation
from kvswarm.rundir import RunDir, TargetInfo

sys.path.insert(0, str(Path(__file__).parent))
from comparedruns import finished_run
from rundirs import profile, run_info

FEW = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20)


def compared(*runs: RunDir, **of: Any) -> RunComparison:
    origins = [Origin(path=run.path, name=run.path.name, **of) for run in runs]
    comparison = compare_runs([read_member(origin) for origin in origins])
    comparison.plain()  # as its schema has it
    return comparison


def target(**changes: Any) -> TargetInfo:
    return TargetInfo(**{"base_url": "http://x/v1", "model": "m", "endpoint": "chat", **changes})


def change_of(comparison: RunComparison, name: str, run: str = "B") -> Change:
    pair = next(pair for pair in comparison.pairs if pair.run == run)
    return next(change for change in pair.changes if change.figure == name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """A run, the same server again, and one that takes a fifth longer; all of the same requests."""
    folder = tmp_path_factory.mktemp("runs")
    of = profile(load={"requests": 300}, slo={"ttft_ms": 150.0})
    return {
        "base": finished_run(folder / "base", noise=11, of=of),
        "again": finished_run(folder / "again", noise=2, of=of),
        "slow": finished_run(folder / "slow", noise=4, factor=1.2, failures=50, of=of),
    }


def test_a_run_that_takes_a_fifth_longer_is_slower_and_its_rates_are_lower(
    runs: dict[str, RunDir],
) -> None:
    """With intervals that hold the truth; requests are compared pair by pair."""
    comparison = compared(runs["base"], runs["slow"])
    for name in ("ttft_p50_ms", "tpot_p50_ms", "itl_p99_ms", "e2e_p50_ms"):
        change = change_of(comparison, name)
        assert change.verdict == "slower", name
        assert change.paired, name
        assert change.low is not None
        assert change.high is not None
        assert change.reference is not None
        assert change.low < 0.2 * change.reference < change.high, name
        assert change.faster_share is not None
        assert change.faster_share < 0.5
    for name in ("requests_per_s", "output_tokens_per_s", "goodput_rps", "goodput_share"):
        assert change_of(comparison, name).verdict == "lower", name
    assert change_of(comparison, "error_share").verdict == "higher"
    assert change_of(comparison, "error_share").difference == pytest.approx(50 / 300)


def test_the_same_server_again_is_no_difference(runs: dict[str, RunDir]) -> None:
    """And says how many requests would show one of a twentieth."""
    comparison = compared(runs["base"], runs["again"])
    verdicts = {change.verdict for change in comparison.pairs[0].changes}
    assert verdicts == {"no difference that these runs can show", "too little to tell"}
    needed = change_of(comparison, "ttft_p95_ms").needed_requests
    assert needed is not None
    assert needed > 300
    assert f"TTFT p95 {needed:,}" in " ".join(each.text for each in comparison.sentences)


def test_what_never_varies_is_no_test_and_no_difference(runs: dict[str, RunDir]) -> None:
    """Neither run had an error: nothing is corrected for that."""
    comparison = compared(runs["base"], runs["again"])
    assert change_of(comparison, "error_share").verdict == "no difference that these runs can show"
    p_values = [change.p_value for change in comparison.pairs[0].changes]
    assert comparison.tests == sum(value is not None for value in p_values) - 1


def test_too_few_values_are_told_with_the_reason(runs: dict[str, RunDir]) -> None:
    comparison = compared(runs["base"], runs["again"])
    change = change_of(comparison, "ttft_p99_ms")
    assert change.verdict == "too little to tell"
    assert change.why == "of 300 values fewer than 10 lie beyond this percentile"
    assert any(change.why in each.text for each in comparison.sentences)


def test_figures_are_those_of_summary_json_and_of_numpy_on_the_rows(
    runs: dict[str, RunDir],
) -> None:
    """To the microsecond, in which summary.json counts."""
    comparison = compared(runs["base"], runs["slow"])
    for label, run in (("A", runs["base"]), ("B", runs["slow"])):
        figures, summary = comparison.run(label).figures, json.loads(run.summary.read_bytes())
        rows = list(read_rows(run))
        ttft_ms = np.concatenate([each.of("ttft_ms", each.good) for each in rows])
        gaps_ms = np.concatenate([each.flat("itl_us", each.good) for each in rows]) / 1e3
        for share in (50, 95, 99):
            told = summary["ttft_ms"][f"p{share}"]
            assert figures[f"ttft_p{share}_ms"] == told
            assert told == pytest.approx(np.percentile(ttft_ms, share), abs=1e-3)
        assert figures["itl_p99_ms"] == summary["itl_ms"]["p99"]
        assert figures["itl_p99_ms"] == pytest.approx(np.percentile(gaps_ms, 99), abs=1e-3)
        assert figures["requests_per_s"] == summary["throughput"]["requests_per_s"]
        assert figures["goodput_share"] == summary["goodput"]["share"]
        assert figures["error_share"] == summary["requests"]["failed"] / 300


def test_differences_are_those_of_the_figures(runs: dict[str, RunDir]) -> None:
    """But for rates, which are compared over the time in which requests were sent."""
    comparison = compared(runs["base"], runs["again"])
    for figure in FIGURES:
        one, other = (comparison.run(label).figures[figure.name] for label in "BA")
        if figure.unit == "ms" or (figure.name.endswith("share") and one is not None):
            change = change_of(comparison, figure.name)
            assert change.reference == pytest.approx(other, abs=1e-3), figure.name
            assert one is not None
            assert other is not None
            assert change.difference == pytest.approx(one - other, abs=2e-3), figure.name


def test_every_figure_of_a_sentence_is_one_of_the_comparison(runs: dict[str, RunDir]) -> None:
    comparison = compared(runs["base"], runs["slow"])
    for sentence in comparison.sentences:
        assert sentence.figures
        for reference in sentence.figures:
            label, _, name = reference.partition(".")
            assert name in comparison.run(label).figures
    told = next(each for each in comparison.sentences if "slower than A in TTFT p50" in each.text)
    for reference in told.figures:
        label, _, name = reference.partition(".")
        assert f"{comparison.run(label).figures[name]:.2f} ms" in told.text


def test_p_values_are_corrected_for_all_runs_together(runs: dict[str, RunDir]) -> None:
    """A third run makes the same difference less sure."""
    two = compared(runs["base"], runs["again"])
    three = compared(runs["base"], runs["again"], runs["slow"])
    assert three.tests > two.tests
    name = "ttft_p50_ms"
    before, after = change_of(two, name), change_of(three, name)
    assert before.p_value == after.p_value
    assert (before.p_corrected or 0) <= (after.p_corrected or 0)
    assert (before.needed_requests or 0) < (after.needed_requests or 0)


def test_the_same_runs_are_always_told_the_same(runs: dict[str, RunDir]) -> None:
    once = compared(runs["base"], runs["slow"]).plain()
    assert once == compared(runs["base"], runs["slow"]).plain()


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"of": profile(load={"requests": 40, "concurrency": 8})}, "load.concurrency: 8 against 4"),
        ({"of": profile(load={"requests": 40}, seed=9)}, "seed: 9 against 0"),
        ({"of": profile(load={"requests": 40}, endpoint="completions")}, "endpoint:"),
        ({"seed": 8}, "seed: 8 against 7"),
        ({"target": target(model="other")}, "model: other against m"),
        ({"target": target(simulator=True)}, "one is of the simulator, the other of a server"),
        ({"failures": 40}, "other is invalid: "),
    ],
)
def test_what_stands_against_a_comparison_is_named_and_nothing_is_judged(
    tmp_path: Path, changes: dict[str, Any], obstacle: str
) -> None:
    of = profile(load={"requests": 40})
    base = finished_run(tmp_path / "base", requests=40, of=of)
    other = finished_run(tmp_path / "other", requests=40, **{"of": of, **changes})
    pair = compared(base, other).pairs[0]
    assert any(obstacle in each for each in pair.obstacles), pair.obstacles
    assert pair.changes == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8", True),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ", True),
        ("hf://Qwen/Qwen3-8B-GPTQ-Int4", "/mnt/models/Qwen3-8B", True),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-4B", False),
        ("Qwen/Qwen3-8B", "Qwen/Qwen2.5-8B", False),
    ],
)
def test_a_model_is_the_same_however_its_numbers_are_stored(
    one: str, other: str, *, same: bool
) -> None:
    assert (base_name(one) == base_name(other)) is same


def test_goodput_by_other_slos_is_not_compared(tmp_path: Path, runs: dict[str, RunDir]) -> None:
    of = profile(load={"requests": 300}, slo={"ttft_ms": 500.0})
    other = finished_run(tmp_path / "other", of=of)
    change = change_of(compared(runs["base"], other), "goodput_share")
    assert (change.verdict, change.why) == ("too little to tell", "the SLOs of the two differ")


def test_requests_of_dialogues_are_no_pairs(tmp_path: Path) -> None:
    """Their indices go to whoever is first, so the same index is another request."""
    of = profile(load={"requests": 60}, conversation=Conversation(turns=2))
    runs = [finished_run(tmp_path / name, requests=60, of=of) for name in "ab"]
    assert not any(change.paired for change in compared(*runs).pairs[0].changes)


def test_a_run_under_another_load_is_compared_with_the_baselines_server_under_it(
    tmp_path: Path,
) -> None:
    few, many = (profile(load={"requests": 60, "concurrency": users}) for users in (4, 8))
    paths = [("a4", few), ("b4", few), ("a8", many), ("b8", many)]
    members = [
        read_member(
            Origin(
                path=finished_run(tmp_path / name, requests=60, of=of).path,
                name=name,
                backend="vllm" if name.startswith("a") else "tgi",
            )
        )
        for name, of in paths
    ]
    comparison = compare_runs(members)
    assert {(pair.run, pair.against) for pair in comparison.pairs if pair.changes} == {
        ("B", "A"),
        ("D", "C"),
    }


@given(ones=FEW, others=FEW)
def test_the_share_of_faster_requests_is_that_of_all_pairs(
    ones: list[float], others: list[float]
) -> None:
    pairs = [(one < other) + (one == other) / 2 for one in ones for other in others]
    assert faster_share(np.array(ones), np.array(others)) == pytest.approx(np.mean(pairs))


def test_a_page_holds_the_words_the_intervals_and_no_live_markup(tmp_path: Path) -> None:
    """What is told by a server is text."""
    evil = target(model="<script>alert(1)</script>")
    runs = [finished_run(tmp_path / name, requests=60, noise=3, target=evil) for name in "ab"]
    comparison = compared(*runs)
    page = comparison_page(comparison)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "no difference that these runs can show" in page
    assert 'class="figure" data-for="plot0"' in page
    assert page.rstrip().endswith("</html>")
    figure = forest_plot(comparison.pairs[0])
    drawn = [name for trace in figure.data for name in trace.y]
    judged = [c for c in comparison.pairs[0].changes if c.low is not None and c.reference]
    assert len(drawn) == len(judged)


def test_one_run_is_no_comparison(runs: dict[str, RunDir]) -> None:
    with pytest.raises(UsageError, match="1 runs: a comparison is of 2 to 26"):
        compared(runs["base"])


def test_a_run_without_a_summary_says_how_to_make_it(tmp_path: Path) -> None:
    RunDir(tmp_path).write_info(run_info())
    with pytest.raises(RunDirError, match="kvswarm report"):
        read_member(Origin(path=tmp_path, name="x"))


@pytest.mark.parametrize(("phi", "paired"), [(0.0, True), (0.5, False), (0.9, True)])
def test_of_comparisons_of_one_server_one_in_twenty_says_anything_at_most(
    phi: float, *, paired: bool
) -> None:
    """Whatever of all figures it says; `benchmarks/comparisons.py` makes 500 of each kind."""
    benchmark = made_up_runs()
    count = 25
    false = sum(
        any(change.verdict not in benchmark.SILENT for change in changes)
        for changes in benchmark.comparisons(benchmark.Case(phi, 400, paired), count, seed=5)
    )
    assert false <= binom.ppf(0.999, count, 0.05)


def test_a_tenth_is_found_among_all_figures() -> None:
    """And in the right direction: latencies are longer, rates lower."""
    benchmark = made_up_runs()
    changes = next(benchmark.comparisons(benchmark.Case(0.5, 4000, True), 1, 6, 0.1))  # noqa: FBT003
    verdicts = {change.figure: change.verdict for change in changes}
    assert verdicts["ttft_p50_ms"] == verdicts["e2e_p50_ms"] == verdicts["itl_p50_ms"] == "slower"
    assert verdicts["output_tokens_per_s"] == "lower"
    assert verdicts["error_share"] == "no difference that these runs can show"


def made_up_runs() -> Any:
    """The benchmark's module, whose runs have a truth."""
    path = Path(__file__).parents[2] / "benchmarks" / "comparisons.py"
    spec = importlib.util.spec_from_file_location("benchmark_comparisons", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
