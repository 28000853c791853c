"""A mix of LoRA adapters: each request asks for one of them, or for the model itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kvswarm.profiles.features import BASE
from kvswarm.workload.answers import Answer
from kvswarm.workload.drafts import Draft, FollowUp
from kvswarm.workload.requests import LLMRequest


class AdaptersFeature:
    """Draws an adapter for each request, by weight."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names = sorted(weights)
        shares = np.array([weights[name] for name in self._names], dtype=float)
        self._ends = np.cumsum(shares / shares.sum())

    def shape(self, draft: Draft) -> None:
        """Ask for the adapter as vLLM has it: by its name as the model."""
        drawn = int(np.searchsorted(self._ends, draft.rng.random(), side="right"))
        name = self._names[min(drawn, len(self._names) - 1)]
        draft.model = None if name == BASE else name
        draft.variants.append(name)

    def follow_up(self, request: LLMRequest, answer: Answer) -> FollowUp | None:  # noqa: ARG002 - a feature's signature
        """Nothing comes after an answer."""
        return None
