"""`kvswarm compare RUN_A RUN_B ...`: what is typed, what is said, and how it ends."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from kvswarm.commands.compare_file import COMPARISON_FILE
from kvswarm.commands.sweep_file import Sweep, ValueRun
from kvswarm.rundir import PodInfo, ServiceInfo, TargetInfo

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "analysis"))
from comparedruns import finished_run
from rundirs import profile
from typed_commands import TypeIn, typing_in


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> TypeIn:
    """`kvswarm compare WORDS` from its entry point to its exit."""
    return typing_in(monkeypatch, capfd, "compare")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one server, and one that takes half as long again; one of another load."""
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder / "a", noise=11, requests=200)
    finished_run(folder / "b", noise=12, requests=200)
    finished_run(folder / "slow", noise=13, requests=200, factor=1.5)
    other = profile(load={"requests": 200, "concurrency": 9})
    finished_run(folder / "other", noise=14, requests=200, of=other)
    return folder


def test_a_table_has_each_figure_with_its_change_within_100_columns(
    type_in: TypeIn, folder: Path
) -> None:
    """Of four runs; then sentences."""
    ended = type_in(" ".join(shlex.quote(str(folder / n)) for n in ("a", "b", "slow", "other")))
    assert ended.code == 0, ended.err
    table = [line for line in ended.out.splitlines() if line.startswith(("│", "┃"))]
    assert max(map(len, table)) <= 100
    row = next(line for line in table if "TTFT p50, ms" in line)
    assert "~" in row
    assert "slower" in row
    assert "C is slower than A in TTFT p50" in ended.out
    assert "D is not compared with A: load.concurrency: 9 against 4." in ended.out


def test_json_holds_the_same_and_nothing_else(type_in: TypeIn, folder: Path) -> None:
    ended = type_in(f"{folder / 'a'} {folder / 'slow'} --json")
    plain = json.loads(ended.out)
    assert plain["schema_version"] == 1
    assert [run["name"] for run in plain["runs"]] == ["a", "slow"]
    verdicts = {change["figure"]: change["verdict"] for change in plain["pairs"][0]["changes"]}
    assert verdicts["e2e_p50_ms"] == "slower"


def test_another_baseline_turns_the_words_round(type_in: TypeIn, folder: Path) -> None:
    ended = type_in(f"{folder / 'a'} {folder / 'slow'} --baseline {folder / 'slow'}")
    assert "A is faster than B in TTFT p50" in ended.out


def test_a_page_is_written_where_it_is_asked_for(
    type_in: TypeIn, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "c.html"
    assert type_in(f"{folder / 'a'} {folder / 'slow'} --html {page}").code == 0
    assert "B is slower than A in TTFT p50" in page.read_text("utf-8")


def test_the_runs_of_a_sweep_enter_and_those_that_failed_are_told(
    type_in: TypeIn, folder: Path
) -> None:
    values = [
        ValueRun(text=text, value=text, directory=text, status="done", exit_code=0)
        for text in ("a", "slow")
    ]
    values.append(ValueRun(text="c", value="c", directory="c", status="failed", error="no server"))
    Sweep(key="speculative", profile="case", seed=0, target="x", values=values).write(folder)
    ended = type_in(str(folder))
    (folder / "sweep.json").unlink()
    assert ended.code == 0, ended.err
    assert "A  speculative=a" in ended.out
    assert "c is left out: it is failed: no server." in ended.out


def test_costs_stand_beside_with_their_change_and_decide_what_is_cheapest(
    type_in: TypeIn, tmp_path: Path
) -> None:
    """Of the section `cost` of summary.json, with the GPUs that it counted; other numbers do not."""
    for name, usd, quantization in (("a", 4.0, None), ("b", 3.0, "awq")):
        of = profile(load={"requests": 40}, vllm_features={"quantization": quantization})
        run = finished_run(tmp_path / name, requests=40, of=of)
        summary = json.loads(run.summary.read_bytes())
        summary["cost"] = {
            "gpus_per_replica": 2, "replicas_mean": 1.5, "window_usd": 0.1,
            "per_million_output_tokens_usd": usd, "per_valid_answer_usd": None,
        }  # fmt: skip
        run.summary.write_text(json.dumps(summary))
    ended = type_in(f"{tmp_path / 'a'} {tmp_path / 'b'}")
    row = next(line for line in ended.out.splitlines() if "per_million_output" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")[1:]] == ["4", "3", "-25.0 %"]
    assert "cost: B (b), cheapest of those with a goodput of 95 %" in ended.out
    plain = json.loads(type_in(f"{tmp_path / 'a'} {tmp_path / 'b'} --json").out)
    assert plain["runs"][1]["cost"] == {"cost.per_million_output_tokens_usd": 3.0}
    assert [row["output_tokens_per_gpu_s"] for row in plain["factors"]["rows"]] == [
        run["figures"]["output_tokens_per_s"] / 3.0 for run in plain["runs"]
    ]


def test_gpus_are_those_of_the_deployment_beside_the_run(type_in: TypeIn, tmp_path: Path) -> None:
    """Of the same service alone; two replicas with two each are four."""
    service = ServiceInfo(
        kind="InferenceService", namespace="llm", name="qwen", cluster="https://c",
        pods=[PodInfo(name="p")],
    )  # fmt: skip
    target = TargetInfo(base_url="http://x/v1", model="m", endpoint="chat", service=service)
    for name in "ab":
        run = finished_run(tmp_path / name, requests=40, target=target)
        deployment = {"namespace": "llm", "service": "qwen" if name == "a" else "other"}
        deployment |= {"flags": {"gpus": 2}, "pods": [{}, {}]}
        (run.path / "deployment.json").write_text(json.dumps(deployment))
    plain = json.loads(type_in(f"{tmp_path / 'a'} {tmp_path / 'b'} --json").out)
    assert [run["gpus"] for run in plain["runs"]] == [4.0, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a", "1 runs: a comparison is of 2 to 26 runs"),
        ("a a", "is given twice"),
        ("a b --baseline slow", "is none of the runs that are compared"),
        ("a nowhere", "is no run directory"),
        ("a other", "none of the 2 runs can be compared"),
        ("a b --namespace llm --gpus 1", "--namespace, --gpus with run directories"),
        ("--baseline a --model x --namespace y", "--baseline: is for finished runs"),
        ("--html a --model x --namespace y", "--html: is for finished runs"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_way_out(
    type_in: TypeIn, folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(folder)
    ended = type_in(words)
    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""


def test_an_invalid_run_is_marked_and_the_code_says_so(
    type_in: TypeIn, folder: Path, tmp_path: Path
) -> None:
    finished_run(tmp_path / "bad", requests=20, failures=20, of=profile(load={"requests": 200}))
    ended = type_in(f"{folder / 'a'} {folder / 'b'} {tmp_path / 'bad'}")
    assert ended.code == 3
    assert "C is not compared with A: bad is invalid" in ended.out


def test_a_damaged_comparison_is_told_with_its_file(type_in: TypeIn, tmp_path: Path) -> None:
    (tmp_path / COMPARISON_FILE).write_text("{")
    ended = type_in(str(tmp_path))
    assert ended.code == 2
    assert str(tmp_path / COMPARISON_FILE) in ended.err
