"""One request as the workload wants it, before any wire format but OpenAI's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRequest:
    """Body and expectations of request `index` of a run."""

    index: int
    endpoint: str
    """`chat` or `completions`."""
    body: Mapping[str, Any]
    """The OpenAI request body but for `model`; always with `stream: true` and include_usage."""
    input_tokens: int
    """Tokens in the prompt: exact or estimated, as `input_tokens_exact` says."""
    input_tokens_exact: bool
    output_tokens: int
    """The max_tokens asked for."""

    def encoded(self, model: str) -> bytes:
        """The body as JSON, for this model."""
        return _encode({"model": model, **self.body})
