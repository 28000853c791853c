"""What features did and what is claimed of them: planted changes get the words that they deserve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, profile, run_info, write_run

sys.path.insert(0, str(Path(__file__).parents[1]))
from typed_commands import TypeIn, typing_in

from kvswarm.analysis.finish import finish
from kvswarm.analysis.impact import Measured, status_of
from kvswarm.analysis.impact_features import Claim, features, features_of
from kvswarm.profiles.load import load_profile
from kvswarm.rundir import RunDir

COUNT = 400
LESS_TTFT = Claim(figure="x", low_share=-0.4, high_share=-0.2, claim="less", source="nobody")
HARDLY_ANY = Claim(figure="x", low_share=-0.02, high_share=0.05, claim="none", source="nobody")


@pytest.fixture
def impact(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> TypeIn:
    return typing_in(monkeypatch, capfd, "impact")


def made(path: Path, factor: float = 1.0, argv: str = "", **changes: Any) -> Path:
    """A finished run whose TTFT is about 100 ms by a factor; the noise is the same in all."""
    noise = np.random.default_rng(5).normal(0, 8, COUNT)
    rows = [
        good(index, at_ms=index * 40.0, ttft_ms=factor * (100.0 + noise[index]))
        for index in range(COUNT)
    ]
    of = profile(load={"requests": COUNT}, **changes)
    argv_ = ["kvswarm", "run", *argv.split()]
    run = write_run(path, [rows], run_info(of, argv=argv_))
    finish(run.path)
    return path


@pytest.mark.parametrize(
    ("claim", "change", "interval", "told", "status"),
    [
        (LESS_TTFT, -0.30, (-0.35, -0.25), True, "borne out"),
        (LESS_TTFT, -0.30, (-0.75, 0.15), False, "cannot be told"),
        (LESS_TTFT, -0.10, (-0.12, -0.08), True, "less than claimed"),
        (LESS_TTFT, -0.60, (-0.65, -0.55), True, "more than claimed"),
        (LESS_TTFT, 0.10, (0.05, 0.15), True, "contradicted"),
        (LESS_TTFT, -0.18, (-0.30, -0.06), True, "cannot be told"),
        (LESS_TTFT, -0.30, None, False, "cannot be told"),
        (LESS_TTFT, -0.30, None, True, "borne out"),
        (LESS_TTFT, None, None, False, "not measured"),
        (HARDLY_ANY, 0.01, (-0.01, 0.03), False, "borne out"),
        (HARDLY_ANY, 0.01, (-0.20, 0.22), False, "cannot be told"),
        (HARDLY_ANY, 0.20, (0.15, 0.25), True, "more than claimed"),
    ],
)
def test_a_claim_is_held_against_the_interval(
    claim: Claim,
    change: float | None,
    interval: tuple[float, float] | None,
    told: bool,  # noqa: FBT001 - a row of the table
    status: str,
) -> None:
    """A change that is not told from noise bears nothing out, unless none was claimed."""
    low, high = interval or (None, None)
    measured = Measured(
        figure="x", change_share=change, low_share=low, high_share=high, told=told, words=""
    )
    assert status_of(claim, measured) == status


def test_every_claim_has_a_range_and_a_source() -> None:
    for feature in features().values():
        for claim in feature.claims:
            assert claim.low_share < claim.high_share
            assert claim.source


def test_a_planted_change_is_measured_and_its_claims_are_judged(
    tmp_path: Path, impact: TypeIn
) -> None:
    """30 % less TTFT bears the claim of speculation out; what is not claimed is only told."""
    base = made(tmp_path / "plain")
    ngram = made(tmp_path / "ngram", 0.7, speculative={"method": "ngram"})
    done = impact(f"{base} {ngram} --json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert (row["feature"], row["run"], row["against"]) == ("speculation", "ngram", "plain")
    ttft = next(each for each in row["figures"] if each["figure"] == "ttft_p50_ms")
    assert ttft["change_share"] == pytest.approx(-0.3, abs=0.005)
    assert ttft["low_share"] <= -0.3 <= ttft["high_share"]
    held = {each["figure"]: each["status"] for each in row["claims"]}
    assert held["ttft_p50_ms"] == "borne out"
    shown = impact(f"{base} {ngram}")
    assert "speculative decoding (ngram): claimed is 20-40 % lower TTFT" in shown.out
    assert "-30.0%" in shown.out


def test_a_run_without_what_the_baseline_has_shows_what_that_did(
    tmp_path: Path, impact: TypeIn
) -> None:
    """Without its prefix cache a server is slower: the cache made it faster."""
    base = made(tmp_path / "cached", vllm_features={"enable_prefix_caching": True})
    bare = made(tmp_path / "bare", 2.0, vllm_features={"enable_prefix_caching": False})
    (row,) = json.loads(impact(f"{base} {bare} --json").out)["rows"]
    assert (row["feature"], row["run"], row["against"]) == ("prefix_caching", "cached", "bare")
    ttft = next(each for each in row["figures"] if each["figure"] == "ttft_p50_ms")
    assert ttft["change_share"] == pytest.approx(-0.5, abs=0.005)


def test_memory_is_what_the_servers_log_says(tmp_path: Path, impact: TypeIn) -> None:
    """Over all GPUs that say it."""
    base = made(tmp_path / "fp16")
    awq = made(tmp_path / "awq", 0.9, argv="--serve 'vllm serve m --quantization awq_marlin'")
    line = "INFO [gpu_model_runner.py:5150] Model loading took {} GiB memory and 9.1 seconds\n"
    RunDir(base).server_log.write_text(line.format("8.0") * 2)
    RunDir(awq).server_log.write_text(line.format("2.4") * 2)
    (row,) = json.loads(impact(f"{base} {awq} --json").out)["rows"]
    assert row["feature"] == "awq"
    weights = next(each for each in row["figures"] if each["figure"] == "weights_gib")
    assert weights["change_share"] == pytest.approx(-0.7)
    assert [held["status"] for held in row["claims"]] == ["borne out"]


def test_what_differs_in_more_than_one_thing_or_in_none_is_not_guessed_at(
    tmp_path: Path, impact: TypeIn
) -> None:
    """Unless somebody says what it stands for."""
    base = made(tmp_path / "base")
    same = made(tmp_path / "same", 0.8)
    both = made(
        tmp_path / "both",
        0.8,
        speculative={"method": "ngram"},
        vllm_features={"quantization": "fp8"},
    )
    found = json.loads(impact(f"{base} {same} {both} --json").out)
    assert found["rows"] == []
    assert [note.partition(":")[0] for note in found["notes"]] == ["same", "both"]
    named = json.loads(impact(f"{base} gptq={same} fp8={both} --json").out)
    assert [row["feature"] for row in named["rows"]] == ["gptq", "fp8"]


def test_a_feature_that_is_not_known_is_refused_with_the_nearest(
    tmp_path: Path, impact: TypeIn
) -> None:
    base = made(tmp_path / "base")
    done = impact(f"{base} gtpq={base}")
    assert done.code == 2
    assert "Did you mean 'gptq'?" in done.err


@pytest.mark.parametrize(
    ("changes", "argv", "key"),
    [
        ({"vllm_features": {"quantization": "gptq_marlin"}}, "", "gptq"),
        ({}, "--serve vllm serve m --quantization=fp8", "fp8"),
        ({}, "--serve vllm serve m --speculative-config {}", "speculation"),
    ],
)
def test_features_are_read_from_profile_and_flags(
    changes: dict[str, Any], argv: str, key: str
) -> None:
    info = run_info(profile(**changes), argv=argv.split())
    assert features_of(info, {"server": None}) == {key}


def test_what_the_server_says_of_its_cache_is_the_truth() -> None:
    """Whatever the profile asked for."""
    info = run_info(profile(vllm_features={"enable_prefix_caching": False}))
    server = {"kv_cache": {"enable_prefix_caching": "True"}, "speculation": {"drafts": 4}}
    assert features_of(info, {"server": server}) == {"prefix_caching", "speculation"}


def test_tools_make_other_requests_and_are_compared_all_the_same(
    tmp_path: Path, impact: TypeIn
) -> None:
    """As two samples; anything else that differs stands against it."""
    tools = load_profile("tool-calling").tool_calling
    base = made(tmp_path / "plain")
    with_tools = made(tmp_path / "tools", 1.5, tool_calling=tools)
    (row,) = json.loads(impact(f"{base} {with_tools} --json").out)["rows"]
    assert (row["feature"], row["obstacles"]) == ("tool_calling", [])
    ttft = next(each for each in row["figures"] if each["figure"] == "ttft_p50_ms")
    assert ttft["change_share"] == pytest.approx(0.5, abs=0.02)
    assert ttft["told"]
    other = made(tmp_path / "other", 1.5, tool_calling=tools, seed=9)
    done = impact(f"{base} {other} --json")
    (row,) = json.loads(done.out)["rows"]
    assert row["figures"] == []
    assert any("seed" in obstacle for obstacle in row["obstacles"])
