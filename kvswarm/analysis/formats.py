"""The figures of a run for other programs and other pages: Markdown, CSV, a workbook.

In:  a finished run directory and its summary.
Out: `report.md`, `figures.csv` or `figures.xlsx` in the run directory.

CSV has a line for every number and text of summary.json, by its path, with its unit; the workbook
has the same, the latencies as a table, and a row for each request.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from kvswarm.analysis.counting import STATISTICS
from kvswarm.analysis.rows import open_table
from kvswarm.analysis.terminal import SHOWN, told_lines
from kvswarm.errors import UsageError
from kvswarm.rundir import RunDir, write_atomically

UNITS: Final = {
    "_tokens_per_s": "tokens/s", "_requests_per_s": "requests/s", "_per_s": "1/s",
    "_rps": "requests/s", "_ms": "ms", "_us": "us", "_ns": "ns", "_s": "s", "_share": "share",
    "_usd": "USD", "_bytes": "bytes", "_tokens": "tokens", "_watts": "W", "_j": "J", "_wh": "Wh",
}  # fmt: skip
"""Endings of names, and the unit that each is; the first that fits counts."""
SHEET_ROWS: Final = 1_048_575
"""Rows that a worksheet holds below its heading."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would run."""


def write_formats(run: RunDir, summary: Mapping[str, Any], wanted: str) -> list[Path]:
    """Write each of `md,csv,xlsx` that is wanted; give the files. Raises UsageError."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in names if name not in WRITERS]
    if unknown or not names:
        raise UsageError(
            f"--format {wanted}: {', '.join(unknown) or 'nothing'} is no format of a report",
            fix=f"Give one or more of {', '.join(WRITERS)}, with commas.",
        )
    return [WRITERS[name](run, summary) for name in names]


def figure_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Path, value and unit of everything that the summary says."""
    for path, value in _leaves(summary, ""):
        yield path, value, unit_of(path)


def unit_of(path: str) -> str:
    """The unit that a name carries: that of the innermost name that has one; else none."""
    for name in reversed(path.replace("[", ".").split(".")):
        for ending, unit in UNITS.items():
            if f"_{name}".endswith(ending):
                return "" if path.endswith(".count") else unit
    return ""


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def _csv(run: RunDir, summary: Mapping[str, Any]) -> Path:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("figure", "value", "unit"))
    for path, value, unit in figure_rows(summary):
        writer.writerow((path, "" if value is None else _harmless(value), unit))
    return _written(run.path / "figures.csv", out.getvalue())


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _markdown(run: RunDir, summary: Mapping[str, Any]) -> Path:
    head, verdict = summary["run"], summary["verdict"]
    lines = [f"# {_escaped(head['profile'])} on {_escaped(head['model'])}", ""]
    lines.append(f"**Verdict: {verdict['status']}**")
    lines += ["", *(f"- {_escaped(reason)}" for reason in verdict["reasons"]), ""]
    columns = ("mean", "p50", "p90", "p95", "p99", "max", "count")
    lines.append(f"| ms | {' | '.join(columns)} |")
    lines.append(f"|---|{'---:|' * len(columns)}")
    for label, key in SHOWN:
        cells = [_cell(summary[key][name], name) for name in columns]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", *(f"- **{name}**: {_escaped(text)}" for name, text in told_lines(summary)), ""]
    lines.append(f"Run `{head['id']}`, seed {head['seed']}, started {head['started']}.")
    return _written(run.path / "report.md", "\n".join(lines) + "\n")


def _cell(value: float | None, statistic: str) -> str:
    if value is None:
        return "-"
    return str(value) if statistic == "count" else f"{value:.2f}"


def _escaped(text: Any) -> str:
    """Text without what Markdown or HTML would take for its own."""
    plain = str(text).replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    for sign in "\\`*_[]|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _workbook(run: RunDir, summary: Mapping[str, Any]) -> Path:
    import xlsxwriter  # noqa: PLC0415 - rarely needed

    out = io.BytesIO()
    settings = {"strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with xlsxwriter.Workbook(out, {**settings, "in_memory": True}) as book:
        bold = book.add_format({"bold": True})
        sheet = book.add_worksheet("latencies")
        sheet.write_row(0, 0, ("ms", *STATISTICS), bold)
        for row, (label, key) in enumerate(SHOWN, start=1):
            sheet.write_row(row, 0, (label, *(summary[key][name] for name in STATISTICS)))
        sheet = book.add_worksheet("figures")
        sheet.write_row(0, 0, ("figure", "value", "unit"), bold)
        for row, values in enumerate(figure_rows(summary), start=1):
            sheet.write_row(row, 0, values)
        _requests(book.add_worksheet("requests"), run, bold)
    path = run.path / "figures.xlsx"
    write_atomically(path, out.getvalue())
    return path


def _requests(sheet: Any, run: RunDir, bold: Any) -> None:
    """A row for each request, as many as a sheet has; without the lists of its events."""
    with open_table(run) as file:
        columns = [field.name for field in file.schema_arrow if not _is_list(field)]
        sheet.write_row(0, 0, columns, bold)
        sheet.freeze_panes(1, 1)
        row = 0
        for batch in file.iter_batches(columns=columns):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if row == SHEET_ROWS:
                    return
                row += 1
                sheet.write_row(row, 0, values)


def _is_list(field: Any) -> bool:
    return bool(pa.types.is_list(field.type))


def _written(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path


WRITERS: Final[dict[str, Callable[[RunDir, Mapping[str, Any]], Path]]] = {
    "md": _markdown,
    "csv": _csv,
    "xlsx": _workbook,
}
