"""How busy the servers are now: running, waiting, and how full their KV caches are.

In:  pages of metrics, as they are recorded.  Out: `Levels`.
Not: figures that are kept (`kvswarm.analysis.server_figures`), whose table of names this reads.

A page of vLLM is 60 kB and takes 30 ms to parse; only the lines of these gauges are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from kvswarm.analysis.server_names import KINDS, Level, Names, Pick
from kvswarm.telemetry.pages import NewestPages, Page

LEVEL_NAMES: Final = ("running", "waiting", "kv_usage_share")
SHARES: Final = frozenset({"kv_usage_share"})
"""Means over replicas and their parts; the others are sums."""
STALE_S: Final = 10.0
"""A source that missed a page by so much says nothing of now."""


def _line_pattern() -> re.Pattern[bytes]:
    picks = {
        pick.name
        for names in KINDS.values()
        for levels in names.levels.values()
        for level in levels
        for pick in (level.pick, level.of)
        if pick is not None
    }
    names = b"|".join(re.escape(name.encode()) for name in sorted(picks))
    return re.compile(rb"^(?:" + names + rb")(?:\{[^\n]*\})?[ \t]+[^\n]+$", re.MULTILINE)


LINES: Final = _line_pattern()
Samples = list[tuple[str, Mapping[str, str], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Of all servers together; None: none of them tells."""

    running: float | None = None
    waiting: float | None = None
    kv_usage_share: float | None = None


class ServerLevels:
    """Follows the pages of one run. Its methods touch files: call them from a thread."""

    def __init__(self, path: Path) -> None:
        self._pages = NewestPages(path)
        self._of: dict[str, tuple[int, Levels]] = {}
        """By source: until when it counts (ns of CLOCK_REALTIME), and what it said."""
        self._last_ns: dict[str, int] = {}

    def now(self, now_ns: int) -> Levels:
        """What the newest pages say; `now_ns` is of CLOCK_REALTIME."""
        try:
            for source, page in self._pages.read().items():
                # Long runs are asked ever less often: the next page may take as long again.
                every_ns = page.time_ns - self._last_ns.get(source, page.time_ns)
                until_ns = page.time_ns + 2 * every_ns + int(STALE_S * 1e9)
                self._last_ns[source] = page.time_ns
                self._of[source] = (until_ns, levels_of(page))
        except OSError:  # there is no page yet, or they were turned into a table
            pass
        return _together(levels for until_ns, levels in self._of.values() if now_ns <= until_ns)


def levels_of(page: Page) -> Levels:
    """What one page says; nothing where it is of no server that we know, or is damaged."""
    names = _kind(page.text)
    if names is None:
        return Levels()
    try:
        samples = _samples(page.text)
    except ValueError:
        return Levels()
    return Levels(
        **{name: _level(samples, names.levels.get(name, ()), name) for name in LEVEL_NAMES}
    )


def _kind(text: bytes) -> Names | None:
    for names in KINDS.values():
        for marker in names.markers:
            start = marker.encode()
            if text.startswith(start) or b"\n" + start in text:
                return names
    return None


def _samples(text: bytes) -> Samples:
    """The lines of gauges that we read. Raises ValueError for what is not Prometheus's format."""
    lines = b"\n".join(LINES.findall(text)).decode("utf-8", "replace")
    families = text_string_to_metric_families(lines + "\n")
    return [(s.name, s.labels, float(s.value)) for family in families for s in family.samples]


def _level(samples: Samples, candidates: Iterable[Level], name: str) -> float | None:
    for candidate in candidates:
        value = _picked(samples, candidate.pick, name)
        if value is not None and candidate.of is not None:
            whole = _picked(samples, candidate.of, name)
            value = value / whole if whole else None
        if value is not None:
            return value
    return None


def _picked(samples: Samples, pick: Pick, name: str) -> float | None:
    values = [
        value
        for sample, labels, value in samples
        if sample == pick.name and pick.labels.items() <= labels.items()
    ]
    return _joined(values, name)


def _together(of_sources: Iterable[Levels]) -> Levels:
    known = list(of_sources)
    values = {
        name: [value for each in known if (value := getattr(each, name)) is not None]
        for name in LEVEL_NAMES
    }
    return Levels(**{name: _joined(found, name) for name, found in values.items()})


def _joined(values: list[float], name: str) -> float | None:
    if not values:
        return None
    return sum(values) / len(values) if name in SHARES else sum(values)
