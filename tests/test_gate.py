"""`kvswarm gate` over run directories: what it says, writes and ends with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from kvswarm.analysis.finish import finish
from kvswarm.analysis.named_figures import SHORT
from kvswarm.analysis.slo_file import parse_slos
from kvswarm.records import Record
from kvswarm.rundir import JournalWriter, RunInfo

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "analysis"))
from rundirs import failed, good, profile, run_info, write_run
from typed_commands import TypeIn, typing_in

DOCS = (Path(__file__).parents[1] / "docs" / "gate.md").read_text("utf-8")


@pytest.fixture
def gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> TypeIn:
    """`kvswarm gate WORDS`, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return typing_in(monkeypatch, capfd, "gate")


def rows(ttft_ms: float = 100.0, count: int = 60, bad: int = 0) -> list[Record]:
    """Requests one after the other, whose TTFTs go up and down by a tenth."""
    swings = (0.9, 1.0, 1.1, 0.95, 1.05)
    kept = [good(i, at_ms=i * 150.0, ttft_ms=ttft_ms * swings[i % 5]) for i in range(count - bad)]
    return kept + [failed(count + i, "http_500", at_ms=9000.0 + i) for i in range(bad)]


def finished(name: str, of: Sequence[Record], info: RunInfo | None = None) -> Path:
    """A run directory with all its files."""
    path = Path(name)
    write_run(path, [of], info)
    finish(path)
    return path


def slos(text: str) -> str:
    """Write a file of SLOs."""
    Path("slo.yaml").write_text(text)
    return "--slo slo.yaml"


def told(gate: TypeIn, words: str) -> tuple[object, dict[str, Any]]:
    """The exit code, and what --json prints, by the names of the checks."""
    done = gate(f"{words} --json")
    found = json.loads(done.out)
    return done.code, {check["name"]: check for check in found["checks"]}


# -- limits --------------------------------------------------------------------------------------


def test_limits_that_are_kept_end_with_0_and_one_that_is_not_with_1(gate: TypeIn) -> None:
    """At the limit is within it, on both sides."""
    finished("run", rows(bad=6))
    kept = slos("ttft_p50_ms: 100\nerror_share: 10%\nsuccess_share: 90%\nitl_max_ms: {min: 10}")
    done = gate(f"run {kept}")
    assert (done.code, done.err) == (0, "")
    assert "passed      error_share 10 %, at most 10 %" in done.out
    assert done.out.endswith("gate passed: 4 of 4 checks passed\n")
    code, checks = told(gate, f"run {slos('ttft_p50_ms: 99.999999')}")
    assert code == 1
    assert checks["ttft_p50_ms"]["outcome"] == "failed"
    assert checks["ttft_p50_ms"]["value"] == pytest.approx(100.0)


def test_a_figure_just_above_its_limit_does_not_look_like_it(gate: TypeIn) -> None:
    """`100 ms, at most 100 ms: FAILED` would be a riddle."""
    finished("run", [good(0, ttft_ms=100.004)])
    out = gate(f"run {slos('ttft_p50_ms: 100')}").out
    assert "ttft_p50_ms 100.004 ms, at most 100 ms" in out


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("cold_multiplier: 8", "the service was not measured by its name"),
        ("valid_output_share: 0", "no answer of the run was judged"),
        ("server.gpu.utilisation_share: {min: 0}", "no server told its metrics"),
        ("connect_p99_ms: 1e9", "no measured, successful request has a connect_ms.p99"),
        ("goodput.slo_share.ttft_ms: 0", "the run has no goodput.slo_share.ttft_ms"),
    ],
)
def test_a_figure_that_the_run_lacks_fails_with_its_reason(
    gate: TypeIn, limit: str, why: str
) -> None:
    """However mild the limit: nothing passes because it was not measured."""
    finished("run", rows())
    done = gate(f"run {slos(limit)}")
    assert done.code == 1
    assert why in done.out


def test_an_older_summary_that_lacks_a_section_fails_its_limits_alone(gate: TypeIn) -> None:
    """Another version of kvswarm made it."""
    path = finished("run", rows())
    summary = json.loads((path / "summary.json").read_text())
    del summary["replicas"], summary["outputs"]
    (path / "summary.json").write_text(json.dumps(summary))
    code, checks = told(gate, f"run {slos('cold_multiplier: 8')}")
    assert code == 1
    assert "has no replicas: another version" in checks["cold_multiplier"]["reason"]
    assert told(gate, f"run {slos('ttft_p50_ms: 100')}")[0] == 0


def test_kinds_of_errors_that_did_not_happen_are_none_of_them(gate: TypeIn) -> None:
    """The summary lists only what happened."""
    finished("run", rows(bad=2))
    limits = slos("requests.by_error.http_429: 0\nrequests.by_error.http_500: 1")
    code, checks = told(gate, f"run {limits}")
    assert code == 1
    assert [(check["value"], check["outcome"]) for check in checks.values()] == [
        (0.0, "passed"), (2.0, "failed"),
    ]  # fmt: skip


def test_a_far_percentile_of_few_values_is_judged_and_noted(gate: TypeIn) -> None:
    """p99 of 60 requests lies between the two slowest of them."""
    finished("run", rows())
    _, checks = told(gate, f"run {slos('ttft_p99_ms: 500')}")
    assert checks["ttft_p99_ms"]["note"] == "of 60 values: about 0.6 lie beyond it"
    assert told(gate, f"run {slos('ttft_p50_ms: 500')}")[1]["ttft_p50_ms"]["note"] is None


# -- the verdict ---------------------------------------------------------------------------------


def test_an_invalid_run_ends_with_3_whatever_its_limits_say(gate: TypeIn) -> None:
    """And so does one whose baseline is invalid."""
    finished("run", rows(), run_info())
    finished("bad", [failed(i, "http_500") for i in range(10)], run_info())
    kept, missed = slos("requests.failed: 100"), "--junit j.xml"
    done = gate(f"bad {kept} {missed}")
    assert done.code == 3
    assert "gate invalid" in done.out
    suite = ET.parse("j.xml").getroot()  # noqa: S314 - our own file
    assert [error.get("type") for error in suite.iter("error")] == ["invalid"]
    against = slos("regression: {error_share: 5%}")
    assert gate(f"run {against} --baseline bad").code == 3
    assert gate(f"bad {against} --baseline run").code == 3


def test_a_degraded_run_passes_unless_the_file_wants_a_valid_one(gate: TypeIn) -> None:
    """`verdict: valid` is for those who gate on small differences."""
    finished("run", [good(i, at_ms=i * 150.0, clock_step_us=50_000) for i in range(20)])
    status = json.loads(Path("run/summary.json").read_text())["verdict"]["status"]
    assert status == "degraded"
    assert gate(f"run {slos('ttft_p50_ms: 100')}").code == 0
    assert gate(f"run {slos('verdict: degraded')}").code == 0
    done = gate(f"run {slos('verdict: valid')}")
    assert done.code == 1
    assert "FAILED      verdict (degraded: " in done.out


# -- against a baseline --------------------------------------------------------------------------


def test_a_run_that_got_slower_fails_and_one_that_did_not_passes(gate: TypeIn) -> None:
    """By 30 %, with a margin of 5 %; request by request."""
    finished("base", rows(count=400))
    finished("same", rows(count=400))
    finished("slow", rows(130.0, count=400))
    limits = slos("regression: {ttft_p50_ms: 5%, error_share: 1%}")
    done = gate(f"same {limits} --baseline base")
    assert (done.code, done.err) == (0, "")
    code, checks = told(gate, f"slow {limits} --baseline base")
    assert code == 1
    assert checks["ttft_p50_ms"]["outcome"] == "failed"
    assert checks["ttft_p50_ms"]["value"] == pytest.approx(130.0)
    change = checks["ttft_p50_ms"]["change"]
    assert change["reference"] == pytest.approx(100.0)
    assert change["change_share"] == pytest.approx(0.30)
    assert checks["error_share"]["outcome"] == "passed"
    assert told(gate, f"base {limits} --baseline slow")[0] == 0


def test_baselines_that_cannot_be_compared_are_refused_with_what_differs(gate: TypeIn) -> None:
    """Another load gives other latencies, whatever the server."""
    finished("run", rows())
    finished("other", rows(), run_info(profile(load={"concurrency": 8})))
    done = gate(f"run {slos('regression: {ttft_p50_ms: 5%}')} --baseline other")
    assert done.code == 2
    assert "had another workload: load.concurrency differ" in done.err


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("regression: {ttft_p50_ms: 5%}", "run", "regression needs a baseline"),
        ("regression: {ttft_p50_ms: 5%}", "run --baseline ./run", "is the run itself"),
        ("regression: {ttft_p50_ms: 5%}", "run --baseline absent", "absent: no run.json here"),
        ("ttft_p50_ms: 5", "absent", "absent: no run.json here"),
        ("ttft_p50_ms: 5", "run --baseline absent", "has no `regression`"),
        ("ttft_p50_ms: 5", "run --json --markdown -", "both want standard output"),
        ("ttft_p50_ms: 5", "run --junit no/j.xml", "--junit no/j.xml: cannot be written"),
        ("ttft_p50_ms: 5", "run --markdown no/m.md", "--markdown no/m.md: cannot be written"),
        ("ttft_p50ms: 5", "run", "slo.yaml:1: ttft_p50ms is no figure of a run"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_to_do(
    gate: TypeIn, text: str, words: str, message: str
) -> None:
    """Nothing that was asked is left aside in silence."""
    finished("run", rows())
    done = gate(f"{words} {slos(text)}")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_run_that_was_cut_off_is_finished_and_one_that_goes_on_is_left_alone(
    gate: TypeIn,
) -> None:
    """A killed run has rows, but no summary."""
    write_run(Path("cut"), [rows()])
    assert told(gate, f"cut {slos('ttft_p50_ms: 100')}")[0] == 0
    going = Path("going")
    run = write_run(going, [rows()])
    run.journal.unlink()
    journal = JournalWriter(run.journal)
    done = gate(f"going {slos('ttft_p50_ms: 100')}")
    journal.close()
    assert (done.code, not run.summary.exists()) == (2, True)
    assert "the run goes on" in done.err


# -- what is written -----------------------------------------------------------------------------

SHAPE: Mapping[str, tuple[set[str], set[str], tuple[str, ...]]] = {
    "testsuites": ({"name", "tests", "failures", "errors"}, {"time"}, ("testsuite",)),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"skipped", "time", "timestamp", "hostname"},
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": (set(), set(), ("property",)),
    "property": ({"name", "value"}, set(), ()),
    "testcase": (
        {"name", "classname"},
        {"time", "assertions", "status"},
        ("skipped", "error", "failure", "system-out", "system-err"),
    ),
    "skipped": (set(), {"message", "type"}, ()),
    "error": (set(), {"message", "type"}, ()),
    "failure": (set(), {"message", "type"}, ()),
    "system-out": (set(), set(), ()),
}
"""junit-10.xsd: of each element the attributes it must and may have, and its children in order."""


def check_shape(element: ET.Element) -> None:
    """Raise where an element is not as the schema says."""
    must, may, children = SHAPE[element.tag]
    assert must <= set(element.keys()) <= must | may
    places = [children.index(child.tag) for child in element]
    assert places == sorted(places)
    for child in element:
        check_shape(child)


def test_junit_has_a_case_for_each_check_and_the_shape_of_the_schema(gate: TypeIn) -> None:
    """With what names and reasons may hold: quotes, angle brackets, and what XML cannot."""
    name = "run <&\"'\x1b[31m"
    notes = ["<script>&\x00"]
    finished(name, rows(count=12), run_info(notes=notes))
    finished("base", rows(count=12))
    limits = slos(
        "verdict: degraded\nttft_p50_ms: 500\ncold_multiplier: 3\nregression: {ttft_p99_ms: 5%}"
    )
    done = gate(f'"run <&\\"\'\x1b[31m" {limits} --baseline base --junit j.xml')
    assert done.code == 1, done.err
    root = ET.parse("j.xml").getroot()  # noqa: S314 - our own file
    check_shape(root)
    (suite,) = root
    assert suite.get("name") == "run <&\"'\N{REPLACEMENT CHARACTER}[31m"
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "verdict": ["system-out"],
        "ttft_p50_ms": ["system-out"],
        "cold_multiplier": ["failure"],
        "ttft_p99_ms": ["skipped"],
    }
    for each in (root, suite):
        counts = [each.get(key) for key in ("tests", "failures", "errors")]
        assert counts == ["4", "1", "0"]
    assert suite.get("skipped") == "1"


def cells_of(markdown: str) -> list[list[str]]:
    """The rows of its tables, as a renderer sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    found: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            found.append([])
        if before.type in {"th_open", "td_open"} and token.type == "inline":
            found[-1].append("".join(child.content for child in token.children or ()))
    return found


def test_markdown_is_appended_with_tables_that_nothing_can_break(gate: TypeIn) -> None:
    """A job's summary has the words of other steps; a run's files may hold anything."""
    hostile = "a|b <img src=x> [c](d) `e` @team\n# f"
    target = run_info().target
    finished("run", rows(count=12), run_info(notes=[hostile]))
    finished("base", rows(count=12), run_info(target=target))
    Path("summary.md").write_text("# other words\n\n")
    limits = slos("ttft_p50_ms: 500\ncold_multiplier: 3\nregression: {ttft_p99_ms: 5%}")
    assert gate(f"run {limits} --baseline base --markdown summary.md").code == 1
    text = Path("summary.md").read_text()
    assert text.startswith("# other words\n\n## ❌ kvswarm gate failed\n")
    assert [row[:4] for row in cells_of(text)] == [
        ["", "SLO", "measured", "limit"],
        ["✅ passed", "ttft_p50_ms", "100 ms", "at most 500 ms"],
        ["❌ failed", "cold_multiplier", "none", "at most 3"],
        ["", "regression", "baseline", "run"],
        ["❔ cannot tell", "ttft_p99_ms", "110 ms", "110 ms"],
    ]
    assert "<img" not in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = [child.type for token in tokens for child in token.children or ()]
    assert not {"link_open", "image"} & set(kinds)
    headings = [token for token in tokens if token.type == "heading_open"]
    assert len(headings) == 2
    assert "@team" not in text
    assert gate(f"run {slos('ttft_p50_ms: 500')} --markdown -").out.startswith("## ✅ kvswarm gate")


def test_every_member_of_the_json_has_a_line_in_the_docs(gate: TypeIn) -> None:
    """By its path, and no line of one that is gone."""
    finished("run", rows())
    finished("base", rows())
    text = slos("ttft_p50_ms: 500\nregression: {ttft_p50_ms: 5%}")
    found = json.loads(gate(f"run {text} --baseline base --json").out)
    checks = [check for check in found["checks"] if check["change"]]
    paths = {name for name in found if name not in {"run", "baseline", "checks"}}
    paths |= {f"run.{name}" for name in found["run"]} | {f"checks[].{name}" for name in checks[0]}
    paths |= {f"checks[].change.{name}" for name in checks[0]["change"]}
    assert set(found["baseline"]) == set(found["run"])
    table = DOCS.partition("`--json`:")[2]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == paths


def test_the_file_of_the_docs_is_understood_and_its_figures_are_those_there_are() -> None:
    """A reader pastes it."""
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert len(parse_slos(block, "docs").limits) == 7
    table = DOCS.partition("All other keys are figures:")[2].partition("\n\n")[2]
    named = re.findall(r"^\| `([^`]+)` \| (most|least)", table, re.MULTILINE)
    assert dict(named) == {
        "ttft_p95_ms": "most",
        **{name: way.removeprefix("at ") for name, (_, way) in SHORT.items()},
    }
