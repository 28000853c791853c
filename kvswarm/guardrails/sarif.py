"""Findings as SARIF 2.1.0, which code hosts show beside the lines of a change.

Source: OASIS, Static Analysis Results Interchange Format Version 2.1.0, 3.13 (log), 3.14 (run),
3.27 (result), 3.49 (reportingDescriptor).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import kvswarm
from kvswarm.guardrails.rule import Finding, Rule

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
VERSION: Final = "2.1.0"
PAGE: Final = "https://github.com/kvswarm/kvswarm/blob/main/docs/rules.md"


def sarif(findings: Sequence[Finding], rules: Sequence[Rule]) -> dict[str, Any]:
    """Give the log of one run of `kvswarm validate`. `rules` are all that were looked at."""
    order = {rule.id: place for place, rule in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "kvswarm validate",
                        "version": kvswarm.__version__,
                        "informationUri": PAGE,
                        "rules": [_descriptor(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, order) for finding in findings],
            }
        ],
    }


def _descriptor(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"{rule.fix}\nSource: {rule.source}"},
        "helpUri": f"{PAGE}#{rule.id.lower()}",
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, order: dict[str, int]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": order[finding.rule.id],
        "level": finding.severity,
        "message": {"text": f"{finding.message}. {finding.fix}"},
    }
    location: dict[str, Any] = {}
    if finding.file is not None:
        place: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file)}}
        if finding.line is not None:
            place["region"] = {"startLine": finding.line}
            if finding.column is not None:
                place["region"]["startColumn"] = finding.column
        location["physicalLocation"] = place
    name = finding.key or finding.flag
    if name:
        location["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "member"}]
    if location:
        result["locations"] = [location]
    return result


def _uri(file: str) -> str:
    """A path below the working directory is relative to it, as code hosts want it."""
    path = Path(file).absolute()
    here = Path.cwd()
    if path.is_relative_to(here):
        # Percent-encoding is as_uri's; its first part is the directory's own.
        return path.as_uri().removeprefix(here.as_uri()).removeprefix("/")
    return path.as_uri()
