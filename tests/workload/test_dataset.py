"""Files of prompts: the three formats say the same, and mistakes are told with their line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kvswarm.errors import DatasetError
from kvswarm.workload.dataset import PromptRow, read_prompts

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1, max_size=30
).filter(str.strip)
COUNTS = st.none() | st.integers(1, 100_000)


@settings(deadline=None)  # the first example imports pyarrow
@given(rows=st.lists(st.tuples(TEXT, COUNTS, COUNTS), min_size=1, max_size=6))
def test_the_three_formats_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int | None, int | None]]
) -> None:
    """Quotes, line ends and gaps in a column must not change a prompt."""
    folder = tmp_path_factory.mktemp("rows")
    names = ("prompt", "input_tokens", "output_tokens")
    dicts = [dict(zip(names, row, strict=True)) for row in rows]
    with (folder / "p.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in dicts)
    with (folder / "p.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(dicts)
    table = {name: pa.array([row[name] for row in dicts]) for name in names}
    parquet.write_table(pa.table(table), folder / "p.parquet")
    for ending in ("jsonl", "csv", "parquet"):
        made = read_prompts(folder / f"p.{ending}")
        assert [(r.prompt, r.input_tokens, r.output_tokens) for r in made] == rows


def test_text_is_another_name_of_prompt_and_other_columns_are_left_alone(tmp_path: Path) -> None:
    """Data sets come with columns of their own."""
    path = tmp_path / "p.csv"
    path.write_text("id,text,input_tokens\n7,hello,\n8,world,2\n")
    rows = read_prompts(path)
    assert [(row.prompt, row.input_tokens, row.line) for row in rows] == [
        ("hello", None, 2),
        ("world", 2, 3),
    ]


def test_a_long_prompt_in_csv_is_read_and_the_process_keeps_its_limit(tmp_path: Path) -> None:
    """The csv module refuses fields above 131,072 characters unless told otherwise."""
    csv.field_size_limit(131_072)
    path = tmp_path / "p.csv"
    path.write_text("prompt\n" + "x" * 300_000 + "\n")
    assert len(read_prompts(path)[0].prompt or "") == 300_000
    assert csv.field_size_limit() == 131_072


def test_the_text_of_messages_is_what_the_model_reads() -> None:
    """Content may be text or a list of parts, of which some are images."""
    row = PromptRow(
        line=1,
        prompt=None,
        messages=(
            {"role": "system", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url"}]},
            {"role": "assistant", "content": None},
        ),
    )
    assert row.texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt"\n', "p.jsonl:2: is not JSON"),
        ("p.jsonl", '{"prompt": "a"}\n\n["b"]\n', "p.jsonl:3: is no JSON object"),
        ("p.jsonl", '{"question": "a"}', "p.jsonl:1: holds no prompt"),
        ("p.jsonl", '{"prompt": "a", "text": "b"}', "p.jsonl:1: holds both prompt and text"),
        ("p.jsonl", '{"prompt": 3}', "p.jsonl:1: prompt is 3"),
        ("p.jsonl", '{"prompt": "  "}', "p.jsonl:1: prompt is '  '"),
        ("p.jsonl", '{"prompt": "a", "input_tokens": 0}', "p.jsonl:1: input_tokens is 0"),
        ("p.jsonl", '{"prompt": "a", "output_tokens": true}', "output_tokens is True"),
        ("p.jsonl", '{"messages": []}', "messages is no list"),
        ("p.jsonl", '{"messages": [{"content": "a"}]}', "messages[0] has no role"),
        ("p.jsonl", "", "holds no prompts"),
        ("p.csv", "prompt\n", "holds no prompts"),
        ("p.csv", "a,b\n1,2\n", "p.csv:2: holds no prompt"),
        ("p.csv", 'prompt,output_tokens\n"a\nb",5\nc,many\n', "p.csv:4: output_tokens is 'many'"),
        ("p.csv", 'prompt\n"a', "p.csv:2: unexpected end of data"),
        ("p.parquet", "no parquet", "is not Parquet"),
        ("p.xlsx", "a", "ends in .jsonl"),
    ],
)
def test_each_mistake_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    """In a file of ten thousand rows the line is what one needs."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_prompts(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.fix


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path: Path) -> None:
    """Neither may end in a traceback."""
    with pytest.raises(DatasetError, match="No such file"):
        read_prompts(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="No such file"):
        read_prompts(tmp_path / "none.parquet")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_prompts(tmp_path / "bytes.jsonl")


@settings(deadline=None)  # it writes files
@given(value=st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4))
def test_no_value_of_a_row_ends_in_anything_but_a_row_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    """Files come from anywhere."""
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    for key in ("prompt", "messages", "input_tokens"):
        path.write_text(json.dumps({"prompt": "a", key: value}))
        try:
            assert len(read_prompts(path)) == 1
        except DatasetError as error:
            assert ":1: " in error.message  # noqa: PT017 - both ways out are right
