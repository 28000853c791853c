"""The figures in other formats: every number of the summary, each as it is, and no formula run."""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, profile, run_info, write_run

sys.path.insert(0, str(Path(__file__).parents[1]))
from typed_commands import TypeIn, typing_in

from kvswarm.analysis.formats import unit_of
from kvswarm.rundir import RunDir

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> TypeIn:
    return typing_in(monkeypatch, capfd, "report")


def written(path: Path, report: TypeIn, formats: str, **changes: Any) -> dict[str, Any]:
    """Make the formats of a run; give its summary."""
    write_run(path, [MIXED], run_info(profile(**changes)))
    report(f"{path} --format {formats}")
    summary: dict[str, Any] = json.loads(RunDir(path).summary.read_text())
    return summary


def test_csv_has_every_number_of_the_summary(tmp_path: Path, report: TypeIn) -> None:
    """By its path, with its unit; a number is what the summary has, to the last digit."""
    summary = written(tmp_path / "run", report, "csv")
    with (tmp_path / "run" / "figures.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(rows["ttft_ms.p50"]["value"]) == summary["ttft_ms"]["p50"]
    assert rows["ttft_ms.p50"]["unit"] == "ms"
    assert rows["ttft_ms.count"]["unit"] == ""
    assert rows["throughput.output_tokens_per_s"]["unit"] == "tokens/s"
    assert rows["connect_ms.p50"]["value"] == str(summary["connect_ms"]["p50"])
    assert float(rows["duration_s"]["value"]) == summary["duration_s"]
    assert rows["baseline"]["value"] == ""


def test_a_text_is_no_formula_to_a_spreadsheet(tmp_path: Path, report: TypeIn) -> None:
    """A profile's name is anybody's text."""
    written(tmp_path / "run", report, "csv,xlsx", name='=HYPERLINK("http://x")')
    text = (tmp_path / "run" / "figures.csv").read_text()
    assert "run.profile,\"'=HYPERLINK" in text
    with zipfile.ZipFile(tmp_path / "run" / "figures.xlsx") as book:
        assert not any(b"<f>" in book.read(name) for name in book.namelist() if "sheet" in name)


def test_the_workbook_has_latencies_figures_and_requests(tmp_path: Path, report: TypeIn) -> None:
    """A row for each request, failed ones too."""
    summary = written(tmp_path / "run", report, "xlsx")
    with zipfile.ZipFile(tmp_path / "run" / "figures.xlsx") as book:
        sheets = [rows_of(book, number) for number in (1, 2, 3)]
    latencies = {row[0]: row[1:] for row in sheets[0]}
    place = latencies["ms"].index("p90")
    assert float(latencies["TTFT"][place]) == summary["ttft_ms"]["p90"]
    assert any(row[0] == "ttft_ms.p90" for row in sheets[1])
    assert len(sheets[2]) == 1 + len(MIXED)
    assert sheets[2][0][0] == "index"


def rows_of(book: zipfile.ZipFile, number: int) -> list[list[str]]:
    """The texts of a worksheet; empty cells at a row's end are left out."""
    shared = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))  # noqa: S314 - our own file
    texts = ["".join(item.itertext()) for item in shared.iter(f"{SHEET}si")]
    sheet = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))  # noqa: S314
    rows = []
    for row in sheet.iter(f"{SHEET}row"):
        cells = []
        for cell in row.iter(f"{SHEET}c"):
            value = cell.findtext(f"{SHEET}v") or ""
            cells.append(texts[int(value)] if cell.get("t") == "s" else value)
        rows.append(cells)
    return rows


def test_markdown_has_the_verdict_and_the_latencies(tmp_path: Path, report: TypeIn) -> None:
    """And what stands in names is no markup."""
    summary = written(tmp_path / "run", report, "md", name="a*b|<c>")
    text = (tmp_path / "run" / "report.md").read_text()
    assert text.startswith("# a\\*b\\|&lt;c> on m\n")
    assert f"**Verdict: {summary['verdict']['status']}**" in text
    (line,) = re.findall(r"^\| TTFT \| (.*) \|$", text, flags=re.MULTILINE)
    assert line.split(" | ")[1] == f"{summary['ttft_ms']['p50']:.2f}"


@pytest.mark.parametrize("formats", ["pdf", "md,pdf", ","])
def test_an_unknown_format_is_refused(tmp_path: Path, report: TypeIn, formats: str) -> None:
    write_run(tmp_path / "run", [MIXED], run_info())
    done = report(f"{tmp_path / 'run'} --format {formats}")
    assert done.code == 2
    assert "md, csv, xlsx" in done.err


def test_without_a_browser_pictures_are_refused(
    tmp_path: Path, report: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do."""
    monkeypatch.setenv("KVSWARM_CHROMIUM", str(tmp_path / "nobody"))
    write_run(tmp_path / "run", [MIXED], run_info())
    done = report(f"{tmp_path / 'run'} --png")
    assert done.code == 2
    assert "KVSWARM_CHROMIUM" in done.err


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("itl_ms.p99", "ms"),
        ("itl_ms.count", ""),
        ("goodput.share", "share"),
        ("server.running.mean", ""),
        ("variants[2].ttft_ms.mean", "ms"),
        ("cost.per_request_usd", "USD"),
    ],
)
def test_the_unit_is_the_names(path: str, unit: str) -> None:
    assert unit_of(path) == unit
