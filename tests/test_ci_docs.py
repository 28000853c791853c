"""docs/ci.md: the workflow's own commands, run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

PAGE = (Path(__file__).parents[1] / "docs" / "ci.md").read_text("utf-8")
CHECKOUT = Path(__file__).parents[1]
LONG_S = 120.0


LOAD, SLOS, WORKFLOW = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
PATIENT = """\
verdict:
  invalid_error_share: 1.0
  invalid_error_ms: 1000000
  invalid_send_lag_p99_ms: 1000000
"""
"""What keeps a machine that is busy with other tests from being called too late to measure."""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a job: a `kvswarm` on the path, a free port, and a file for its summary."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kvswarm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kvswarm "$@"\n')
    (programs / "kvswarm").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "PORT": str(port),
    }


def test_the_workflow_passes_its_own_gate(tmp_path: Path, shell: dict[str, str]) -> None:
    """Steps in their order, each by `bash -e` as a runner does; limits on times made mild."""
    job = yaml.safe_load(WORKFLOW)["jobs"]["gate"]
    steps = [step for step in job["steps"] if "run" in step and "name" in step]
    assert [step["name"] for step in steps] == ["Start the server", "Measure", "Gate"]
    work, log = tmp_path / "work", tmp_path / "log"
    work.mkdir()
    (work / "load.yaml").write_text(LOAD.replace("500", "60000") + PATIENT)
    (work / "slo.yaml").write_text(SLOS.replace("500", "60000").replace("20%", "95%"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        for step in steps:
            with log.open("ab") as file:
                process = subprocess.Popen(
                    ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
                    cwd=work, env=shell, stdout=file, stderr=file, start_new_session=True,
                )  # fmt: skip
            started.append(process)
            assert process.wait(LONG_S) == 0, log.read_text()
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    suite = ET.parse(work / "gate.xml").getroot()  # noqa: S314 - our own file
    assert [case.get("name") for case in suite.iter("testcase")] == [
        "ttft_p95_ms", "error_share", "goodput_share", "ttft_p50_ms", "error_share",
    ]  # fmt: skip
    assert (tmp_path / "summary.md").read_text().startswith("## ✅ kvswarm gate passed")
    kept = next(step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    for path in kept["with"]["path"].split():
        assert (work / path).exists()
