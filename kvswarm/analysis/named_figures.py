"""The figures of summary.json by a name that people write, and which way each is good.

In:  a name, such as `ttft_p95_ms`, `cold_multiplier` or `server.gpu.utilisation_share`; a summary.
Out: the `NamedFigure`, and its value in the summary, or why the summary has none.
Not: limits: see `gates.py` (those of a profile) and `slo_file.py` (those of a file).

Besides the names of `SHORT` and of the latencies, every number of summary.schema.json has a name:
its path, with dots (`requests.failed`) or with underscores (`requests_failed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final, Literal

from kvswarm.analysis.schemas import SUMMARY, schema
from kvswarm.profiles.problems import nearest
from kvswarm.records import ERROR_KINDS

Direction = Literal["at most", "at least"]
Path = tuple[str, ...]

LATENCIES: Final = ("ttft", "ttft_from_intended", "itl", "tpot", "e2e", "connect")
STATISTICS: Final = ("mean", "min", "max", "std", "p50", "p75", "p90", "p95", "p99", "p999")
SHORT: Final[dict[str, tuple[Path, Direction]]] = {
    "error_share": (("requests", "failed"), "at most"),
    "success_share": (("requests", "ok"), "at least"),
    "goodput_share": (("goodput", "share"), "at least"),
    "goodput_rps": (("goodput", "requests_per_s"), "at least"),
    "requests_per_s": (("throughput", "requests_per_s"), "at least"),
    "output_tokens_per_s": (("throughput", "output_tokens_per_s"), "at least"),
    "input_tokens_per_s": (("throughput", "input_tokens_per_s"), "at least"),
    "valid_output_share": (("outputs", "valid_share"), "at least"),
    "cold_multiplier": (("replicas", "cold_multiplier", "ratio"), "at most"),
    "scaling_multiplier": (("replicas", "scaling_multiplier", "ratio"), "at most"),
    "time_to_first_ready_s": (("replicas", "time_to_first_ready_s"), "at most"),
    "slo_recovered_s": (("replicas", "slo_recovered_s"), "at most"),
}
"""Where figures stand, and whether a limit on them is the most or the least."""
BY_ERROR: Final = ("requests", "by_error")
OF_ENDED: Final = ("error_share", "success_share")
"""Shares of the requests that ended, for which the summary has the counts alone."""
WHY_NONE: Final = {
    "outputs": "no answer of the run was judged",
    "replicas": "the service was not measured by its name (--service)",
    "server": "no server told its metrics (--metrics-url)",
    "cost": "machines or prices are not known",
    "energy": "no power was told",
}
"""What it means that a section is null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFigure:
    """One figure of a summary. `direction` None: whoever limits it must say which way."""

    name: str
    path: Path
    direction: Direction | None

    @property
    def stands(self) -> Path:
        """The same for all names of a figure."""
        return (self.name,) if self.name in OF_ENDED else self.path

    @property
    def is_share(self) -> bool:
        """Whether it goes from 0 to 1."""
        return any(part.endswith("_share") or part == "share" for part in (self.name, *self.path))

    @property
    def unit(self) -> str:
        """`ms`, `s`, `USD` or nothing; a share is told in percent."""
        if self.is_share:
            return ""
        if any(part.endswith("_ms") for part in (self.name, *self.path)):
            return "ms"
        if self.name.endswith("_usd"):
            return "USD"
        return "s" if self.name.endswith("_s") and not self.name.endswith("_per_s") else ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure's value; None with the reason."""

    value: float | None
    reason: str | None


def figure_named(name: str) -> NamedFigure | None:
    """The figure that a name means; None where there is no such figure."""
    known = _figures().get(name)
    if known is not None or "." not in name:
        return known
    path = tuple(name.split("."))
    if path[:-1] not in _maps() or (path[:-1] == BY_ERROR and not _is_error_kind(path[-1])):
        return None
    return NamedFigure(name=name, path=path, direction=_direction(path))


def _is_error_kind(name: str) -> bool:
    return name in ERROR_KINDS or re.fullmatch(r"http_\d{3}", name) is not None


def what_is_meant(name: str) -> str:
    """What to write in place of a name that is no figure, as a sentence or nothing."""
    match = re.fullmatch(r"(\w+?)(?:_(p\d+))?_ms", name)
    if match is not None and match[1] in LATENCIES:
        if match[2]:
            return f"Percentiles are {', '.join(s for s in STATISTICS if s[0] == 'p')}."
        return f"Say which figure of the run: {match[1]}_p95_ms."
    return nearest(name, _figures()).strip()


def read_figure(summary: Mapping[str, Any], figure: NamedFigure) -> Reading:
    """Look a figure up in a summary, one that another version made included."""
    if figure.name in OF_ENDED:
        return _of_ended(summary["requests"], figure.path[1])
    found: Any = summary
    for depth, part in enumerate(figure.path):
        if found is None:
            return Reading(None, _why_none(figure.path[:depth]))
        if part not in found:
            if figure.path[:depth] == BY_ERROR:
                return Reading(0.0, None)  # kinds that did not happen are not listed
            where = ".".join(figure.path[: depth + 1])
            return Reading(None, f"the run has no {where}: another version may have made its files")
        found = found[part]
    if found is None:
        return Reading(None, _why_none(figure.path))
    return Reading(float(found), None)


def _of_ended(requests: Mapping[str, Any], part: str) -> Reading:
    ended = requests["ok"] + requests["failed"]
    if not ended:
        return Reading(None, "no measured request ended")
    return Reading(requests[part] / ended, None)


def values_behind(summary: Mapping[str, Any], figure: NamedFigure) -> int | None:
    """How many values a latency's figure is made of; None where the summary does not say."""
    found: Any = summary
    for part in figure.path[:-1]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found.get("count") if isinstance(found, Mapping) else None


def _why_none(path: Path) -> str:
    where = ".".join(path)
    if path[0] in WHY_NONE:
        return f"the run has no {where}: {WHY_NONE[path[0]]}"
    if len(path) > 1 and path[-2].endswith("_ms"):
        return f"no measured, successful request has a {where}"
    return f"the run has no {where}"


@cache
def _figures() -> dict[str, NamedFigure]:
    """Every figure by each of its names."""
    figures = {}
    for path in _numbers():
        direction = _direction(path)
        for name in ("_".join(path), ".".join(path)):
            figures[name] = NamedFigure(name=name, path=path, direction=direction)
    for latency, statistic in product(LATENCIES, STATISTICS):
        name = f"{latency}_{statistic}_ms"
        path = (f"{latency}_ms", statistic)
        figures[name] = NamedFigure(name=name, path=path, direction=_direction(path))
    for name, (path, direction) in SHORT.items():
        figures[name] = NamedFigure(name=name, path=path, direction=direction)
    return figures


def _direction(path: Path) -> Direction | None:
    """What is plainly better low or high; None for all else, counts and levels say."""
    last, whole = path[-1], "_".join(path)
    if last in {"count", "std"} or "reconciliation" in path or "clock" in path:
        return None
    if whole.endswith(("_per_s", "_rps", "_valid_share")) or "slo_share" in path:
        return "at least"
    if path[:2] in {("requests", "failed"), BY_ERROR} or last == "error_share":
        return "at most"
    spent = path[0] in {"cost", "energy"} and "per_" in whole and not last.startswith("gpus")
    if spent or last.endswith("_usd") or any(part.endswith("_ms") for part in path):
        return "at most"
    return None


@cache
def _numbers() -> tuple[Path, ...]:
    """Where numbers of this run stand in a summary, lists left out."""
    paths = dict.fromkeys(path for path in _walk(schema(SUMMARY), ()) if path[-1] != "*")
    return tuple(path for path in paths if path[0] not in {"run", "baseline"})


@cache
def _maps() -> frozenset[Path]:
    """Where maps of numbers stand whose keys are not the same in all runs."""
    return frozenset(path[:-1] for path in _walk(schema(SUMMARY), ()) if path[-1] == "*")


def _walk(part: Mapping[str, Any], path: Path) -> Iterator[Path]:
    if "$ref" in part:
        yield from _walk(schema(SUMMARY)["$defs"][part["$ref"].rpartition("/")[2]], path)
    for each in part.get("anyOf", ()):
        yield from _walk(each, path)
    kinds = part.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else {*kinds}
    if kinds & {"number", "integer"}:
        yield path
    for name, inner in part.get("properties", {}).items():
        yield from _walk(inner, (*path, name))
    others = part.get("additionalProperties")
    if isinstance(others, Mapping) and others.get("type") in {"number", "integer"}:
        yield (*path, "*")
