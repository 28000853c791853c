"""report.html: one page that needs nothing else, with every plot; and what `kvswarm report` ends with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvswarm.analysis.finish import finish
from kvswarm.cli import main
from kvswarm.records import Record, pack_u32
from kvswarm.rundir import MetricsInfo, RunDir, RunInfo, TargetInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, failed, good, profile, run_info, unsent, write_run
from serverpages import fixture, run_with_pages

PLOTS = [
    "TTFT over time", "E2E over time", "TTFT: share of 2 at or below", "ITL: share of 6 at or below",
    "ITL over time", "Output tokens/s", "Errors over time",
]  # fmt: skip
"""Of MIXED, with two measured successes of three gaps each."""
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"' $title ${x} &amp;"

Damage = Callable[[RunDir], object]


@dataclass
class Page(HTMLParser):
    """What a browser would see."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: tuple[str, dict[str, str | None]] = ("", {})
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        """Leave a script or style."""
        if tag in {"script", "style"}:
            self._inside = ("", {})

    def handle_data(self, data: str) -> None:
        """Sort text by where it stands."""
        tag, attributes = self._inside
        if tag == "script" and attributes.get("type") == "application/json":
            self.figures.append(json.loads(data))
        elif tag == "script":
            self.scripts.append(data)
        elif tag == "style":
            self.styles.append(data)
        else:
            self.words.append(data)

    @property
    def shown(self) -> str:
        """The text that a person reads."""
        return " ".join("".join(self.words).split())

    @property
    def titles(self) -> list[str]:
        """Titles of the plots."""
        return [figure["layout"]["title"]["text"] for figure in self.figures]


def page_of(path: Path, records: list[Record], info: RunInfo | None = None) -> Page:
    """Make the report of a run and read it."""
    run = write_run(path, [records], info)
    finish(path)
    return Page(run.report.read_text())


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    """It is mailed, and opened years later, on a machine without a network."""
    page = page_of(tmp_path, MIXED)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert not {"src", "href", "data", "srcset", "action"} & set(attributes), (tag, attributes)
    assert not re.search(r"@import|url\(", "".join(page.styles))
    plotly, ours = page.scripts
    assert len(plotly) > 1_000_000, "the script that draws is in the page"
    assert "http" not in ours
    assert "Plotly.newPlot" in ours


def test_all_plots_are_there_and_each_has_its_place(tmp_path: Path) -> None:
    """Latencies over time and their distributions, gaps, tokens and errors."""
    page = page_of(tmp_path, MIXED)
    assert page.titles == PLOTS
    places = [attributes["id"] for _, attributes in page.tags if attributes.get("class") == "plot"]
    targets = [attributes["data-for"] for _, attributes in page.tags if "data-for" in attributes]
    assert places == targets
    assert len(set(places)) == len(PLOTS)


def test_plots_show_the_rows(tmp_path: Path) -> None:
    """Seconds since the load began against ms; failures by kind; warm-up is shown too."""
    page = page_of(tmp_path, MIXED)
    figures = dict(zip(page.titles, page.figures, strict=True))
    (ttft,) = figures["TTFT over time"]["data"]
    assert ttft["x"] == pytest.approx([0.0, 1.0, 1.6, 9.0], abs=1e-6)
    assert ttft["y"] == [5000.0, 100.0, 200.0, 5000.0]
    bars = {trace["name"]: sum(trace["y"]) for trace in figures["Errors over time"]["data"]}
    assert bars == {"cancelled": 1, "connect": 1, "http_429": 1, "http_500": 1, "stall": 2}
    (tokens,) = figures["Output tokens/s"]["data"]
    step_s = tokens["x"][1] - tokens["x"][0]
    assert sum(tokens["y"]) * step_s == pytest.approx(16, rel=1e-3)


def test_ttft_is_drawn_against_the_length_of_prompts_that_differ(tmp_path: Path) -> None:
    """What attention and prefill cost by length; measured, successful requests alone."""
    records = [good(i, at_ms=i, prompt_tokens=100 * (1 + i % 4), ttft_ms=50 + i) for i in range(8)]
    records += [
        good(8, prompt_tokens=9000, phase="warmup"),
        failed(9, "stall", prompt_tokens=9000),
        good(10, prompt_tokens=None),
    ]
    page = page_of(tmp_path, records)
    (points,) = page.figures[page.titles.index("TTFT against prompt length")]["data"]
    shown = sorted(zip(points["x"], points["y"], strict=True))
    assert shown == sorted((100 * (1 + i % 4), 50 + i) for i in range(8))


def test_servers_have_a_section_and_plots_of_their_own(tmp_path: Path) -> None:
    """Each replica a column and a line, under whatever name it was given."""
    info = run_info(
        metrics=[MetricsInfo(name=n, url=f"http://{n}/m") for n in ("a", HOSTILE, "gpu")]
    )
    pages = [
        (name, at_s, fixture("dcgm" if name == "gpu" else "ngram"))
        for at_s in (-1.0, 20.0)
        for name in ("a", HOSTILE, "gpu")
    ]
    run = run_with_pages(tmp_path, MIXED, pages, info)
    finish(tmp_path)
    page = Page(run.report.read_text())
    assert page.titles == [*PLOTS, "Requests in the servers", "KV cache in use", "GPU power"]
    figures = dict(zip(page.titles, page.figures, strict=True))
    power = figures["GPU power"]["data"]
    assert [(line["x"], line["y"]) for line in power] == [
        (pytest.approx([-1.0, 20.0], abs=1e-6), [200.0, 200.0])
    ]
    assert len(figures["Requests in the servers"]["data"]) == 4
    assert "Server" in page.shown
    assert "differenceexplained" in page.shown
    assert HOSTILE in "".join(page.words)
    assert not any(tag in {"img", "iframe"} for tag, _ in page.tags)
    assert not any("alert(1)" in script for script in page.scripts)


def test_without_a_word_of_the_server_the_page_has_no_section_of_it(tmp_path: Path) -> None:
    """No heading over nothing."""
    assert "Server" not in page_of(tmp_path, MIXED).shown


def test_distributions_are_of_what_the_figures_are_of(tmp_path: Path) -> None:
    """Five seconds of warm-up in the curve would contradict the table above it."""
    page = page_of(tmp_path, MIXED)
    figures = dict(zip(page.titles, page.figures, strict=True))
    for name, ends in (("TTFT: share of 2", (100.0, 200.0)), ("ITL: share of 6", (10.0, 20.0))):
        (curve,) = figures[f"{name} at or below"]["data"]
        assert (curve["x"][0], curve["x"][-1]) == ends


def test_warm_up_and_cool_down_are_shaded_in_plots_over_time(tmp_path: Path) -> None:
    """They are in no figure; the first measured request is wanted at 1 s, cool-down is from 9 s on."""
    page = page_of(tmp_path / "mixed", MIXED)
    for title, figure in zip(page.titles, page.figures, strict=True):
        shapes = figure["layout"].get("shapes", [])
        assert bool(shapes) == ("at or below" not in title), title
        if shapes:
            assert [shape["x0"] for shape in shapes] == pytest.approx([0.0, 9.0], abs=1e-6)
            assert [shape["x1"] for shape in shapes] == pytest.approx([1.0, 15.501], abs=1e-6)
            names = [note["text"] for note in figure["layout"]["annotations"]]
            assert names == ["warm-up", "cool-down"]
    for figure in page_of(tmp_path / "plain", [good(0), good(1)]).figures:
        assert "shapes" not in figure["layout"]
    only_warm = page_of(tmp_path / "warm", [good(0, phase="warmup")])
    assert only_warm.figures[0]["layout"]["shapes"][0]["x1"] == pytest.approx(0.131, abs=1e-6)


def test_tokens_over_time_are_those_of_the_summary_also_without_usage(tmp_path: Path) -> None:
    """A server that does not count its tokens has not sent none."""
    page = page_of(tmp_path, [good(0, completion_tokens=None), good(1, completion_tokens=10)])
    (tokens,) = page.figures[page.titles.index("Output tokens/s")]["data"]
    step_s = tokens["x"][1] - tokens["x"][0]
    assert sum(tokens["y"]) * step_s == pytest.approx(14, rel=1e-3)


def test_a_run_without_errors_has_no_plot_of_them(tmp_path: Path) -> None:
    """And one without a success has no other."""
    assert "Errors over time" not in page_of(tmp_path / "good", [good(0), good(1)]).titles
    assert page_of(tmp_path / "bad", [unsent(0), unsent(1)]).titles == ["Errors over time"]
    assert page_of(tmp_path / "empty", []).titles == []


def test_a_long_run_is_thinned_without_hiding_its_spikes(tmp_path: Path) -> None:
    """A page of a million points would not open; the one slow request must stay."""
    rows = [good(i, at_ms=i, gaps_ms=()) for i in range(12_000)]
    rows[7777] = good(7777, at_ms=7777, ttft_ms=4000.0, gaps_ms=())
    page = page_of(tmp_path, rows)
    (ttft,) = page.figures[0]["data"]
    assert len(ttft["y"]) == 3000
    assert max(ttft["y"]) == 4000.0
    assert len(page.text) < 10_000_000


def test_the_figures_stand_in_the_page(tmp_path: Path) -> None:
    """As in summary.json, to two digits."""
    case = profile(gate={"ttft_p50_ms": 120.0, "error_share": 0.9})
    shown = page_of(tmp_path, MIXED, run_info(case, notes=["look here"])).shown
    assert "Verdict: valid" in shown
    assert "7 sent, 2 ok, 4 failed, 1 cancelled" in shown
    assert "cancelled 1, connect 1, http_429 1, stall 2" in shown
    assert "ttft_p50_ms 150, limit 120: MISSED" in shown
    assert "error_share 0.6667, limit 0.9: passed" in shown
    assert "look here" in shown
    assert "kvswarm run --model m" in shown
    page = Page((tmp_path / "report.html").read_text())
    assert "150.00" in page.shown


def test_a_doubted_run_says_so_and_why_at_its_head(tmp_path: Path) -> None:
    """Before any figure."""
    shown = page_of(tmp_path, MIXED, run_info(ended="disk_full")).shown
    assert shown.index("Verdict: degraded") < shown.index("the disk was full")
    assert shown.index("the disk was full") < shown.index("Latencies")


def test_nothing_from_outside_becomes_markup(tmp_path: Path) -> None:
    """Names come from files, servers and the command line."""
    info = run_info(
        profile(name=HOSTILE),
        target=TargetInfo(base_url=f"http://h/{HOSTILE}", model=HOSTILE, endpoint="chat"),
        argv=["kvswarm", HOSTILE],
        versions={HOSTILE: HOSTILE},
        notes=[HOSTILE],
        ended=HOSTILE,
    )
    rows = [good(0), unsent(1, HOSTILE), unsent(2, "connect", error_detail=HOSTILE)]
    hostile = page_of(tmp_path / "hostile", rows, info)
    plain = page_of(tmp_path / "plain", [good(0), unsent(1, "a"), unsent(2)])
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert len(hostile.scripts) == len(plain.scripts) == 2
    assert hostile.shown.count(HOSTILE) >= 6, "and is shown as it is"
    assert HOSTILE in [trace["name"] for trace in hostile.figures[-1]["data"]]


# -- the exit code -------------------------------------------------------------------------------

LATE = good(
    0, gaps_ms=(0.0, 10.0), packed_late_index=pack_u32([0]), packed_late_us=pack_u32([60_000])
)


@pytest.mark.parametrize(
    ("rows", "case", "code"),
    [
        ([good(0)], profile(slo={"ttft_p99_ms": 101.0}), 0),
        ([good(0)], profile(slo={"ttft_p99_ms": 99.0}), 1),
        ([LATE], profile(slo={"ttft_p99_ms": 99.0}), 3),
    ],
    ids=["passed", "missed", "invalid"],
)
def test_the_exit_code_of_a_report_is_its_verdict_and_its_gates(
    tmp_path: Path, rows: list[Record], case: Any, code: int
) -> None:
    """What cannot be trusted is not held against the server: 3 goes before 1."""
    write_run(tmp_path, [rows], run_info(case))
    done = subprocess.run(
        [sys.executable, "-m", "kvswarm", "report", str(tmp_path)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("ttft_p99_ms 100, limit" in done.stdout) == bool(case.slo)
    assert "invalid" in done.stdout if code == 3 else "invalid" not in done.stdout
    assert (tmp_path / "summary.json").exists()
    assert not done.stderr


def with_run_json(**changes: Any) -> Damage:
    """Change run.json by hand."""

    def damage(run: RunDir) -> None:
        run.run_json.write_text(json.dumps({**json.loads(run.run_json.read_text()), **changes}))

    return damage


def with_table(spoil: Callable[[bytes], bytes]) -> Damage:
    """Change the bytes of requests.parquet."""

    def damage(run: RunDir) -> None:
        run.requests.write_bytes(spoil(run.requests.read_bytes()))

    return damage


def foreign_table(run: RunDir) -> None:
    """A table of somebody else."""
    pq.write_table(pa.table({"x": [1]}), run.requests)


def table_without_a_column(run: RunDir) -> None:
    """As another tool may write it back."""
    pq.write_table(pq.read_table(run.requests).drop_columns("ttft_ms"), run.requests)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: run.run_json.unlink(), "no run.json here"),
        (lambda run: run.run_json.write_text("{"), "run.json: cannot be read"),
        (with_run_json(schema_version=99), "run.json: schema_version 99"),
        (with_run_json(profile={"name": 3}), "run.json: profile: "),
        (with_run_json(target={"base_url": "u", "model": "m", "endpoint": "e"}), "$.run.endpoint"),
        (lambda run: run.requests.unlink(), "neither requests.journal nor requests.parquet"),
        (with_table(lambda _: b""), "requests.parquet: cannot be read"),
        (with_table(lambda whole: whole[:-9]), "requests.parquet: cannot be read"),
        (with_table(lambda whole: whole[:4] + bytes(2000) + whole[2004:]), "requests.parquet: cannot be read"),
        (foreign_table, "requests.parquet: schema_version None"),
        (table_without_a_column, "requests.parquet: these columns are not as kvswarm writes them: ttft_ms"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_with_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
    told: str,
) -> None:
    """Exit code 2, the file and what to do; not a traceback."""
    run = write_run(tmp_path, [MIXED])
    finish(tmp_path)
    damage(run)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(sys, "argv", ["kvswarm", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert not out
    assert told in err
    assert str(tmp_path) in err
    assert len(err.splitlines()) > 1, "what to do"
