"""`kvswarm sweep --search`: the highest load that meets the SLOs, on servers of known capacity."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvswarm.commands.search_file import SCHEMA_PATH

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from running import KVSWARM, forgiving, going, kvswarm, simulator, until
from serving_scripts import SERVE, script
from typed_commands import TypeIn, typing_in

NGRAM = "speculative: {method: ngram, num_speculative_tokens: 2, prompt_lookup_max: 4}"
EVENLY = """\
pattern: constant
duration_s: 2.5
requests: null
input_tokens: 32
max_tokens: 8
drain_s: 3
endpoint: completions
slo: {ttft_from_intended_ms: 120}
"""
SEQUENCES, STEP_MS = 4, 20.0
CAPACITY_RPS = SEQUENCES / 8 / ((STEP_MS + SEQUENCES * 0.15 + 32 * 0.03 * SEQUENCES / 8) / 1e3)
"""Each of four requests at a time takes 8 steps of 21.08 ms: see docs/sweep.md."""


def searched(folder: Path) -> dict[str, Any]:
    """search.json, which must be as its schema says."""
    found: dict[str, Any] = json.loads((folder / "search.json").read_text())
    schema = json.loads(SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def test_a_search_brackets_the_capacity_also_when_it_is_interrupted(tmp_path: Path) -> None:
    """Above it the queue grows for as long as the load lasts; below it nobody waits."""
    words = [
        "sweep", "--search", "rate", "--profile", forgiving(tmp_path, EVENLY), "--goodput", "0.9",
        "--from", "20", "--precision", "0.2", "--blocks", "3", "--out", "search",
    ]  # fmt: skip
    out = tmp_path / "search"
    with simulator("--max-num-seqs", str(SEQUENCES), "--step-ms", str(STEP_MS)) as url:
        with going(*KVSWARM, *words, "--url", url, cwd=tmp_path) as started:
            journal = out / "20-2" / "requests.journal"
            until(lambda: journal.exists() and journal.stat().st_size > 1000, "the second run")
            done = started.end(signal.SIGINT)
        assert done.code == 130, done.err
        (level,) = searched(out)["levels"]
        assert [run["status"] for run in level["runs"]] == ["done", "interrupted"]
        assert "goes on with the same --out" in done.out
        kept = level["runs"][0]
        done = kvswarm(*words, "--url", url, cwd=tmp_path)
        assert done.code == 0, done.err
        found = searched(out)
        other = kvswarm(*words, "--url", url, "--seed", "9", cwd=tmp_path)
    assert found["levels"][0]["runs"][0] == kept
    assert (out / "20-2-unfinished-1").is_dir()
    assert {20.0: "pass", 40.0: "fail"}.items() <= {
        level["load"]: level["state"] for level in found["levels"]
    }.items()
    assert "of the offered rate was achieved" in found["levels"][1]["reason"]
    assert len(found["levels"][1]["runs"]) == 1
    result = found["result"]
    assert result["status"] == "found"
    assert 0.8 * CAPACITY_RPS < result["load"] < 1.06 * CAPACITY_RPS
    assert 0.94 * CAPACITY_RPS < result["next_load"] <= result["load"] * 1.2
    runs = [run for level in found["levels"] for run in level["runs"]]
    assert result["requests"] == sum(run["requests"] for run in runs) < 2000
    assert result["runs"] == len(runs)
    assert [run["seed"] for run in runs] == list(range(len(runs)))
    assert f"{result['load']:g} requests/s met the targets" in done.out
    assert other.code == 2
    assert "holds another search: seed 0, now 9" in other.err


def test_a_search_in_vain_ends_at_one_user_with_code_1_and_has_one_server_for_all_runs(
    tmp_path: Path,
) -> None:
    """No fewer users can be asked for; and a model is not loaded anew for each run."""
    server = script(tmp_path, SERVE)
    done = kvswarm(
        "sweep", "--search", "concurrency", "--profile", forgiving(tmp_path, NGRAM), "--json",
        "--serve", str(server.path), "--slo", "ttft_p50_ms=0.5", "--from", "1", "--out", "search",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 1, done.err
    found = searched(tmp_path / "search")
    assert json.loads(done.out) == found
    assert found["result"] == {
        "status": "none meets the targets", "load": None, "next_load": 1.0, "requests": 40,
        "runs": 2,
    }  # fmt: skip
    assert len(server.starts) == 1
    assert server.left() == []
    page = (tmp_path / "search" / "report.html").read_text("utf-8")
    assert "no load met the targets, down to 1 users" in page


def test_a_server_that_goes_away_ends_the_search_with_code_4(tmp_path: Path) -> None:
    """It says nothing of the load; the search can go on when it is back."""
    done = kvswarm(
        "sweep", "--search", "concurrency", "--profile", forgiving(tmp_path), "--out", "search",
        "--slo", "ttft_p50_ms=5", "--url", "http://127.0.0.1:9", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 4, done.err
    found = searched(tmp_path / "search")
    assert found["result"] is None
    assert found["levels"][0]["state"] is None
    assert found["levels"][0]["runs"][0]["status"] == "failed"


def test_every_member_of_search_json_has_a_line() -> None:
    """In docs/sweep.md, by its path."""
    schema = json.loads(SCHEMA_PATH.read_text("utf-8"))["properties"]
    page = (Path(__file__).parents[1] / "docs" / "sweep.md").read_text("utf-8")
    table = page.partition("In `search.json`")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    paths = {name for name in schema if name not in {"levels", "result"}}
    paths |= {f"levels[].{name}" for name in schema["levels"]["items"]["properties"]}
    result = schema["result"]["anyOf"][1]["properties"]
    paths |= {f"result.{name}" for name in result}
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == paths


# -- bad usage: exit code 2, and nothing is made ---------------------------------------------


@pytest.fixture
def type_in(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> TypeIn:
    """Type `kvswarm sweep` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return typing_in(monkeypatch, capfd, "sweep")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "kvswarm sweep: over what?"),
        ("--slo ttft_ms=3 --over seed=1,2", "--slo: goes with --search"),
        ("--precision 0.1 --over seed=1,2", "--precision: goes with --search"),
        ("--search rate --over seed=1,2", "--over with --search"),
        ("--search rate --profiles standard,burst", "--profiles with --search"),
        ("--search rate --rate 3", "--rate: is what is searched"),
        ("--search concurrency --concurrency 3", "--concurrency: is what is searched"),
        ("--search concurrency --from 2.5", "--from 2.5: is no number of users"),
        ("--search rate --from 9 --most 8", "--most 8: is below the first load, 9"),
        ("--search rate --slo ttft=3", "is no limit that a search can go by"),
        ("--search rate --set slo=null", "the profile has no slo"),
        ("--search rate", "a run has 100 measured requests at 1 requests/s; 5 of them cannot show"),
        ("--over concurrency=1,x", "is no number of users"),
        ("--over rate=1,x", "is no number of requests/s"),
        ("--over rate=1,2 --rate 3", "--rate: --over varies that"),
        ("--over rate=1,2 --over rate_rps=3,4", "--over rate_rps: is given twice"),
        ("--over seed=1,2 --set seed=3", "--over varies that key"),
        ("--over seed=1,2 --over concurrency=1,0", "concurrency is 0; must be at least 1"),
        ("--over seed=1", "has 1 values"),
        ("--profiles standard", "names 1 profiles"),
        ("--profiles standard,standard", "each once"),
        ("--profiles standard,nothing", "nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    words: str, told: str, type_in: TypeIn, tmp_path: Path
) -> None:
    """With what to give instead."""
    done = type_in(words)
    assert done.code == 2, done.err
    assert told in done.err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_search_shows_its_targets_and_its_first_run(
    type_in: TypeIn, tmp_path: Path
) -> None:
    """With the Locust command; and makes nothing."""
    done = type_in("--search rate --dry-run --requests 200 --slo ttft_p95_ms=300 --from 3")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["slos"] == [
        {"name": "ttft_p95_ms", "share": 0.95, "limits_ms": {"ttft_p95_ms": 300.0}}
    ]
    assert shown["first"]["profile"]["load"]["rate_rps"] == 3.0
    assert list(tmp_path.iterdir()) == []


def test_a_grid_has_a_run_for_every_combination_and_profiles_one_each(type_in: TypeIn) -> None:
    """A rate turns a profile of users into one of arrivals, as the flag does."""
    grid = type_in("--dry-run --over rate=1,2.5 --over input_tokens=16,32 --over seed=1,2")
    assert grid.code == 0, grid.err
    loads = [
        (run["profile"]["load"]["rate_rps"], run["profile"]["prompt"]["input_tokens"]["min_tokens"])
        for run in json.loads(grid.out)["runs"]
    ]
    assert loads == [(1.0, 16)] * 2 + [(1.0, 32)] * 2 + [(2.5, 16)] * 2 + [(2.5, 32)] * 2
    profiles = type_in("--dry-run --profiles standard,quantization/fp8 --concurrency 3")
    assert profiles.code == 0, profiles.err
    runs = json.loads(profiles.out)["runs"]
    assert [run["profile"]["name"] for run in runs] == ["standard", "quantization/fp8"]
    assert [run["profile"]["load"]["concurrency"] for run in runs] == [3, 3]
