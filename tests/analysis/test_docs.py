"""docs/metrics.md names every figure and column, with the type it has, and none that is not there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvswarm.analysis.table import SCHEMA
from kvswarm.records import ERROR_KINDS
from kvswarm.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MIXED, summary_of, summary_schema

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")


def tables() -> Iterator[tuple[str, list[str]]]:
    """Rows of the page's tables, each with the heading of its first column."""
    heading, inside = "", False
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not inside:
            heading, inside = cells[0], True
        elif not set(cells[0]) <= {"-", " "}:
            yield heading, cells


def documented(heading: str) -> dict[str, list[str]]:
    """Names in backquotes in the first column of the tables with this heading."""
    return {
        name: cells
        for found, cells in tables()
        if found == heading
        for name in re.findall(r"`([^`]+)`", cells[0])
    }


def paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every property of the summary, as a path; what all latencies hold stands by itself."""
    for name, part in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        if part.get("type") == "array" and "properties" in part.get("items", {}):
            yield from paths(part["items"], f"{path}[].")
        elif "properties" in part:
            yield from paths(part, f"{path}.")
        else:
            yield path


def summary_paths() -> set[str]:
    """Every property of summary.schema.json."""
    schema = summary_schema()
    found = {*paths(schema)}
    for name, part in schema["$defs"].items():
        found.update(paths(part, "server." if name in {"server", "server_figures"} else ""))
    return found


def test_every_figure_of_the_summary_is_defined() -> None:
    """By name, and no name that the file does not hold."""
    assert len(summary_paths()) > 50
    assert set(documented("Name")) == summary_paths()


def test_every_column_of_the_table_is_defined_with_its_type() -> None:
    """And no column that is not there."""
    columns = documented("Column")
    assert list(columns) == SCHEMA.names
    for name, (_, kind, unit, definition) in columns.items():
        wanted = str(SCHEMA.field(name).type)
        found = re.fullmatch(r"list<\w+: (\w+)>", wanted)
        assert kind == (f"list of {found[1]}" if found else wanted), name
        assert unit
        assert definition


@pytest.mark.parametrize(
    ("heading", "unit_at"), [("Name", 1), ("Column", 2)], ids=["summary", "table"]
)
def test_what_carries_its_unit_in_its_name_has_that_unit(heading: str, unit_at: int) -> None:
    """The page and the name must not differ."""
    for name, cells in documented(heading).items():
        for ending in ("ms", "us", "s"):
            if name.endswith(f"_{ending}") and not name.endswith("_per_s"):
                assert cells[unit_at] == ending, name
        if name.endswith("_ns"):
            assert cells[unit_at].startswith("ns"), name
        if name.endswith("_share"):
            assert cells[unit_at] == "share", name
        if name.endswith("_per_s"):
            assert cells[unit_at].endswith("/s"), name


def test_every_error_kind_is_defined() -> None:
    """What stands in by_error must be found."""
    assert list(documented("Kind")) == list(ERROR_KINDS)
    for kind, (_, meaning) in documented("Kind").items():
        assert meaning.rstrip(".").lower() == ERROR_KINDS[kind].rstrip(".").lower()


def test_the_pages_python_runs(tmp_path: Path) -> None:
    """A reader pastes it."""
    summary = summary_of(tmp_path, MIXED)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    code = block.replace("runs/RUN/requests.parquet", str(RunDir(tmp_path).requests))
    assert code != block
    names: dict[str, Any] = {}
    exec(compile(code, "docs/metrics.md", "exec"), names)  # noqa: S102 - our own page
    assert len(names["good"]) == summary["requests"]["ok"] == 2
    assert names["gaps_ms"].mean() == summary["itl_ms"]["mean"]
