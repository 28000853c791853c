"""Read Prometheus' text format as strictly as its description has it, and by its own parser."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABEL = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)", re.ASCII)
_SUFFIXES = {
    "counter": ("",),
    "gauge": ("",),
    "summary": ("", "_sum", "_count"),
}
_MEANING = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def strict(text: str) -> Samples:
    """Every sample by name and labels.

    Each family once, as HELP, TYPE and then its samples, all of them of that family, none twice;
    counters end in `_total` and are not below 0; quantiles do not fall.
    """
    assert text.endswith("\n")
    samples: Samples = {}
    seen: set[str] = set()
    family, kind, helped = "", "", ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped = line.split(" ")[2]
            assert helped not in seen, line
            seen.add(helped)
            assert len(line.split(" ", 3)) == 4, line
        elif line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family == helped, line
            assert family.endswith("_total") == (kind == "counter"), line
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            name, labels, value = match.groups()
            assert name in {family + suffix for suffix in _SUFFIXES[kind]}, line
            pairs = re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', labels or "")
            meant = {key: re.sub(r"\\.", lambda m: _MEANING[m[0]], text) for key, text in pairs}
            assert ("quantile" in meant) == (kind == "summary" and name == family), line
            key = (name, frozenset(meant.items()))
            assert key not in samples, line
            samples[key] = float(value)
            assert kind != "counter" or samples[key] >= 0, line
    _quantiles_rise(samples)
    assert samples == parsed(text)
    return samples


def _quantiles_rise(samples: Samples) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for (name, labels), value in samples.items():
        if "quantile" in dict(labels):
            found.setdefault(name, []).append((float(dict(labels)["quantile"]), value))
    for name, points in found.items():
        assert all(low[1] <= high[1] for low, high in pairwise(sorted(points))), name


def parsed(text: str) -> Samples:
    """Every sample as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(url: str, read: Callable[[str], Samples] = strict) -> Samples:
    """Ask an endpoint as Prometheus does; what it says must be right, of ours strictly so."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - http
        assert response.headers["Content-Type"] == CONTENT_TYPE
        return read(response.read().decode())


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """One sample; None where there is none."""
    return samples.get((name, frozenset(labels.items())))
