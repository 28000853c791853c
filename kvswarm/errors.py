"""Every error that kvswarm raises on purpose, each with the exit code it ends with.

An error carries what was wrong and where (`message`) and what to do about it (`fix`).
Foreign errors are translated into these where they enter.
"""

from __future__ import annotations

EXIT_PASSED = 0
EXIT_GATE_MISSED = 1
EXIT_USAGE = 2
EXIT_INVALID_MEASUREMENT = 3
EXIT_TARGET_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class KvswarmError(Exception):
    """Something a person can act on: `message` says what and where, `fix` what to do."""

    exit_code = EXIT_USAGE

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  {self.fix}" if self.fix else self.message


class UsageError(KvswarmError):
    """A flag, argument or combination of them that makes no sense."""


class ProfileError(KvswarmError):
    """A profile that cannot be found, read or understood."""


class DatasetError(KvswarmError):
    """A file of prompts or a tokenizer that cannot be used."""


class RunDirError(KvswarmError):
    """A run directory that cannot be made, read or finished."""


class TargetError(KvswarmError):
    """The target could not be reached or deployed."""

    exit_code = EXIT_TARGET_UNREACHABLE
