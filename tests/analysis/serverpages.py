"""Pages of metrics for tests: real ones with other values, and runs that recorded them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kvswarm.records import Record
from kvswarm.rundir import RunDir, RunInfo
from kvswarm.telemetry.pages import Page, append_page

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, S, run_info, write_run

FIXTURES: Final = Path(__file__).parents[1] / "fixtures"
OWN: Final = "127.0.0.1:8000"
"""Name of the page of the target of `run_info`."""


def fixture(name: str) -> str:
    """A page of tests/fixtures."""
    return (FIXTURES / f"metrics_{name}.prom").read_text()


def with_values(page: str, values: Mapping[str, float]) -> str:
    """The page with other values of samples, which must be there, named with their labels."""
    lines = page.splitlines()
    for sample, value in values.items():
        (place,) = [n for n, line in enumerate(lines) if line.rpartition(" ")[0] == sample]
        lines[place] = f"{sample} {value}"
    return "\n".join(lines) + "\n"


def without(page: str, beginning: str) -> str:
    """The page less the samples that begin so."""
    lines = [line for line in page.splitlines() if not line.startswith(beginning)]
    return "\n".join(lines) + "\n"


def run_with_pages(
    path: Path,
    rows: Sequence[Record],
    pages: Sequence[tuple[str, float, str]],
    info: RunInfo | None = None,
) -> RunDir:
    """A run of these rows and pages: source, seconds since the load began, text."""
    run = write_run(path, [rows], info or run_info())
    with run.server_pages.open("wb") as file:
        for source, at_s, text in pages:
            read_ns = START_NS + round(at_s * S)
            page = Page(
                source=source, asked_ns=read_ns - 3_000_000, time_ns=read_ns, text=text.encode()
            )
            append_page(file, page)
    return run
