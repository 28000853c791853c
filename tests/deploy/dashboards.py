"""What a Grafana dashboard asks of Prometheus: the metrics and labels in its expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "kvswarm.json"
_WORD = re.compile(r"[a-zA-Z_:][\w:]*")
_CALL = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\(?)")
_KEYWORDS = {"and", "or", "unless", "on", "ignoring", "offset", "bool"}


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    plain: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return plain


@dataclass(frozen=True)
class Asked:
    """One expression."""

    panel: str
    expression: str
    legend: str

    @property
    def metrics(self) -> set[str]:
        """Names of metrics."""
        text = re.sub(r"\[[^\]]*\]|\{[^}]*\}", "", self.expression)
        text = re.sub(r"\b(by|without)\s*\([^)]*\)", "", text)
        return {name for name, call in _CALL.findall(text) if not call} - _KEYWORDS

    @property
    def lost_labels(self) -> set[str]:
        """Names of labels that it shows and has summed away."""
        shown = set(re.findall(r"\{\{(\w+)\}\}", self.legend))
        aggregates = re.search(r"\b(sum|max|min|avg|count)\b", self.expression) is not None
        kept = re.findall(r"\bby\s*\(([^)]*)\)", self.expression)
        return shown - set(_WORD.findall(" ".join(kept))) if aggregates else set()

    @property
    def labels(self) -> set[str]:
        """Names of labels that it selects, sums by or shows."""
        grouped = re.findall(r"\bby\s*\(([^)]*)\)", self.expression)
        selected = re.findall(r"(\w+)\s*[=!]~?\"", self.expression)
        shown = re.findall(r"\{\{(\w+)\}\}", self.legend)
        return {name for group in grouped for name in _WORD.findall(group)} | {*selected, *shown}


def panels() -> list[dict[str, Any]]:
    """Every panel, those of folded rows too."""
    found = []
    for panel in dashboard()["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def asked() -> Iterator[Asked]:
    """Every expression of every panel."""
    for panel in panels():
        for target in panel.get("targets", []):
            yield Asked(panel["title"], target["expr"], target["legendFormat"])
