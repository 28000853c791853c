"""docs/exchange.md names every column of a data set, and the notebook runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from kvswarm.analysis import load
from kvswarm.analysis.dataset import LATENCIES, STATISTICS
from kvswarm.analysis.finish import finish
from kvswarm.commands.exchange import EXPORTS, IMPORTS, ImportRequest, export, import_file

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, write_run

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "exchange.md").read_text("utf-8")
NOTEBOOK = DOCS / "notebooks" / "runs.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` with a run of kvswarm's own and an imported one."""
    path = tmp_path_factory.mktemp("analysis")
    write_run(path / "runs" / "own", [MIXED])
    finish(path / "runs" / "own")
    export(path / "runs" / "own", "vllm-bench", out=path / "file.json", detail=True)
    import_file(ImportRequest(path=path / "file.json", out=path / "runs" / "theirs"))
    return path


def columns_of(title: str) -> set[str]:
    """Names in the first column of the table under a heading."""
    section = re.split(r"^#+ ", PAGE.partition(f"### {title}")[2], flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


def test_every_column_of_runs_has_a_line(folder: Path) -> None:
    latencies = {f"{name}_{each}_ms" for name in LATENCIES for each in STATISTICS}
    told = columns_of("runs: one row per run")
    assert told - {"ttft_p50_ms"} == set(load(folder / "runs").runs) - latencies


def test_every_column_of_gaps_has_a_line(folder: Path) -> None:
    told = columns_of("gaps: one row per gap between token-bearing events")
    assert told == set(load(folder / "runs").gaps("own"))


@pytest.mark.parametrize(("title", "formats"), [("Export", EXPORTS), ("Import", IMPORTS)])
def test_every_format_has_a_line(title: str, formats: dict[str, object]) -> None:
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    table = section.partition("| Format |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(formats)


def test_the_notebook_has_no_outputs_and_its_cells_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, in a folder that holds `runs`."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"display": print}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)  # noqa: S102 - our own page
    gaps = names["gaps"]
    assert isinstance(gaps, pd.DataFrame)
    assert len(gaps)
