"""Runs as files of other tools, and theirs as runs: the figures are the same where both have them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.analysis import load
from kvswarm.analysis.finish import finish
from kvswarm.commands.exchange import EXPORTS, IMPORTS, ImportRequest, export, import_file
from kvswarm.errors import RunDirError, UsageError
from kvswarm.records import Record
from kvswarm.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, good, open_profile, run_info, write_run

SHARED = ("ttft_ms", "tpot_ms", "e2e_ms")
"""Latencies that all formats with requests have."""


def finished(path: Path, records: list[Record], **info: Any) -> dict[str, Any]:
    """A run directory with all it should have; its summary as JSON holds it."""
    write_run(path, [records], run_info(**info))
    finish(path)
    return summary_of(path)


def summary_of(path: Path) -> dict[str, Any]:
    """What summary.json holds."""
    summary: dict[str, Any] = json.loads(RunDir(path).summary.read_text("utf-8"))
    return summary


def as_file(run: Path, name: str, out: Path, *, detail: bool = True) -> Any:
    """Export a run; give what the file holds."""
    export(run, name, out=out, detail=detail)
    return yaml.safe_load(out.read_text("utf-8"))


def back(file: Path, out: Path, **asked: Any) -> dict[str, Any]:
    """Import a file; give the summary."""
    return summary_of(import_file(ImportRequest(path=file, out=out, **asked)))


def assert_same_latency(one: dict[str, Any], other: dict[str, Any]) -> None:
    """To a microsecond: what a run directory keeps of a time."""
    assert one["count"] == other["count"]
    for name in set(one) - {"count"}:
        assert one[name] == pytest.approx(other[name], abs=0.0011), name


requests = st.lists(
    st.builds(
        dict,
        ttft_ms=st.floats(0.01, 20_000.0),
        gaps_ms=st.lists(st.floats(0.0, 3_000.0), min_size=1, max_size=5),
        at_ms=st.floats(0.0, 60_000.0),
        tail_ms=st.floats(0.0, 50.0),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=6, deadline=None)
@given(requests=requests)
@pytest.mark.parametrize("name", ["vllm-bench", "guidellm"])
def test_a_run_out_and_in_again_has_the_same_figures(
    name: str, requests: list[dict[str, Any]]
) -> None:
    """Seconds as floats, since 1970 too, hold more than the microseconds of a run directory."""
    records = [good(index, **request) for index, request in enumerate(requests)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        before = finished(path / "run", records)
        export(path / "run", name, out=path / "file.json", detail=True)
        after = back(path / "file.json", path / "again")
    gaps = ("itl_ms",) if name == "vllm-bench" else ()  # guidellm has none
    for latency in (*SHARED, *gaps, "ttft_from_intended_ms"):
        assert_same_latency(before[latency], after[latency])
    assert after["duration_s"] == pytest.approx(before["duration_s"], abs=1e-6)
    assert after["tokens"]["completion"] == before["tokens"]["completion"]
    assert after["throughput"] == pytest.approx(before["throughput"], rel=1e-4)


@pytest.mark.parametrize("name", ["vllm-bench", "guidellm"])
def test_failed_requests_stay_failed_and_out_of_the_latencies(tmp_path: Path, name: str) -> None:
    before = finished(tmp_path / "run", MIXED)
    as_file(tmp_path / "run", name, tmp_path / "file.json")
    after = back(tmp_path / "file.json", tmp_path / "again")
    asked = before["requests"]
    assert after["requests"]["sent"] == asked["sent"]
    assert after["requests"]["ok"] == asked["ok"]
    unhappy = after["requests"]["failed"] + after["requests"]["cancelled"]
    assert unhappy == asked["failed"] + asked["cancelled"]
    for latency in SHARED:
        assert_same_latency(before[latency], after[latency])


@pytest.mark.parametrize("name", ["vllm-bench", "aiperf", "guidellm"])
def test_a_file_of_sums_alone_gives_the_tools_figures(tmp_path: Path, name: str) -> None:
    """Without requests there is nothing to count, and what is not told is null."""
    before = finished(tmp_path / "run", MIXED)
    as_file(tmp_path / "run", name, tmp_path / "file.json", detail=False)
    after = back(tmp_path / "file.json", tmp_path / "again")
    assert after["requests"]["ok"] == before["requests"]["ok"]
    for latency in SHARED:
        for statistic in ("mean", "std", "p50", "p99"):
            seen = before[latency][statistic]
            assert after[latency][statistic] == pytest.approx(seen, abs=0.0011), latency
    assert after["connect_ms"]["p50"] is None
    assert after["goodput"]["share"] is None
    assert after["run"]["seed"] is None
    assert len(load(tmp_path / "again").requests) == 0


@pytest.mark.parametrize("name", IMPORTS)
def test_an_imported_run_is_marked_and_never_valid(tmp_path: Path, name: str) -> None:
    finished(tmp_path / "run", [good(index, at_ms=index * 10) for index in range(20)])
    as_file(tmp_path / "run", name, tmp_path / "theirs.json")
    after = back(tmp_path / "theirs.json", tmp_path / "again")
    assert after["run"]["imported"]["tool"] == name
    assert after["run"]["imported"]["file"] == "theirs.json"
    assert after["verdict"]["status"] == "degraded"
    (reason,) = after["verdict"]["reasons"]
    assert "is not known" in reason
    assert name in (tmp_path / "again" / "report.html").read_text("utf-8")
    assert load(tmp_path).runs.set_index("run").loc["again", "verdict"] == "degraded"


def test_figures_of_an_imported_run_can_be_made_again(tmp_path: Path) -> None:
    finished(tmp_path / "run", MIXED)
    as_file(tmp_path / "run", "vllm-bench", tmp_path / "file.json")
    first = back(tmp_path / "file.json", tmp_path / "again")
    assert finish(tmp_path / "again") == first


def test_vllms_times_are_in_seconds_and_a_failed_request_has_zeros(tmp_path: Path) -> None:
    finished(tmp_path / "run", MIXED)
    content = as_file(tmp_path / "run", "vllm-bench", tmp_path / "file.json")
    assert content["completed"] == 2
    assert content["failed"] == 5
    assert content["ttfts"][0] == pytest.approx(0.1)
    assert content["itls"][0] == pytest.approx([0.01] * 3)
    assert (content["ttfts"][1], content["itls"][1], content["output_lens"][1]) == (0.0, [], 0)
    assert content["errors"][:2] == ["", "http_429: planted"]
    assert content["median_ttft_ms"] == 150.0
    assert content["max_concurrency"] == 4
    assert content["request_rate"] == "inf"
    assert content["request_goodput"] is None  # without SLOs there is none


def test_an_open_loop_has_its_rate_and_no_concurrency(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(0), good(1, at_ms=10)], profile=open_profile().to_dict())
    content = as_file(tmp_path / "run", "vllm-bench", tmp_path / "v.json")
    assert (content["request_rate"], content["max_concurrency"]) == (100.0, None)
    (benchmark,) = as_file(tmp_path / "run", "guidellm", tmp_path / "g.json")["benchmarks"]
    assert benchmark["config"]["strategy"] == {"type_": "constant", "rate": 100.0}


def test_genai_benchs_file_has_its_members(tmp_path: Path) -> None:
    """Those of a file in its repository: see kvswarm/analysis/exchange/genai_bench.py."""
    finished(tmp_path / "run", MIXED)
    content = as_file(tmp_path / "run", "genai-bench", tmp_path / "file.json")
    sums = content["aggregated_metrics"]
    assert {
        "scenario", "num_concurrency", "batch_size", "iteration_type", "run_duration",
        "mean_output_throughput_tokens_per_s", "requests_per_second", "error_codes_frequency",
        "error_rate", "num_error_requests", "num_completed_requests", "num_requests", "stats",
    } <= set(sums)  # fmt: skip
    assert set(sums["stats"]["ttft"]) == {
        "min", "max", "mean", "stddev", "sum", "p25", "p50", "p75", "p90", "p95", "p99",
    }  # fmt: skip
    assert sums["stats"]["ttft"]["mean"] == pytest.approx(0.15)
    assert sums["error_codes_frequency"]["429"] == 1
    first, second = content["individual_request_metrics"][:2]
    assert set(first) == set(sums["stats"]) | {"error_code", "error_message"}
    assert first["tpot"] == pytest.approx(0.01)
    assert (second["ttft"], second["error_code"]) == (None, 429)


def test_a_benchmark_report_is_one_by_llmds_schema_and_has_the_runs_figures(
    tmp_path: Path,
) -> None:
    """The exporter refuses what is none; here the figures."""
    before = finished(tmp_path / "run", MIXED)
    report = as_file(tmp_path / "run", "benchmark-report", tmp_path / "report.yaml")
    aggregate = report["results"]["request_performance"]["aggregate"]
    assert report["version"] == "0.2"
    assert aggregate["requests"]["total"] == before["requests"]["sent"]
    ttft = aggregate["latency"]["time_to_first_token"]
    assert (ttft["units"], ttft["mean"]) == ("ms", before["ttft_ms"]["mean"])
    load = report["scenario"]["load"]["standardized"]
    assert load["input_seq_len"]["value"] == 16
    assert load["concurrency"] == 4


@pytest.mark.parametrize("name", EXPORTS)
def test_every_format_takes_a_run_in_which_all_failed(tmp_path: Path, name: str) -> None:
    finished(tmp_path / "run", [record for record in MIXED if not record.ok])
    assert as_file(tmp_path / "run", name, tmp_path / "file", detail=False)


AIPERF_LINES = [
    {
        "metadata": {
            "request_start_ns": 1759813207532900363,
            "request_end_ns": 1759813207838764604,
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "input_sequence_length": {"value": 550, "unit": "tokens"},
            "time_to_first_token": {"value": 255.88656799999998, "unit": "ms"},
            "request_latency": {"value": 297.52522799999997, "unit": "ms"},
            "inter_chunk_latency": {
                "value": [
                    4.898437, 5.316006, 4.801489, 5.674918, 4.811467, 5.097998, 5.504797, 5.533548,
                ],
                "unit": "ms",
            },
            "output_sequence_length": {"value": 9, "unit": "tokens"},
            "inter_token_latency": {"value": 5.2048325, "unit": "ms"},
        },
        "error": None,
    },
    {
        "metadata": {
            "request_start_ns": 1759879161119147826,
            "request_end_ns": 1759879161119772754,
            "benchmark_phase": "profiling",
            "was_cancelled": True,
        },
        "metrics": {"error_isl": {"value": 550, "unit": "tokens"}},
        "error": {"code": 499, "type": "RequestCancellationError", "message": "cancelled"},
    },
]  # fmt: skip
"""The records of docs/tutorials/working-with-profile-exports.md in ai-dynamo/aiperf, of commit
13992dbd96879c76e9584f2e8dc05db49bee6cf2, without the members that are not read."""


def test_aiperfs_lines_give_the_figures_that_aiperf_tells_of_them(tmp_path: Path) -> None:
    file = tmp_path / "profile_export.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in AIPERF_LINES), "utf-8")
    summary = back(file, tmp_path / "run")
    assert summary["requests"]["ok"] == summary["requests"]["cancelled"] == 1
    assert summary["ttft_ms"]["p50"] == pytest.approx(255.887)
    assert summary["tpot_ms"]["mean"] == pytest.approx(5.2048325, abs=0.001)
    assert summary["itl_ms"]["count"] == 8
    row = load(tmp_path / "run").requests.iloc[0]
    assert row["sent_ns"] == 1759813207532900363
    assert row["prompt_tokens"] == 550


def test_a_sample_of_guidellms_requests_is_not_counted_as_the_run(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(index, at_ms=index * 10) for index in range(20)])
    content = as_file(tmp_path / "run", "guidellm", tmp_path / "file.json")
    del content["benchmarks"][0]["requests"]["successful"][5:]
    (tmp_path / "file.json").write_text(json.dumps(content), "utf-8")
    summary = back(tmp_path / "file.json", tmp_path / "again")
    assert summary["requests"]["ok"] == 20
    assert "5 of 20 requests" in " ".join(summary["run"]["notes"])


def test_of_a_file_with_several_runs_one_is_asked_for(tmp_path: Path) -> None:
    finished(tmp_path / "one", [good(0)])
    finished(tmp_path / "two", [good(0), good(1)])
    texts = []
    for name in ("one", "two"):
        as_file(tmp_path / name, "vllm-bench", tmp_path / f"{name}.json")
        texts.append((tmp_path / f"{name}.json").read_text("utf-8"))
    both = tmp_path / "both.json"
    both.write_text("\n".join(texts), "utf-8")
    with pytest.raises(UsageError, match="holds 2 runs"):
        back(both, tmp_path / "again")
    with pytest.raises(UsageError, match="not 3"):
        back(both, tmp_path / "again", part=3)
    assert back(both, tmp_path / "again", part=2)["requests"]["ok"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "cannot be read as JSON"),
        ('"text"', "looks like no format"),
        ('{"model_id": "m", "total_output_tokens": 3}', "is no result of vllm-bench"),
        (
            '{"model_id": "m", "total_output_tokens": 3, "total_input_tokens": 1, "completed": 1,'
            ' "duration": "long"}',
            r"\$.duration",
        ),
        ('{"benchmarks": [{"metrics": {}}]}', "is no result of guidellm"),
        ('{"request_latency": {"unit": "ms", "avg": 3}}', "request_count"),
        ('{"metadata": {"request_start_ns": 1}, "metrics": {}}', "time_to_first_token"),
    ],
)
def test_a_bad_file_gives_one_clear_message_and_leaves_no_directory(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "file.json"
    file.write_text(content, "utf-8")
    with pytest.raises(UsageError, match=message) as error:
        back(file, tmp_path / "run")
    assert error.value.fix
    assert not (tmp_path / "run").exists()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_never_a_traceback(data: st.DataObject) -> None:
    """Any value of a good file may have been replaced by any other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        finished(path / "run", [good(0), good(1, at_ms=5)])
        name = data.draw(st.sampled_from(sorted(IMPORTS)))
        content = as_file(path / "run", name, path / "file.json")
        _damage(content, data)
        (path / "file.json").write_text(json.dumps(content), "utf-8")
        try:
            summary = back(path / "file.json", path / "again", format_name=name)
        except UsageError as error:
            refused = error
        else:
            refused = None
        made = (path / "again" / "run.json").exists()
    if refused is None:
        assert summary["verdict"]["status"] != "valid"
    else:
        assert refused.message.startswith(str(path / "file.json"))
        assert not made


def _damage(content: Any, data: st.DataObject) -> None:
    """Go down a random path and replace what is there."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = data.draw(st.sampled_from(keys))
        inner = content[key]
        if isinstance(inner, (dict, list)) and inner and data.draw(st.booleans()):
            content = inner
            continue
        content[key] = data.draw(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.just([])
            | st.just({})
        )
        return


def test_a_run_of_sums_alone_cannot_be_exported(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(0)])
    as_file(tmp_path / "run", "aiperf", tmp_path / "file.json")
    back(tmp_path / "file.json", tmp_path / "again")
    with pytest.raises(RunDirError, match="no measured requests"):
        export(tmp_path / "again", "vllm-bench", out=None, detail=True)


def test_an_export_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(0)])
    with pytest.raises(UsageError, match=r"nowhere/file\.json: cannot be written"):
        export(tmp_path / "run", "aiperf", out=tmp_path / "nowhere" / "file.json", detail=True)


def test_gaps_of_an_imported_run_are_those_of_the_file(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(0, gaps_ms=(1.5, 0.0, 2.25))])
    as_file(tmp_path / "run", "vllm-bench", tmp_path / "file.json")
    back(tmp_path / "file.json", tmp_path / "again")
    assert np.allclose(load(tmp_path / "again").gaps()["itl_ms"], [1.5, 0.0, 2.25])


def kvswarm(*typed: str | Path) -> subprocess.CompletedProcess[str]:
    """Type a command."""
    line = [sys.executable, "-m", "kvswarm", *map(str, typed)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_both_commands_work_as_typed(tmp_path: Path) -> None:
    """In processes of their own, which have imported nothing before."""
    finished(tmp_path / "run", MIXED)
    out = kvswarm("export", tmp_path / "run", "--format", "vllm-bench")
    assert out.returncode == 0, out.stderr
    (tmp_path / "file.json").write_text(out.stdout, "utf-8")
    into = kvswarm("import", tmp_path / "file.json", "--out", tmp_path / "again")
    assert into.returncode == 0, into.stderr
    assert "file.json, imported from vllm-bench, on m" in into.stdout
    assert "degraded" in into.stdout
    none = kvswarm("import", tmp_path / "none.json")
    assert none.returncode == 2
    assert "none.json: cannot be read: No such file" in none.stderr


def test_an_imported_run_is_no_baseline_and_has_none(tmp_path: Path) -> None:
    """Nobody can tell whether it had the same workload."""
    finished(tmp_path / "run", MIXED)
    as_file(tmp_path / "run", "vllm-bench", tmp_path / "file.json")
    back(tmp_path / "file.json", tmp_path / "again")
    with pytest.raises(UsageError, match="its workload is not known"):
        finish(tmp_path / "run", baseline=tmp_path / "again")
    with pytest.raises(UsageError, match="its workload is not known"):
        finish(tmp_path / "again", baseline=tmp_path / "run")


def test_a_vllm_file_from_before_start_times_is_counted_too(tmp_path: Path) -> None:
    """Its requests have latencies, but no moments: how long it took is what the file says."""
    before = finished(tmp_path / "run", MIXED)
    content = as_file(tmp_path / "run", "vllm-bench", tmp_path / "file.json")
    for name in ("start_times", "queue_times", "latencies", "failed", "date"):
        del content[name]
    (tmp_path / "file.json").write_text(json.dumps(content), "utf-8")
    after = back(tmp_path / "file.json", tmp_path / "again")
    assert_same_latency(before["ttft_ms"], after["ttft_ms"])
    assert_same_latency(before["itl_ms"], after["itl_ms"])
    assert after["e2e_ms"]["p50"] == pytest.approx(before["e2e_ms"]["p50"] - 1.0)  # the tail
    assert after["duration_s"] == before["duration_s"]
    assert after["throughput"] == pytest.approx(before["throughput"])
    assert after["requests"]["sent"] == 7
    assert after["run"]["started"] is None
    assert load(tmp_path / "again").requests["sent_ns"].isna().all()


def test_guidellms_version_model_and_target_are_found(tmp_path: Path) -> None:
    """As its 0.6 tells them: the model is in the run, the version in the file's metadata."""
    finished(tmp_path / "run", [good(0)])
    content = as_file(tmp_path / "run", "guidellm", tmp_path / "file.json")
    content |= {"metadata": {"guidellm_version": "0.6.0"}, "args": {"backend_kwargs": {}}}
    content["benchmarks"][0]["config"]["backend"] = {"target": "http://a:8000", "model": "m/n"}
    (tmp_path / "file.json").write_text(json.dumps(content), "utf-8")
    run = back(tmp_path / "file.json", tmp_path / "again")["run"]
    assert (run["imported"]["version"], run["model"], run["target"]) == (
        "0.6.0",
        "m/n",
        "http://a:8000",
    )


def test_what_aiperf_calls_cancelled_or_not_complete_was_cut_off(tmp_path: Path) -> None:
    finished(tmp_path / "run", [good(0)])
    content = as_file(tmp_path / "run", "aiperf", tmp_path / "file.json")
    assert (content["was_cancelled"], content["is_complete"]) == (False, True)
    (tmp_path / "file.json").write_text(json.dumps(content | {"is_complete": False}), "utf-8")
    summary = back(tmp_path / "file.json", tmp_path / "again")
    assert summary["run"]["ended"] is None
    assert any("cut off" in reason for reason in summary["verdict"]["reasons"])


@pytest.mark.parametrize("detail", [True, False])
def test_an_imported_run_stands_beside_others_and_nothing_is_said_of_it(
    tmp_path: Path,
    detail: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Its figures are there to read; whether it had the same load, and how late it was, nobody knows."""
    finished(tmp_path / "own", [good(index, at_ms=index * 10.0) for index in range(40)])
    as_file(tmp_path / "own", "vllm-bench", tmp_path / "file.json", detail=detail)
    theirs = back(tmp_path / "file.json", tmp_path / "theirs")
    compared = kvswarm("compare", tmp_path / "own", tmp_path / "theirs", "--json")
    assert compared.returncode == 0, compared.stderr
    comparison = json.loads(compared.stdout)
    own, imported = comparison["runs"]
    assert imported["figures"]["ttft_p50_ms"] == theirs["ttft_ms"]["p50"]
    assert own["figures"]["ttft_p50_ms"] == pytest.approx(theirs["ttft_ms"]["p50"])
    (pair,) = comparison["pairs"]
    assert pair["changes"] == []
    assert any("imported from" in obstacle for obstacle in pair["obstacles"])
    shown = kvswarm("compare", tmp_path / "own", tmp_path / "theirs")
    assert "not compared" in shown.stdout
