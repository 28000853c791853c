"""Read one YAML file into plain values, and remember the place of every key.

In:  the text of a profile.
Out: a `Document`: values, and where each was written. Duplicate keys, keys that are no text
     and endless aliases are problems; nothing but plain data is made.
Not: what keys mean: see `schema.py` and `resolve.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from kvswarm.errors import ProfileError
from kvswarm.profiles.problems import KeyPath, Place, Problem, profile_error, seen

MAX_VALUES: Final = 20_000
"""Aliases can make a short file expand without end; no honest profile comes near this."""
MAX_DEPTH: Final = 30


@dataclass(frozen=True, slots=True)
class Document:
    """Values of one layer of a profile, and the place of each."""

    source: str
    values: dict[str, Any]
    places: Mapping[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Tell where the value at `path`, or the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            found = self.places.get(path[:length])
            if found is not None:
                return found
        return Place(self.source)


class _Loader(yaml.SafeLoader):
    """Safe YAML whose dates stay text, because run.json has none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class _Reading:
    """State of one walk over the nodes of a file."""

    loader: _Loader
    source: str
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    values_made: int = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """Make plain data of a node, noting where each part of it stands."""
        line = node.start_mark.line + 1
        self.values_made += 1
        if self.values_made > MAX_VALUES or len(path) > MAX_DEPTH:
            raise ProfileError(
                f"{self.source}:{line}: too large or nested too deep for a profile",
                fix="Write the values out; aliases (*name) must not hold one another.",
            )
        self.places.setdefault(path, Place(self.source, line, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        return self.scalar(node, path)

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        """Make a number, text, truth value or null."""
        try:
            made = self.loader.construct_object(node)
        except (ValueError, yaml.YAMLError) as error:
            self.problem(node, path, f"cannot be read: {error}", "Put text in quotes.")
            return None
        if not isinstance(made, str | int | float | None):
            self.problem(node, path, f"is {seen(made)}", "Give text, a number, true or false.")
            return None
        return made

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """Make a mapping whose keys are text and differ; `<<` merges as YAML says."""
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            name = key_node.value
            if not isinstance(name, str):
                continue
            if name in first_lines and name != "<<":
                self.problem(
                    key_node,
                    (*path, name),
                    f"is given twice, first in line {first_lines[name]}",
                    "Keep one of the two.",
                )
            first_lines.setdefault(name, line)
        self.loader.flatten_mapping(node)
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or not key_node.tag.endswith(":str"):
                self.problem(
                    key_node, path, f"has the key {seen(key)}, not text", "Put the key in quotes."
                )
                continue
            mark = key_node.start_mark
            self.places[*path, key] = Place(self.source, mark.line + 1, mark.column + 1)
            made[key] = self.value(value_node, (*path, key))
        return made

    def problem(self, node: yaml.Node, path: KeyPath, what: str, fix: str) -> None:
        """Note a finding at a node."""
        mark = node.start_mark
        place = Place(self.source, mark.line + 1, mark.column + 1)
        self.problems.append(Problem(place, path, what, fix))


def read_document(path: Path, source: str) -> tuple[Document, list[Problem]]:
    """Read a profile's file; `source` is how messages call it.

    Raises ProfileError where there is no file, no YAML, or no mapping in it. Other findings are
    returned, so that they can be reported together with those of the schema.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProfileError(
            f"{source}: cannot be read: {error.strerror}",
            fix="Give the path of a YAML file, or a name that `kvswarm profiles` lists.",
        ) from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{source}: is not UTF-8 text", fix="Save it as UTF-8.") from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ProfileError(
                f"{source}: holds no mapping of keys to values",
                fix="Write keys such as `pattern: steady`, one to a line.",
            )
        reading = _Reading(loader, source)
        values = reading.mapping(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source) if mark is None else Place(source, mark.line + 1, mark.column + 1)
        what = f"not YAML: {error.problem or error.context}"
        fix = "Check the indentation, colons and quotes around that line."
        raise profile_error(source, [Problem(place, (), what, fix)]) from error
    except yaml.YAMLError as error:
        raise ProfileError(f"{source}: not YAML: {error}", fix="Save it as plain text.") from error
    return Document(source, values, reading.places), reading.problems


def read_value(text: str, path: KeyPath, source: str) -> tuple[Any, list[Problem]]:
    """Read the YAML of one value, as a file has it after a key; an empty text is a problem.

    `path` is the way to the value, `source` how messages call the place that it was given at.
    """
    place = Place(source)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, [Problem(place, path, "has no value", "Give one; null takes it away.")]
        reading = _Reading(loader, source)
        value = reading.value(node, path)
    except yaml.YAMLError as error:
        what = f"is not YAML: {getattr(error, 'problem', None) or error}"
        return None, [Problem(place, path, what, "Check the brackets, colons and quotes.")]
    return value, [replace(problem, place=place) for problem in reading.problems]
