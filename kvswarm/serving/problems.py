"""What is wrong with `vllm_features`: every finding at once, in one `ProfileError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kvswarm.errors import ProfileError

SEEN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `what` goes on from the key: "is 0; must be 1 or more"."""

    key: str
    what: str
    fix: str

    @property
    def sentence(self) -> str:
        """Key and finding on one line."""
        return f"vllm_features.{self.key} {self.what}"


def seen(value: object) -> str:
    """Show a value as it was read, cut to one short line."""
    text = f"{value!r}"
    return text if len(text) <= SEEN_CHARACTERS else text[:SEEN_CHARACTERS] + "..."


def nearest(name: object, names: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the valid name closest to a wrong one, or nothing."""
    spelled = {valid.lower(): valid for valid in sorted(names)}
    close = difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.5)
    return f" Did you mean {spelled[close[0]]!r}?" if close else ""


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one ProfileError of all problems, if there are any; a single one keeps its remedy."""
    if not problems:
        return
    if len(problems) == 1:
        raise ProfileError(problems[0].sentence, fix=problems[0].fix)
    listed = "".join(f"\n  {problem.sentence}\n    {problem.fix}" for problem in problems)
    raise ProfileError(
        f"vllm_features: {len(problems)} problems{listed}",
        fix="Every key, with the versions that have it, is in docs/serving.md.",
    )
