"""Type a command as a person would: `kvswarm WORDS` from its entry point to its exit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from kvswarm.cli import main


class Typed(NamedTuple):
    """How a command ended, and what it wrote."""

    code: object
    out: str
    err: str


TypeIn = Callable[[str], Typed]


def typing_in(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *command: str
) -> TypeIn:
    """What types words after `kvswarm`, and after a `command` where there is one."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")

    def start(words: str) -> Typed:
        monkeypatch.setattr(sys, "argv", ["kvswarm", *command, *shlex.split(words)])
        with pytest.raises(SystemExit) as left:
            main()
        return Typed(left.value.code, *capfd.readouterr())

    return start
