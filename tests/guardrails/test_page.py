"""docs/rules.md is what the rules say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_page_is_what_the_code_writes() -> None:
    """`python -m kvswarm.guardrails > docs/rules.md` was forgotten where this fails."""
    command = [sys.executable, "-m", "kvswarm.guardrails"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == PAGE.read_text("utf-8")
