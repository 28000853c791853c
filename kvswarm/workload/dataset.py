"""Read a file of prompts: JSONL, CSV or Parquet.

In:  a path. Columns: `prompt` (or `text`, or in JSONL `messages`), and where they are there
     `input_tokens` and `output_tokens`. Others are left alone.
Out: `PromptRow`s. The first row that cannot be used is a `DatasetError` with file and line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.errors import DatasetError

COLUMNS: Final = ("prompt", "text", "messages", "input_tokens", "output_tokens")
FIX: Final = (
    "Each row needs `prompt`, `text` or (in JSONL) `messages`; input_tokens and output_tokens "
    "are whole numbers above 0, or left out."
)
CSV_FIELD_BYTES: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One prompt of a file: text or messages, never both."""

    line: int
    """Line of the file, or row of a Parquet file, from 1."""
    prompt: str | None
    messages: tuple[Mapping[str, Any], ...] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def texts(self) -> list[str]:
        """Every text that the model will read, without the chat template."""
        if self.prompt is not None:
            return [self.prompt]
        return [text for message in self.messages or () for text in _texts(message.get("content"))]


def _texts(content: Any) -> Iterator[str]:
    """Yield the text of a message's content, which may be a list of typed parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def read_prompts(path: Path) -> list[PromptRow]:
    """Read every row. Raises DatasetError for a file or row that cannot be used."""
    readers = {
        ".jsonl": _jsonl_rows,
        ".ndjson": _jsonl_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(
            f"{path}: a file of prompts ends in {', '.join(readers)}",
            fix="Give one of these formats, with its ending.",
        )
    try:
        rows = [_row(values, path, line) for line, values in reader(path)]
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror or error}",
            fix="The key `prompts` is a path, relative to the profile that it stands in.",
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: is not UTF-8 text: {error}", fix="Save it as UTF-8."
        ) from error
    if not rows:
        raise DatasetError(f"{path}: holds no prompts", fix=FIX)
    return rows


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                values = msgspec.json.decode(text)
            except msgspec.DecodeError as error:
                raise DatasetError(f"{path}:{line}: is not JSON: {error}", fix=FIX) from error
            if not isinstance(values, dict):
                raise DatasetError(f"{path}:{line}: is no JSON object", fix=FIX)
            yield line, values


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # The csv module's limit is one for the whole process, and too small for long prompts.
    limit_before = csv.field_size_limit(CSV_FIELD_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            line = 1
            try:
                has_header = bool(reader.fieldnames)  # reads it, so that the next line is a row's
                while has_header:
                    line = reader.line_num + 1
                    yield line, _csv_values(next(reader))
            except StopIteration:
                return
            except csv.Error as error:
                raise DatasetError(f"{path}:{line}: {error}", fix=FIX) from error
    finally:
        csv.field_size_limit(limit_before)


def _csv_values(row: Mapping[str, str | None]) -> dict[str, Any]:
    wanted = [key for key in COLUMNS if key in row and key != "messages"]
    return {key: _csv_value(key, row[key]) for key in wanted}


def _csv_value(key: str, text: str | None) -> Any:
    """Read a count as a number; an empty cell is a missing value."""
    if text is None or text == "":
        return None
    if key in {"input_tokens", "output_tokens"}:
        try:
            return int(text)
        except ValueError:
            return text
    return text


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - heavy; needed for this alone

    try:
        file = parquet.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        row = 0
        for batch in file.iter_batches(columns=columns):
            for values in batch.to_pylist():
                row += 1
                yield row, values
    except ArrowException as error:
        raise DatasetError(f"{path}: is not Parquet: {error}", fix=FIX) from error


def _row(values: Mapping[str, Any], path: Path, line: int) -> PromptRow:
    place = f"{path}:{line}"
    given = {key: values[key] for key in COLUMNS if values.get(key) is not None}
    sources = [key for key in ("prompt", "text", "messages") if key in given]
    if len(sources) != 1:
        found = f"both {' and '.join(sources)}" if sources else "no prompt"
        raise DatasetError(f"{place}: holds {found}", fix=FIX)
    value = given[sources[0]]
    text, messages = None, None
    if sources[0] == "messages":
        messages = _messages(value, place)
    elif isinstance(value, str) and value.strip():
        text = value
    else:
        raise DatasetError(f"{place}: {sources[0]} is {value!r}, which is no text", fix=FIX)
    return PromptRow(
        line=line,
        prompt=text,
        messages=messages,
        input_tokens=_count(given, "input_tokens", place),
        output_tokens=_count(given, "output_tokens", place),
    )


def _messages(value: Any, place: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise DatasetError(f"{place}: messages is no list of messages", fix=FIX)
    for i, message in enumerate(value):
        if not isinstance(message, dict) or "role" not in message:
            raise DatasetError(
                f"{place}: messages[{i}] has no role",
                fix='A message is such as {"role": "user", "content": "Hello"}.',
            )
    return tuple(value)


def _count(given: Mapping[str, Any], key: str, place: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column with gaps comes out of pandas as floats
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DatasetError(f"{place}: {key} is {value!r}", fix=FIX)
    return value
