"""`kvswarm report`: make the figures of a run directory and show them."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from kvswarm.analysis.finish import finish
from kvswarm.analysis.gates import exit_code
from kvswarm.analysis.terminal import render


def report(path: Path, *, as_json: bool) -> int:
    """Make table, summary and page of a run; give the exit code that they ask for.

    Raises RunDirError where `path` is no run directory.
    """
    summary = finish(path)
    if as_json:
        packed = msgspec.json.format(msgspec.json.encode(summary), indent=2)
        sys.stdout.write(packed.decode() + "\n")
    else:
        console = Console()
        render(summary, console)
        console.print(f"Run directory: {path}", soft_wrap=True)
    return exit_code(summary)
