"""Read a file of SLOs: what `kvswarm gate` holds a run against.

In:  YAML, or the JSON of older tools.
Out: `SloFile`: limits on figures, margins against a baseline, and what verdict is wanted.
Raises UsageError that names the file, the line, the key, and what to write.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import yaml

from kvswarm.analysis.named_figures import NamedFigure, what_is_meant
from kvswarm.analysis.samples import FIGURES, Figure
from kvswarm.analysis.slo_names import Meant, meant_by
from kvswarm.errors import UsageError
from kvswarm.profiles.problems import nearest, seen

MOST_BYTES: Final = 1_000_000
BROKEN_TAGS: Final = (ValueError, LookupError, AttributeError)
"""What PyYAML raises for a tag that its text does not fit, such as `!!int ""` and `!!bool x`."""
VERDICTS: Final = ("valid", "degraded")
UNKNOWNS: Final = ("pass", "fail")
WORDS: Final = ("verdict", "regression", "on_unknown")
COMPARED: Final[dict[str, Figure]] = {figure.name: figure for figure in FIGURES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a figure of the run must keep within; in its own unit."""

    figure: NamedFigure
    at_least: float | None
    at_most: float | None
    written: str
    """The key in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """By how much a figure may be worse than the baseline's.

    A share of the baseline's figure, or for figures that are shares themselves points of it.
    """

    figure: Figure
    margin: float
    points: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SloFile:
    """A file of SLOs."""

    source: str
    limits: tuple[Limit, ...]
    margins: tuple[Margin, ...]
    verdict: Literal["valid", "degraded"] | None
    """The worst verdict that passes; None: nothing is asked but that it is not invalid."""
    unknown_fails: bool


def read_slo_file(path: Path) -> SloFile:
    """Read one. Raises UsageError where it cannot be read or understood, or asks nothing."""
    source = str(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"--slo {source}: cannot be read: {error.strerror}",
            fix="Give a YAML file of limits, such as `ttft_p95_ms: 300`.",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--slo {source}: is not UTF-8 text", fix="Save it as UTF-8.") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"--slo {source}: is too large to be a file of limits", fix="Check it.")
    return parse_slos(text, source)


def parse_slos(text: str, source: str) -> SloFile:
    """Understand the text of a file. Raises UsageError."""
    reading = _Reading(source, *_plain(text, source))
    limits: dict[str, Limit] = {}
    for key in reading.values:
        if key not in WORDS:
            limit = reading.limit(key)
            if limit.figure.stands in {each.figure.stands for each in limits.values()}:
                reading.refuse(
                    key,
                    "limits a figure that another key limits too",
                    "Keep one; `{min: .., max: ..}` holds both ways.",
                )
            limits[key] = limit
    slos = SloFile(
        source=source,
        limits=tuple(limits.values()),
        margins=reading.margins(),
        verdict=reading.word("verdict", VERDICTS),
        unknown_fails=reading.word("on_unknown", UNKNOWNS) == "fail",
    )
    if not slos.limits and not slos.margins and slos.verdict is None:
        raise UsageError(
            f"{source}: asks nothing of a run",
            fix="Give limits, such as `ttft_p95_ms: 300`; docs/gate.md lists the names.",
        )
    return slos


def _plain(text: str, source: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's values, and the line of each key. JSON may be indented by tabs: YAML may not."""
    try:
        loaded: Any = json.loads(text)
    except (ValueError, RecursionError):
        loaded = None
    try:
        if loaded is None:
            loaded = yaml.safe_load(text)
        root = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, *BROKEN_TAGS, RecursionError) as error:
        raise UsageError(
            f"{source}: not YAML: {' '.join(str(error).split())[:200]}",
            fix="Write a key and its limit to a line, such as `ttft_p95_ms: 300`.",
        ) from error
    if not isinstance(loaded, dict) or not isinstance(root, yaml.MappingNode):
        raise UsageError(
            f"{source}: holds no mapping of figures to limits",
            fix="Write a key and its limit to a line, such as `ttft_p95_ms: 300`.",
        )
    lines = _lines(root, source, "")
    for key, node in root.value:
        if isinstance(node, yaml.MappingNode):
            lines |= _lines(node, source, f"{key.value}.")
    return {str(key): value for key, value in loaded.items()}, lines


def _lines(mapping: yaml.MappingNode, source: str, before: str) -> dict[str, int]:
    """The line of each key. Refuses one that is given twice: the first would be lost in silence."""
    lines: dict[str, int] = {}
    for node, _ in mapping.value:
        key, line = f"{before}{node.value}", node.start_mark.line + 1
        if key in lines:
            raise UsageError(
                f"{source}:{line}: {key} is given twice, first in line {lines[key]}",
                fix="Keep one of the two.",
            )
        lines[key] = line
    return lines


@dataclass(frozen=True, slots=True)
class _Reading:
    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def refuse(self, key: str, what: str, fix: str) -> NoReturn:
        line = self.lines.get(key)
        where = self.source if line is None else f"{self.source}:{line}"
        raise UsageError(f"{where}: {key} {what}", fix=fix)

    def limit(self, key: str) -> Limit:
        """One key that is a figure."""
        meant, given = meant_by(key), self.values[key]
        if meant is None:
            hint = what_is_meant(key) or nearest(key, WORDS).strip()
            every = "docs/gate.md lists the names; every number of summary.json goes by its path."
            self.refuse(key, "is no figure of a run", f"{hint} {every}".strip())
        if isinstance(given, Mapping):
            return self._both_ways(key, meant, given)
        direction = meant.direction or meant.figure.direction
        if direction is None:
            self.refuse(
                key, "may be good high or low", f"Say which: `{key}: {{max: {given}}}` or min."
            )
        bound = self._bound(key, meant, given)
        return Limit(
            figure=meant.figure,
            at_least=bound if direction == "at least" else None,
            at_most=bound if direction == "at most" else None,
            written=key,
        )

    def _both_ways(self, key: str, meant: Meant, given: Mapping[str, Any]) -> Limit:
        unknown = [str(name) for name in given if name not in {"min", "max"}]
        if unknown or not given:
            self.refuse(
                key,
                f"has {unknown[0]}, which is no limit" if unknown else "names no limit",
                f"Write `{key}: {{max: 300}}`, `{{min: 1}}` or both.",
            )
        least, most = (
            self._bound(f"{key}.{name}", meant, given[name]) if name in given else None
            for name in ("min", "max")
        )
        if least is not None and most is not None and least > most:
            self.refuse(key, f"has a min of {least:g} above its max of {most:g}", "Swap the two.")
        return Limit(figure=meant.figure, at_least=least, at_most=most, written=key)

    def _bound(self, key: str, meant: Meant, given: object) -> float:
        number, percent = _number(given)
        if number is None:
            self.refuse(key, f"is {seen(given)}, not a number", "Give a number, without its unit.")
        if percent and not meant.figure.is_share:
            self.refuse(key, f"is {seen(given)}", "Only shares are limited in percent.")
        bound = number * (1.0 if percent else meant.scale)
        if meant.figure.is_share and not 0.0 <= bound <= 1.0:
            self.refuse(key, f"is {seen(given)}, but a share is 0 to 1", "Write 5% or 0.05.")
        if not meant.figure.is_share and bound < 0:
            self.refuse(key, f"is {seen(given)}, below 0", "Give what the figure can reach.")
        return bound

    def margins(self) -> tuple[Margin, ...]:
        """What may get worse, and by how much."""
        given = self.values.get("regression", {})
        if not isinstance(given, Mapping) or ("regression" in self.values and not given):
            self.refuse("regression", f"is {seen(given)}", "Write `regression: {ttft_p95_ms: 5%}`.")
        margins: dict[str, Margin] = {}
        for name, value in given.items():
            margin = self._margin(f"regression.{name}", str(name), value)
            if margin.figure.name in margins:
                self.refuse(f"regression.{name}", "is compared by another key too", "Keep one.")
            margins[margin.figure.name] = margin
        return tuple(margins.values())

    def _margin(self, key: str, name: str, value: object) -> Margin:
        meant = meant_by(name)
        figure = COMPARED.get(meant.figure.name if meant else name)
        if figure is None:
            self.refuse(
                key,
                "is no figure that runs are compared by",
                f"{nearest(name, COMPARED).strip()} They are {', '.join(COMPARED)}.".strip(),
            )
        number, percent = _number(value)
        if number is None or not 0.0 <= number < 1.0:
            told = " (a whole number may be meant in percent)" if number and not percent else ""
            self.refuse(key, f"is {seen(value)}, no margin below 100%{told}", "Write 5% or 0.05.")
        return Margin(figure=figure, margin=number, points=figure.name.endswith("_share"))

    def word(self, key: str, words: tuple[str, ...]) -> Any:
        """The value of a key that takes one of some words; None where it is not there."""
        if key not in self.values:
            return None
        value = self.values[key]
        if value not in words:
            self.refuse(key, f"is {seen(value)}", f"It is {' or '.join(words)}.")
        return value


def _number(given: object) -> tuple[float | None, bool]:
    """A number, and whether it was given in percent; None where it is none, infinity included.

    YAML takes `1e-3` for text.
    """
    percent = False
    if isinstance(given, str):
        match = re.fullmatch(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)\s*", given)
        if match is None:
            return None, False
        given, percent = float(match[1]) / (100 if match[2] else 1), bool(match[2])
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None, percent
    try:
        number = float(given)
    except OverflowError:
        return None, percent
    return (number if math.isfinite(number) else None), percent
