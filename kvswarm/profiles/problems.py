"""What is wrong with a profile: where, which key, the value seen, and what to do.

In:  findings of the YAML reader, the schema and the cross-field rules.
Out: one `ProfileError` that names them all, in the order of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.errors import ProfileError

SEEN_CHARACTERS: Final = 60

KeyPath = tuple[str | int, ...]
"""Way to a value: `("stages", 0, "duration_s")`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file, with line and column, or a flag of the command line."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class BrokenProfileError(ProfileError):
    """A profile with problems, each of which has its place."""

    def __init__(self, message: str, *, fix: str, problems: Sequence[Problem]) -> None:
        super().__init__(message, fix=fix)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `what` goes on from the key: "is -1; must be above 0"."""

    place: Place
    path: KeyPath
    what: str
    fix: str

    @property
    def sentence(self) -> str:
        """Place, key and finding on one line."""
        key = key_text(self.path)
        return f"{self.place}: {key} {self.what}" if key else f"{self.place}: {self.what}"


def key_text(path: KeyPath) -> str:
    """Write a key path as people do: `stages[0].duration_s`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def seen(value: object) -> str:
    """Show a value as it was read, cut to one short line."""
    text = f"{value!r}"
    return text if len(text) <= SEEN_CHARACTERS else text[:SEEN_CHARACTERS] + "..."


def nearest(name: object, names: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the valid name closest to a wrong one, or nothing."""
    close = difflib.get_close_matches(str(name), sorted(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def profile_error(source: str, problems: Sequence[Problem]) -> ProfileError:
    """Make one error of all problems; a single one keeps its own remedy."""
    if len(problems) == 1:
        return BrokenProfileError(problems[0].sentence, fix=problems[0].fix, problems=problems)
    in_order = sorted(problems, key=lambda problem: (problem.place.source, problem.place.line or 0))
    listed = "".join(f"\n  {problem.sentence}\n    {problem.fix}" for problem in in_order)
    return BrokenProfileError(
        f"{source}: {len(problems)} problems{listed}",
        fix="Every key, with its unit and default, is in docs/profiles.md.",
        problems=in_order,
    )
