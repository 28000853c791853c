"""`kvswarm run --sweep`: a run for each value, a table, and sweep.json that can be gone on with."""

from __future__ import annotations

import json
import re
import shlex
import signal
import string
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.commands.series import worst_code
from kvswarm.commands.sweep_file import SCHEMA_PATH, ValueRun
from kvswarm.commands.swept import directory_name, read_swept

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from running import KVSWARM, Run, forgiving, going, kvswarm, run, simulator, until
from serving_scripts import SERVE, script

NGRAM = "speculative: {method: ngram, num_speculative_tokens: 2, prompt_lookup_max: 4}"
TOKENS = "speculative.num_speculative_tokens"


def swept(folder: Path) -> dict[str, Any]:
    """sweep.json, which must be as its schema says."""
    sweep: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    schema = json.loads(SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(sweep)
    return sweep


# -- sweeps to their end ---------------------------------------------------------------------


def test_each_value_has_a_run_with_a_server_of_its_own_and_is_compared_with_the_first(
    tmp_path: Path,
) -> None:
    """The number of drafted tokens shows in acceptance and in tokens per event."""
    profile = forgiving(tmp_path, f"{NGRAM}\nmax_tokens: 24\nrequest: {{return_token_ids: true}}")
    done = run(tmp_path / "sweep", "--profile", profile, "--sweep", f"{TOKENS}=1,4")
    assert done.code == 0, done.err
    sweep = swept(tmp_path / "sweep")
    assert (sweep["key"], sweep["target"], sweep["seed"]) == (TOKENS, "simulator", 0)
    one, four = sweep["values"]
    assert [entry["directory"] for entry in (one, four)] == ["1", "4"]
    assert [entry["status"] for entry in (one, four)] == ["done", "done"]
    runs = [Run(tmp_path / "sweep" / name) for name in ("1", "4")]
    addresses = {each.info["target"]["base_url"] for each in runs}
    assert len(addresses) == 2
    for tokens, each, entry in zip((1, 4), runs, (one, four), strict=True):
        assert each.info["profile"]["speculative"]["num_speculative_tokens"] == tokens
        assert each.info["profile"]["speculative"]["method"] == "ngram"
        told = each.summary["server"]["speculation"]
        assert entry["figures"]["acceptance_share"] == told["acceptance_share"]
        assert entry["figures"]["ttft_p99_ms"] == each.summary["ttft_ms"]["p99"]
        tokens_of_rows = sum(row["completion_tokens"] for row in each.rows)
        events = sum(row["events"] for row in each.rows)
        assert entry["figures"]["tokens_per_event"] == pytest.approx(tokens_of_rows / events)
    assert four["figures"]["tokens_per_event"] > one["figures"]["tokens_per_event"] > 1
    assert one["effects"] == []
    assert four["effects"] == runs[1].summary["baseline"]["effects"]
    assert {effect["figure"] for effect in four["effects"]} >= {"tpot_ms", "tokens_per_event"}
    assert re.search(r"│ 4 +│ (valid|degraded) +│ 20/20 │", done.out)
    assert "4 against 1: TTFT" in done.out
    assert sweep["notes"] == []


def test_a_sweep_of_the_workload_sends_each_value_and_tells_no_effects(tmp_path: Path) -> None:
    """Prompts of other lengths are other requests: their difference is not the server's."""
    with simulator("--exact", "10", "1") as url:
        done = kvswarm(
            "run", "--profile", forgiving(tmp_path), "--url", url, "--seed", "5", "--json",
            "--sweep", "input_tokens=16,{uniform: {min: 20, max: 30}}",
            cwd=tmp_path,
        )  # fmt: skip
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-mine-sweep-[0-9a-f]{6}", folder.name)
    sweep = swept(folder)
    assert json.loads(done.out) == sweep
    assert sweep["seed"] == 5
    for entry, (least, most) in zip(sweep["values"], ((16, 16), (20, 30)), strict=True):
        each = Run(folder / entry["directory"])
        assert each.info["seed"] == 5
        assert each.info["profile"]["prompt"]["input_tokens"]["min_tokens"] == least
        assert each.info["profile"]["prompt"]["input_tokens"]["max_tokens"] == most
        assert entry["effects"] == []
        assert each.summary["baseline"] is None
    first, second = sweep["notes"]
    assert "not started anew" in first
    assert "input_tokens changes the workload" in second


def test_a_sweep_over_a_load_has_its_curve_and_is_the_same_by_either_command(
    tmp_path: Path,
) -> None:
    """`run --sweep` goes on with what `kvswarm sweep` began: one core, two doors."""
    words = ["--profile", forgiving(tmp_path), "--out", "sweep", "--url"]
    with simulator("--max-num-seqs", "2") as url:
        done = kvswarm("sweep", "--over", "concurrency=1,2,6", *words, url, cwd=tmp_path)
        assert done.code == 0, done.err
        again = kvswarm("run", "--sweep", "concurrency=1,2,6", *words, url, cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.err.count("Done before") == 3
    sweep = swept(tmp_path / "sweep")
    (curve,) = sweep["curves"]
    assert (curve["label"], curve["kind"]) == ("", "concurrency")
    for entry, point in zip(sweep["values"], curve["points"], strict=True):
        summary = Run(tmp_path / "sweep" / entry["directory"]).summary
        assert point["load"] == entry["value"]
        assert point["requests_per_s"] == summary["throughput"]["requests_per_s"]
        assert point["ttft_p99_ms"] == summary["ttft_ms"]["p99"]
        assert point["itl_p50_ms"] == summary["itl_ms"]["p50"]
    assert curve["saturated_from"] == 6
    assert "saturated from 6 users on" in done.out
    assert "saturated from 6 users on" in (tmp_path / "sweep" / "report.html").read_text("utf-8")


def test_the_exit_code_is_the_worst_of_the_runs(tmp_path: Path) -> None:
    """A script that asks only for the code must not miss a gate of one value."""
    with simulator("--exact", "10", "1") as url:
        done = run(
            tmp_path / "sweep", "--profile", forgiving(tmp_path), "--url", url,
            "--sweep", "gate.ttft_p50_ms=0.001,100000",
        )  # fmt: skip
    assert done.code == 1, done.err
    assert [entry["exit_code"] for entry in swept(tmp_path / "sweep")["values"]] == [1, 0]


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([("done", 0), ("done", 0)], 0),
        ([("done", 1), ("done", 0)], 1),
        ([("done", 1), ("done", 3), ("done", 0)], 3),
        ([("failed", 2), ("done", 3)], 4),
        ([("done", 0), ("failed", 4)], 4),
        ([("failed", 1), ("done", 0)], 4),
    ],
)
def test_worst_is_invalid_before_a_gate_and_not_run_before_both(
    ends: list[tuple[Any, int]], code: int
) -> None:
    """As the page on the command line says."""
    entries = [
        ValueRun(value=n, text=str(n), directory=str(n), status=status, exit_code=each)
        for n, (status, each) in enumerate(ends)
    ]
    assert worst_code(entries) == code


# -- sweeps that do not go well --------------------------------------------------------------


def test_a_value_that_cannot_be_run_is_told_and_the_others_go_on_and_are_kept(
    tmp_path: Path,
) -> None:
    """Out of memory with 4 tokens says nothing about 6; and the next call runs only what failed."""
    failing = SERVE.replace(
        "command = [", "if config['num_speculative_tokens'] == 4: sys.exit('too many')\ncommand = ["
    )
    server, out = script(tmp_path, failing), tmp_path / "sweep"
    words = ["--profile", forgiving(tmp_path, NGRAM), "--serve", str(server.path)]
    words += ["--sweep", f"{TOKENS}=2,4,6"]
    done = run(out, *words)
    assert done.code == 4, done.err
    two, four, six = swept(out)["values"]
    assert [entry["status"] for entry in (two, four, six)] == ["done", "failed", "done"]
    assert (four["exit_code"], four["figures"]) == (4, None)
    assert "too many" in four["error"]
    assert six["effects"]
    assert "failed     4 (exit code 4)" in done.out
    assert "Each value has a new server, and the profile has no warm-up" in done.out
    assert len(server.starts) == 3
    assert server.left() == []
    mended = script(tmp_path, SERVE)
    again = run(out, *words)
    assert again.code == 0, again.err
    assert len(mended.starts) == 4
    assert [entry["status"] for entry in swept(out)["values"]] == ["done"] * 3
    assert [entry["error"] for entry in swept(out)["values"]] == [None] * 3
    assert swept(out)["values"][2] == six


def test_an_interrupted_sweep_keeps_what_is_done_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """The run that was cut off is made again, and what it had is kept beside it."""
    profile = forgiving(tmp_path, "requests: 40\nmax_tokens: 20")
    words = ["--profile", profile, "--sweep", "timeouts.total_s=100,200,300", "--out", "sweep"]
    out = tmp_path / "sweep"
    with (
        simulator("--exact", "10", "10") as url,
        going(*KVSWARM, "run", "--url", url, *words, cwd=tmp_path) as started,
    ):
        journal = out / "200" / "requests.journal"
        until(lambda: journal.exists() and journal.stat().st_size > 1000, "rows of the second")
        done = started.end(signal.SIGINT)
        assert done.code == 130
        first, second, third = swept(out)["values"]
        states = [entry["status"] for entry in (first, second, third)]
        assert states == ["done", "interrupted", "pending"]
        assert second["figures"]["requests_ok"] < 40
        assert "interrupted" in done.out
        assert not (out / "300").exists()
        again = kvswarm("run", "--url", url, *words, cwd=tmp_path)
    assert again.code == 0, again.err
    assert f"Done before: {out / '100'}" in again.err
    sweep = swept(out)
    assert [entry["status"] for entry in sweep["values"]] == ["done"] * 3
    assert [entry["figures"]["requests_ok"] for entry in sweep["values"]] == [40] * 3
    assert all(entry["effects"] for entry in sweep["values"][1:])
    assert (out / "200-unfinished-1" / "summary.json").exists()
    with simulator() as url:
        other = kvswarm("run", "--url", url, *words, cwd=tmp_path)
        assert other.code == 2
        assert "holds another sweep: target" in other.err


# -- bad usage: exit code 2, and nothing is made ---------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--sweep seed=1,2 --sweep concurrency=1,2", "one key at a time"),
        (f"--sweep {TOKENS}=1,2 --url http://127.0.0.1:9", "--serve 'COMMAND'"),
        ("--sweep speculative=null,auto --url http://127.0.0.1:9", "setting of the server"),
        ("--sweep vllm_features.max_num_seqs=1,2 --url http://127.0.0.1:9", "of the server"),
        ("--sweep seed=1,2 --baseline .", "--baseline"),
        ("--sweep seed=1,2 --set seed=3", "--sweep varies that key"),
        ("--sweep seed=1,2 --seed 3", "--seed gives the same key"),
        ("--sweep seed=1", "has 1 values"),
        ("--sweep seed=", "has 0 values"),
        ("--sweep seed=1,2,1", "1 is given twice"),
        ("--sweep seed", "--sweep seed: is not KEY=VALUE"),
        ("--sweep seed=1,]", "the values are no list"),
        ("--sweep concurency=1,2", "--sweep concurency=1: concurency is not a key of profiles"),
        ("--sweep concurrency=2,0", "--sweep concurrency=0: concurrency is 0; must be at least 1"),
        ("--sweep seed=1,2 --out full", "holds files already"),
        ("--sweep seed=1,2 --dry-run --out full", "holds files already"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_made(
    words: str, told: str, tmp_path: Path
) -> None:
    """All values are checked first: a mistake in the last would be told an hour later."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    done = kvswarm("run", *shlex.split(words), cwd=tmp_path)
    assert done.code == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["full", "notes.txt"]


def test_dry_run_shows_the_run_of_each_value_and_makes_nothing(tmp_path: Path) -> None:
    """With the Locust command of each."""
    done = kvswarm("run", "--dry-run", "--sweep", "concurrency=1,3", cwd=tmp_path)
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert [each["profile"]["load"]["concurrency"] for each in shown["runs"]] == [1, 3]
    assert "--kv-set concurrency=3" in shown["runs"][1]["locust"]
    assert list(tmp_path.iterdir()) == []


# -- the flag --------------------------------------------------------------------------------

plain = st.text(string.ascii_letters + " ,:[]{}'\"#&*!", max_size=12)
some = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(values=st.lists(some, min_size=2, max_size=5, unique_by=repr))
def test_values_are_divided_as_a_list_of_yaml_is(values: list[Any]) -> None:
    """Commas within maps, lists and quotes belong to the value."""
    texts = [json.dumps(value) for value in values]
    found = read_swept(f"request.x={', '.join(texts)}")
    assert found.key == "request.x"
    assert [each.value for each in found.values] == values
    assert [each.text for each in found.values] == texts
    names = [each.directory for each in found.values]
    assert len(set(names)) == len(names)


@given(text=st.text(max_size=60))
def test_a_directorys_name_is_safe_and_tells_its_value_apart(text: str) -> None:
    """Whatever the value is: no path, nothing hidden, not our own file, and short."""
    name = directory_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,46}", name)
    assert name != "sweep.json"
    assert name == directory_name(text)
    if name == text:
        assert directory_name(f"{text}/") != name
