"""Every command of docs/kserve-tutorial.md stands, as far as it can be told without a cluster."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from kvswarm.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "kserve-tutorial.md").read_text("utf-8")
LINES = re.findall(r"^    kvswarm ((?:\\\n|.)+)$", PAGE.replace("\\\n", " "), re.MULTILINE)
DECIDED_HERE = ("deploy", "compare", "run")


def test_the_page_has_every_step() -> None:
    """Else the test below tests nothing."""
    assert {line.split()[0] for line in LINES} == {*DECIDED_HERE, "teardown"}


@pytest.mark.parametrize("line", [x for x in LINES if x.split()[0] in DECIDED_HERE])
def test_a_command_can_be_pasted(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a dry run, in an empty directory, with no cluster to ask."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line) if not word.startswith("--dry-run")]
    monkeypatch.setattr(sys, "argv", ["kvswarm", *words, "--dry-run"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0, capfd.readouterr().err
