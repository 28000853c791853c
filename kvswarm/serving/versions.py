"""vLLM's versions, and ranges of them.

A version is compared by its three numbers: suffixes such as `+cpu` or `.post1` change no flag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kvswarm.errors import ProfileError

_FORM: Final = re.compile(
    r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[.+-]?[a-z][\w.+-]*|[.+-]\w[\w.+-]*)?", re.I
)


class Version(NamedTuple):
    """Three numbers, compared in order."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


OLDEST: Final = Version(0, 4, 0)
"""What came before had an API of its own, and is in no table here."""
NEWEST: Final = Version(0, 32, 0)
"""The last one that the tables were read from; later ones are taken to be like it."""


def vllm_version(text: str) -> Version:
    """Read `0.32.0`, `v0.24`, `0.32.0+cpu`. Raises ProfileError: no version, or too old."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ProfileError(
            f"vLLM's version is {text!r}, which is no version",
            fix="Give its numbers, such as 0.32.0 (a running server tells them at /version).",
        )
    version = Version(*(int(number or 0) for number in found.groups()))
    if version < OLDEST:
        raise ProfileError(
            f"vLLM {version} is older than {OLDEST}, the first that kvswarm knows flags of",
            fix="Serve with a newer vLLM; KServe's runtimes have 0.24 and newer.",
        )
    return version


@dataclass(frozen=True, slots=True)
class Span:
    """Versions from `since` on, up to but without `until`; None: no bound."""

    since: Version | None = None
    until: Version | None = None

    def __contains__(self, version: Version) -> bool:
        return not self.before(version) and not self.after(version)

    def before(self, version: Version) -> bool:
        """Whether `version` is older than all of them."""
        return self.since is not None and version < self.since

    def after(self, version: Version) -> bool:
        """Whether `version` is newer than all of them."""
        return self.until is not None and version >= self.until

    def __str__(self) -> str:
        since = f"from {self.since}" if self.since else ""
        until = f"before {self.until}" if self.until else ""
        return " to ".join(part for part in (since, until) if part) or "all"


def span_of(entry: dict[str, Any]) -> Span:
    """Read the keys `since` and `until` of a table's entry."""
    bounds = (entry.get(bound) for bound in ("since", "until"))
    return Span(*(None if bound is None else vllm_version(bound) for bound in bounds))
