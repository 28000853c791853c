"""The embedded simulator as a profile wants its server to be."""

from __future__ import annotations

from typing import Any

from kvswarm.profiles.features import BASE
from kvswarm.profiles.model import Profile

AUTO_TOKENS = 4
"""Tokens that `speculative: auto` drafts here: there is no model to choose a draft for."""


def simulator_arguments(profile: Profile) -> tuple[str, ...]:
    """Give the options of `kvswarm simulate` for a profile and, of a mix, its parts."""
    parts = profile.parts
    arguments: list[str] = []
    adapters = sorted({name for part in parts for name in part.adapters} - {BASE})
    if adapters:
        arguments += ["--lora-modules", *adapters]
        loras = [part.vllm_features.get("max_loras", 1) for part in parts]
        arguments += ["--max-loras", str(max(loras))]
    tokens = max(_speculative_tokens(part) for part in parts)
    if tokens:
        arguments += ["--speculative-tokens", str(tokens)]
    if any(part.vllm_features.get("enable_prefix_caching") is False for part in parts):
        arguments.append("--no-prefix-caching")
    return tuple(arguments)


def _speculative_tokens(profile: Profile) -> int:
    given: Any = profile.speculative
    if given == "auto":
        return AUTO_TOKENS
    if not given:
        given = profile.vllm_features
    return int(given.get("num_speculative_tokens") or 0)
