"""Figures by variant, effects between variants, judged outputs, and runs against a baseline."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvswarm.analysis.baseline import check_same_workload
from kvswarm.analysis.finish import finish
from kvswarm.errors import RunDirError, UsageError
from kvswarm.profiles.model import MixPart
from kvswarm.records import Record

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import failed, good, profile, run_info, summary_of, write_run


def pairs(count: int, *, cost_ms: float) -> list[Record]:
    """Requests with a constraint and their controls; the constraint costs `cost_ms` of TTFT."""
    records = []
    for pair in range(count):
        base_ms = 100.0 + 37 * pair % 50
        for is_control in (True, False):
            ttft_ms = base_ms + (0 if is_control else cost_ms)
            records.append(
                good(
                    len(records),
                    at_ms=10 * len(records),
                    ttft_ms=ttft_ms,
                    group=pair,
                    variant="control" if is_control else "constrained",
                )
            )
    return records


def effect_of(summary: dict[str, Any], of: str, figure: str) -> dict[str, Any]:
    """The one effect of a variant on a figure."""
    (found,) = [e for e in summary["effects"] if (e["of"], e["figure"]) == (of, figure)]
    return dict(found)


def test_a_run_of_one_kind_has_no_variants(tmp_path: Path) -> None:
    """Its figures would be told twice."""
    summary = summary_of(tmp_path, [good(0), good(1)])
    assert (summary["variants"], summary["effects"], summary["outputs"]) == ([], [], None)


def test_a_planted_cost_of_a_constraint_is_found_pair_by_pair(tmp_path: Path) -> None:
    """The spread of the prompts is ten times the cost; only pairs can tell."""
    summary = summary_of(tmp_path, pairs(40, cost_ms=3.0))
    effect = effect_of(summary, "constrained", "ttft_ms")
    assert effect["against"] == "control"
    assert effect["difference"] == pytest.approx(3.0)
    assert effect["low"] == pytest.approx(3.0)
    assert effect["count"] == 40


def test_failed_requests_count_but_have_no_latency_in_their_variant(tmp_path: Path) -> None:
    """As in the figures of the whole run."""
    records = [
        good(0, variant="a", ttft_ms=10),
        failed(1, "stall", variant="a"),
        good(2, variant="a", ttft_ms=30, phase="warmup"),
        good(3, variant="b", ttft_ms=20),
    ]
    one, other = summary_of(tmp_path, records)["variants"]
    assert (one["variant"], one["sent"], one["ok"]) == ("a", 2, 1)
    assert one["ttft_ms"]["count"] == 1
    assert one["ttft_ms"]["max"] == 10
    assert (other["variant"], other["ok"]) == ("b", 1)


def test_the_shares_of_judged_outputs_are_those_of_the_rows(tmp_path: Path) -> None:
    """10 % planted, 10 % found; what was not checked counts for neither."""
    records = [
        good(i, output_valid=True, output_score="valid", case="order") for i in range(90)
    ] + [
        good(90 + i, output_valid=False, output_score="invalid", case="event",
             output_detail="$.id: no number")
        for i in range(10)
    ]  # fmt: skip
    records += [good(100, output_score="unchecked"), good(101), failed(102, "stall")]
    outputs = summary_of(tmp_path, records)["outputs"]
    assert (outputs["checked"], outputs["valid"], outputs["valid_share"]) == (100, 90, 0.9)
    assert outputs["by_score"] == {"invalid": 10, "unchecked": 1, "valid": 90}
    assert outputs["by_case"]["event"] == {"invalid": 10}
    assert outputs["details"] == [{"detail": "invalid: $.id: no number", "count": 10}]


def test_invalid_outputs_are_no_goodput_and_miss_their_gate(tmp_path: Path) -> None:
    """An answer that cannot be used is of no use, however fast."""
    records = [good(i, output_valid=i > 0, output_score="valid") for i in range(4)]
    info = run_info(profile(gate={"valid_output_share": 0.9}))
    summary = summary_of(tmp_path, records, info)
    assert summary["goodput"]["share"] == 0.75
    (gate,) = summary["gates"]
    assert (gate["value"], gate["passed"]) == (0.75, False)


def test_a_gate_on_outputs_of_a_run_that_checked_none_is_missed(tmp_path: Path) -> None:
    """It could not be measured, and says so."""
    summary = summary_of(tmp_path, [good(0)], run_info(profile(gate={"valid_output_share": 0.9})))
    assert summary["gates"][0]["value"] is None
    assert not summary["gates"][0]["passed"]


def test_hits_and_misses_of_the_prefix_cache_are_told_apart_by_usage(tmp_path: Path) -> None:
    """The first request of a shared prefix is a miss, whatever its variant says."""
    base = profile()
    prompt = replace(base.prompt, shared_prefix_tokens=8, shared_prefix_share=0.5)
    records = [good(i, at_ms=i, ttft_ms=50, cached_tokens=8, variant="shared prefix")
               for i in range(12)]  # fmt: skip
    records += [good(12 + i, at_ms=20 + i, ttft_ms=80, cached_tokens=0,
                     variant="shared prefix" if i == 0 else "own prefix")
                for i in range(12)]  # fmt: skip
    summary = summary_of(tmp_path, records, run_info(profile(prompt=prompt)))
    effect = effect_of(summary, "prefix hit", "ttft_ms")
    assert effect["difference"] == -30
    assert effect["count"] == 12
    shared = next(v for v in summary["variants"] if v["variant"] == "shared prefix")
    assert shared["mean_cached_tokens"] == pytest.approx(96 / 13)


def test_switching_costs_are_those_of_requests_after_another_adapter(tmp_path: Path) -> None:
    """In the order in which they were sent, not in which they were recorded."""
    order = ["a", "a", "b", "b", "b", "a"] * 10
    records, before = [], None
    for i, name in enumerate(order):
        switched = before not in {None, name}
        ttft_ms = 90.0 if switched else 40.0
        records.append(good(i, at_ms=5 * i, ttft_ms=ttft_ms, variant=name))
        before = name
    info = run_info(profile(adapters={"a": 1.0, "b": 1.0}))
    summary = summary_of(tmp_path, records[::-1], info)
    assert effect_of(summary, "another adapter before", "ttft_ms")["difference"] == 50


def test_the_parts_of_a_mix_stand_beside_each_other(tmp_path: Path) -> None:
    """Also those without a variant of their own."""
    parts = tuple(MixPart(weight=1.0, profile=profile(name=name)) for name in ("chat", "tools"))
    records = [good(0, scenario="chat"), good(1, scenario="tools", variant="auto")]
    variants = summary_of(tmp_path, records, run_info(profile(mix=parts)))["variants"]
    assert [(v["scenario"], v["variant"]) for v in variants] == [("chat", None), ("tools", "auto")]


def test_more_variants_than_can_be_told_are_gathered(tmp_path: Path) -> None:
    """A name per request must not fill memory or the page."""
    records = [good(i, variant=f"v{i}") for i in range(80)]
    variants = summary_of(tmp_path, records)["variants"]
    assert len(variants) == 65
    others = next(v for v in variants if v["variant"] == "others")
    assert others["ok"] == 16
    assert sum(v["ok"] for v in variants) == 80


def runs(folder: Path, *, factor: float, **changes: Any) -> tuple[Path, Path]:
    """A baseline and a run of the same workload, `factor` times as slow."""
    of = profile(**changes)
    base = [good(i, at_ms=100 * i, ttft_ms=50 + i, gaps_ms=(10.0, 12.0)) for i in range(30)]
    ours = [
        good(i, at_ms=100 * i, ttft_ms=(50 + i) * factor, gaps_ms=(10 * factor, 12 * factor))
        for i in range(30)
    ]
    write_run(folder / "base", [base], run_info(profile()))
    write_run(folder / "ours", [ours], run_info(of))
    finish(folder / "base")
    return folder / "base", folder / "ours"


def test_a_run_is_compared_with_its_baseline_request_by_request(tmp_path: Path) -> None:
    """The same seed made the same prompts."""
    base, ours = runs(tmp_path, factor=0.5, speculative={"method": "ngram"})
    summary = finish(ours, base)
    baseline = summary["baseline"]
    effects = {effect["figure"]: effect for effect in baseline["effects"]}
    assert effects["tpot_ms"]["change_share"] == pytest.approx(-0.5)
    assert effects["tpot_ms"]["high"] < 0
    assert effects["ttft_ms"]["count"] == 30
    assert effects["tokens_per_event"]["difference"] == 0
    assert baseline["verdict"] == "valid"


def test_a_baseline_of_another_workload_is_refused_with_what_differs(tmp_path: Path) -> None:
    """Otherwise shorter prompts would look like a faster server."""
    base, ours = runs(tmp_path, factor=1.0, seed=9, load={"concurrency": 8})
    with pytest.raises(UsageError, match=r"seed, load\.concurrency differ"):
        finish(ours, base)
    with pytest.raises(UsageError, match="differ"):
        check_same_workload(profile(request={"temperature": 0}), base)


def test_a_baseline_without_figures_says_how_to_make_them(tmp_path: Path) -> None:
    """A run that was cut off has none yet."""
    base, ours = runs(tmp_path, factor=1.0)
    (base / "summary.json").unlink()
    with pytest.raises(RunDirError, match="kvswarm report") as caught:
        finish(ours, base)
    assert str(base) in str(caught.value)
