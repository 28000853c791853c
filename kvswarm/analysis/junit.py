"""What a gate says as JUnit XML: a test case for each check.

In:  a `Gating`.  Out: the bytes of a file that CI systems read.
Source: the JUnit schema of Jenkins' xUnit plugin (junit-10.xsd), of which others read the same
parts: testsuites, testsuite, properties, testcase, skipped, error, failure, system-out.

An invalid run is an `error`: it says nothing of the server. What cannot be told is `skipped`.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET

from kvswarm.analysis.gate_words import check_text, invalid_text
from kvswarm.analysis.gating import Check, Gating

NO_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (2.2) cannot hold, escaped or not."""
ELEMENTS: Final = {"failed": "failure", "unknown": "skipped"}


def junit_xml(gating: Gating) -> bytes:
    """The file."""
    counts = {
        "tests": len(gating.checks) + len(gating.invalid),
        "failures": sum(check.outcome == "failed" for check in gating.checks),
        "errors": len(gating.invalid),
    }
    skipped = sum(check.outcome == "unknown" for check in gating.checks)
    texts = {name: str(count) for name, count in counts.items()}
    root = ET.Element("testsuites", {"name": "kvswarm gate", **texts})
    suite = ET.SubElement(
        root, "testsuite", {"name": _text(gating.run.path), **texts, "skipped": str(skipped)}
    )
    facts = {"slo": gating.slo, "run": gating.run.path, "verdict": gating.run.status}
    if gating.baseline is not None:
        facts["baseline"] = gating.baseline.path
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _text(value)})
    for gated in gating.invalid:
        case = _case(suite, "measurement", gated.path)
        told = _text(invalid_text(gated))
        ET.SubElement(case, "error", {"message": told, "type": "invalid"}).text = told
    for check in gating.checks:
        _add(suite, check)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _add(suite: ET.Element, check: Check) -> None:
    case = _case(suite, check.kind, check.name)
    told = _text(check_text(check))
    name = ELEMENTS.get(check.outcome)
    if name is None:
        ET.SubElement(case, "system-out").text = told
        return
    element = ET.SubElement(case, name, {"message": told})
    if name == "failure":
        element.set("type", check.kind)
        element.text = told


def _case(suite: ET.Element, kind: str, name: str) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", {"classname": f"kvswarm.{kind}", "name": _text(name), "time": "0"}
    )


def _text(text: str) -> str:
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
