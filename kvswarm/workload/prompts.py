"""Where prompts come from: made of words, made to an exact length, or rows of a file.

In:  index of the request, its generator, and the tokens wanted.
Out: a `Prompt`: what to send and how long it is, exactly or as an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from kvswarm.profiles.model import PromptSpec
from kvswarm.workload.dataset import PromptRow
from kvswarm.workload.exact import ExactText
from kvswarm.workload.lengths import RandomStream, draw_tokens, generator
from kvswarm.workload.words import Leads, random_words

CHARACTERS_PER_TOKEN: Final = 4
"""The usual rule of thumb for English text; used for other people's prompts only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What request `index` sends: `text`, or whole `messages`."""

    text: str | None
    messages: tuple[Mapping[str, Any], ...] | None = None
    input_tokens: int
    exact: bool
    output_tokens: int | None = None
    """As the row of a file says; None where it says nothing."""


class PromptSource(Protocol):
    """Anything that makes prompts."""

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        """Make the prompt of a request; `rng` is that request's own."""


class MadePrompts:
    """Prompts of words, as many as tokens are wanted: an honest estimate."""

    def __init__(self, spec: PromptSpec, seed: int) -> None:
        self._lengths = spec.input_tokens
        self._leads = Leads(seed) if spec.unique else None
        self._prefix = random_words(spec.shared_prefix_tokens, generator(seed, RandomStream.PREFIX))

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        """Join the shared prefix, the words that spell the index, and random words."""
        input_tokens = draw_tokens(self._lengths, rng)
        chosen = self._prefix + (self._leads.words(index) if self._leads else [])
        chosen += random_words(max(0, input_tokens - len(chosen)), rng)
        return Prompt(text=" ".join(chosen[:input_tokens]), input_tokens=input_tokens, exact=False)


class ExactPrompts:
    """Prompts of exactly as many tokens as wanted, by the server's own tokenizer."""

    def __init__(self, spec: PromptSpec, seed: int, exact: ExactText) -> None:
        self._lengths = spec.input_tokens
        self._exact = exact
        self._leads = Leads(seed) if spec.unique else None
        self._prefix = ""
        if spec.shared_prefix_tokens:
            self._prefix = exact.prefix(
                spec.shared_prefix_tokens, generator(seed, RandomStream.PREFIX)
            )

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        """Make text that the tokenizer counts as the wanted number. Raises DatasetError."""
        input_tokens = draw_tokens(self._lengths, rng)
        lead = self._leads.words(index) if self._leads else []
        text = self._exact.text(input_tokens, rng, lead=lead, prefix=self._prefix)
        return Prompt(text=text, input_tokens=input_tokens, exact=True)


class FixedPrompt:
    """One prompt for all requests: what request 0 would have sent."""

    def __init__(self, source: PromptSource, seed: int) -> None:
        self._prompt = source.prompt(0, generator(seed, RandomStream.REQUEST, 0))

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:  # noqa: ARG002 - always one
        """Give the one prompt."""
        return self._prompt


class FilePrompts:
    """Rows of a file in an order shuffled under the seed, over again after the last."""

    def __init__(self, rows: Sequence[PromptRow], seed: int, exact: ExactText | None) -> None:
        self._rows = rows
        self._order = generator(seed, RandomStream.ROWS).permutation(len(rows)).tolist()
        self._exact = exact

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:  # noqa: ARG002 - by index
        """Take the row that is at this index's turn."""
        row = self._rows[self._order[index % len(self._order)]]
        if self._exact is not None:
            counted = sum(self._exact.count(text) for text in row.texts())
        else:
            counted = row.input_tokens or estimated_tokens(row.texts())
        return Prompt(
            text=row.prompt,
            messages=row.messages,
            input_tokens=counted,
            exact=self._exact is not None,
            output_tokens=row.output_tokens,
        )


def estimated_tokens(texts: Sequence[str]) -> int:
    """Estimate the tokens of other people's text: one for every four characters, at least one."""
    characters = sum(len(text) for text in texts)
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))
