"""Put what a profile names into it: JSON Schemas from files, and those of Pydantic models.

In:  the document of one file, before it is laid over others: paths are relative to that file.
Out: the same with schemas in the place of names. A name of its own is kept where none was given.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvswarm.errors import ProfileError
from kvswarm.profiles.document import Document
from kvswarm.profiles.problems import KeyPath


def inline_schemas(document: Document, folder: Path) -> None:
    """Replace `schema: FILE` and `pydantic: module:Model` by schemas. Raises ProfileError."""
    for path, entry in _constraints(document.values):
        if isinstance(entry.get("schema"), str):
            file = folder / Path(entry["schema"]).expanduser()
            entry.setdefault("name", file.stem)
            entry["schema"] = _schema_file(file, document, (*path, "schema"))
        if isinstance(entry.get("pydantic"), str):
            entry.setdefault("name", entry["pydantic"].rpartition(":")[2])
            entry["pydantic"] = _model_schema(
                entry["pydantic"], folder, document, (*path, "pydantic")
            )


def _constraints(values: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every constraint and where it stands; the short form becomes a list of one."""
    given = values.get("structured_output")
    if given is None:
        return
    short = [key for key in ("schema", "pydantic") if key in given]
    if len(short) == 1 and "constraints" not in given:
        entry = {short[0]: given.pop(short[0])}
        given["constraints"] = [entry]
        yield ("structured_output",), entry
        return
    for place, entry in enumerate(given.get("constraints", [])):
        yield ("structured_output", "constraints", place), entry


def _schema_file(file: Path, document: Document, path: KeyPath) -> dict[str, Any]:
    place = document.place(path)
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(
            f"{place}: schema {file}: cannot be read: {error.strerror}",
            fix="Give a JSON file, relative to the profile's own folder.",
        ) from error
    except ValueError as error:
        raise ProfileError(
            f"{place}: schema {file}: is no JSON: {error}", fix="Give a JSON Schema in JSON."
        ) from error
    if not isinstance(schema, dict):
        raise ProfileError(
            f"{place}: schema {file}: holds no JSON object", fix="Give a JSON Schema."
        )
    return schema


def _model_schema(name: str, folder: Path, document: Document, path: KeyPath) -> dict[str, Any]:
    place = document.place(path)
    module_name, _, model_name = name.partition(":")
    before = frozenset(sys.modules)
    sys.path.insert(0, str(folder.resolve()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in model_name.split("."):
            found = getattr(found, part)
        schema: dict[str, Any] = found.model_json_schema()
    except Exception as error:  # their module may raise anything
        raise ProfileError(
            f"{place}: pydantic {name}: {type(error).__name__}: {error}",
            fix="Give module:Model, a Pydantic (version 2) model of a module that is installed "
            "or beside the profile.",
        ) from error
    finally:
        sys.path.remove(str(folder.resolve()))
        _forget_modules(folder.resolve(), before)
    return schema


def _forget_modules(folder: Path, before: frozenset[str]) -> None:
    """Forget what was imported from a profile's folder: another may have a module so called.

    What lies in the folder but was found by another way in, such as a virtual environment's
    site-packages, stays: some packages cannot be imported twice.
    """
    ways_in = [Path(entry).resolve() for entry in sys.path]
    kept = [way for way in ways_in if way != folder and way.is_relative_to(folder)]
    for name in sys.modules.keys() - before:
        file = Path(getattr(sys.modules[name], "__file__", None) or "/")
        if file.is_relative_to(folder) and not any(file.is_relative_to(way) for way in kept):
            del sys.modules[name]
