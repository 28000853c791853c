"""docs/serving.md says what the tables say: keys by version, quantization, drafts, and its examples run.

`python tests/serving/test_docs.py` writes the tables into the page.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvswarm.serving.claims import _CHECKS
from kvswarm.serving.drafts import families
from kvswarm.serving.flags import known_keys
from kvswarm.serving.quantization import methods, names
from kvswarm.serving.speculation import METHODS, OLDER_KEYS
from kvswarm.serving.tables import table
from kvswarm.serving.versions import Span, span_of

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"

WRITTEN: dict[str, Callable[[str, dict[str, Any]], str]] = {
    "flag": lambda flag, _: f"`{flag} VALUE`",
    "switch": lambda flag, form: f"`{flag}{' ' + form['value'] if 'value' in form else ''}`",
    "pair": lambda flag, _: f"`{flag}`, `--no-{flag.removeprefix('--')}`",
    "assigned": lambda flag, _: f"`{flag}=True`, `=False`",
    "json": lambda flag, _: f"`{flag} JSON`",
    "pairs": lambda flag, _: f"`{flag} NAME=N,...`",
    "modules": lambda flag, _: f"`{flag} NAME=PATH ...`",
    "environment": lambda flag, _: f"variable `{flag}`",
}


def form_text(key: str, form: dict[str, Any]) -> str:
    """One form, with its versions."""
    flag = form.get("as", f"--{key.replace('_', '-')}")
    return f"{span_of(form)}: {WRITTEN[form.get('write', 'flag')](flag, form)}"


def value_text(entry: dict[str, Any]) -> str:
    """Valid values."""
    if "choices" in entry:
        values = []
        for choice in entry["choices"]:
            whole = choice if isinstance(choice, dict) else {"value": choice}
            span = span_of(whole)
            plugin = ", then a plugin" if whole.get("plugin") else ""
            bounds = "" if span == Span() else f" ({span}{plugin})"
            name = "any other" if whole["value"] == "any" else f"`{whole['value']}`"
            values.append(f"{name}{bounds}")
        return ", ".join(values)
    bounds = [
        words.format(entry[bound])
        for bound, words in (
            ("minimum", "{} or more"),
            ("above", "above {}"),
            ("maximum", "at most {}"),
        )
        if bound in entry
    ]
    kinds = {"boolean": "true, false", "integer": "whole number", "map": "map"}
    members = ", ".join(f"`{member}`" for member in entry.get("members", ()))
    kind = kinds.get(entry["kind"], entry["kind"])
    return ", ".join([f"{kind} of {members}" if members else kind, *bounds])


def key_rows() -> list[str]:
    """A row per key."""
    return [
        f"| `{key}` | {value_text(entry)} "
        f"| {'; '.join(form_text(key, form) for form in entry.get('forms', [{}]))} "
        f"| {entry.get('gone', '')} |"
        for key, entry in known_keys().items()
    ]


def method_rows() -> list[str]:
    """A row per method of speculation."""
    entries = table("vllm_keys")["speculation"]["methods"]
    assert list(entries) == list(METHODS)
    return [
        f"| `{name}` | {', and '.join(str(span_of(span)) for span in entry['spans'])} |"
        for name, entry in entries.items()
    ]


def member_rows() -> list[str]:
    """A row per member of a speculation beyond the usual ones."""
    older = {member: key for key, member in OLDER_KEYS.items()}
    rows = []
    for name, entry in table("vllm_keys")["speculation"]["members"].items():
        since = entry.get("flag_since", entry.get("since"))
        span = span_of({"since": since, "until": entry.get("until")})
        was = f"`{older[name]}`" if name in older else ""
        rows.append(f"| `{name}` | {value_text(entry)} | {span} | {was} |")
    return rows


def quantization_rows() -> list[str]:
    """A row per method."""

    def gpu(capability: tuple[int, int] | None) -> str:
        return "never" if capability is None else f"{capability[0]}.{capability[1]}"

    also = {
        name: [spelling for spelling in names() if names()[spelling] == name] for name in methods()
    }
    return [
        f"| {', '.join(f'`{spelling}`' for spelling in also[name])} "
        f"| {f'`{method.flag}`' if method.flag else 'none: the checkpoint tells'} "
        f"| {method.bits_per_weight:.3f} | {method.layout} "
        f"| {gpu(method.weight_only_from)} | {gpu(method.native_from)} |"
        for name, method in methods().items()
    ]


def draft_rows() -> list[str]:
    """A row per family."""
    rows = []
    for entry in families():
        if entry["method"] == "draft_model":
            sizes = entry["target_vocab_size"], entry["draft_vocab_size"]
            equal = sizes[0] == sizes[1]
            chosen = f"`{entry['draft']}`" if equal else f"none: `{entry['draft']}` differs"
            rows.append(f"| {entry['family']} | {chosen} | {sizes[0]} | {sizes[1]} |")
        elif entry["method"] == "mtp":
            tokens = entry["num_speculative_tokens"]
            chosen = f"its own layers (`mtp`), {tokens} token{'s' if tokens > 1 else ''}"
            rows.append(f"| {entry['family']} | {chosen} | {entry['target_vocab_size']} | |")
        else:
            rows.append(f"| {entry['family']} | none: {entry['reason']} | | |")
    return rows


TABLES: dict[str, Callable[[], list[str]]] = {
    "Key": key_rows,
    "Method of speculation": method_rows,
    "Member": member_rows,
    "Quantization": quantization_rows,
    "Model": draft_rows,
}


def parts(page: str, heading: str) -> tuple[str, list[str], str]:
    """Split a page at the rows of the table whose first column has this heading."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-| ]+\|\n", page, flags=re.MULTILINE)
    assert found, heading
    rest = page[found.end() :]
    rows = re.match(r"(?:\|.*\n)*", rest)
    assert rows
    return page[: found.end()], rows[0].splitlines(), rest[rows.end() :]


@pytest.mark.parametrize("heading", TABLES)
def test_the_tables_are_the_data(heading: str) -> None:
    """A key without a line, or with an old one, is found."""
    _, rows, _ = parts(PAGE.read_text("utf-8"), heading)
    assert rows == TABLES[heading]()


def test_every_claim_that_is_checked_is_described() -> None:
    """By its key, and no other."""
    _, rows, _ = parts(PAGE.read_text("utf-8"), "Claim")
    described = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert described == {*_CHECKS, "speculative"}


def test_the_pages_python_runs() -> None:
    """And gives what the page says it gives."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        shown = re.findall(r"^print\(.*\)\n# (.*)$", block, flags=re.MULTILINE)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block, "docs/serving.md", "exec"), {})  # noqa: S102 - our own page
        assert printed.getvalue().splitlines() == shown


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    for name, make in TABLES.items():
        before, _, after = parts(text, name)
        text = before + "".join(f"{row}\n" for row in make()) + after
    PAGE.write_text(text, "utf-8")
