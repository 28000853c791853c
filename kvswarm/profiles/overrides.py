"""What the command line may change about a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Flags of `kvswarm run` that refine a profile. None: not given.

    How they meet the profile's own keys is in `layers.py`.
    """

    requests: int | None = None
    duration_s: float | None = None
    concurrency: int | None = None
    rate_rps: float | None = None
    max_tokens: int | None = None
    endpoint: Literal["chat", "completions"] | None = None
    seed: int | None = None
    settings: tuple[str, ...] = ()
    """Texts `KEY=VALUE`, of any key: see `settings.py`."""


FLAGS = {
    "requests": "--requests",
    "duration_s": "--duration",
    "concurrency": "--concurrency",
    "rate_rps": "--rate",
    "max_tokens": "--max-tokens",
    "endpoint": "--endpoint",
    "seed": "--seed",
}
"""Which flag of the command line gives which override."""
