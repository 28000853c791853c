"""Where prompts come from: made of words, made to an exact length, or rows of a file.

In:  index of the request, its generator, and the tokens wanted.
Out: a `Prompt`: what to send and how long it is, exactly or as an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from kvswarm.profiles.model import Lengths, PromptSpec
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
    variant: str | None = None
    """What sets it apart from others of the run, where the profile has several kinds."""


class PromptSource(Protocol):
    """Anything that makes prompts."""

    def prompt(self, number: int, place: int, rng: np.random.Generator) -> Prompt:
        """Make a prompt that starts as no other `number` does. `rng` is that of its content.

        Two numbers with one place, and so one `rng`, have one content: a request and its control.
        """


class PrefixChoice:
    """Which of the shared prefixes, if any, a prompt begins with."""

    def __init__(self, spec: PromptSpec) -> None:
        self._count = spec.shared_prefixes if spec.shared_prefix_tokens else 0
        self._share = spec.shared_prefix_share

    @property
    def all_alike(self) -> bool:
        """Whether every prompt has a shared prefix, or none has."""
        return not self._count or self._share >= 1

    def choose(self, place: int, rng: np.random.Generator) -> int | None:
        """Give the number of the prefix; None for none."""
        if not self._count or (self._share < 1 and rng.random() >= self._share):
            return None
        return place % self._count

    def label(self, chosen: int | None) -> str | None:
        """What figures are told by, where there are both kinds."""
        if self.all_alike:
            return None
        return "own prefix" if chosen is None else "shared prefix"


def _label(*labels: str | None) -> str | None:
    return ", ".join(label for label in labels if label) or None


def _length_label(lengths: Lengths, input_tokens: int) -> str | None:
    return f"{input_tokens} tokens" if lengths.kind == "values" else None


class MadePrompts:
    """Prompts of words, as many as tokens are wanted: an honest estimate."""

    def __init__(self, spec: PromptSpec, seed: int) -> None:
        self._lengths = spec.input_tokens
        self._leads = Leads(seed) if spec.unique else None
        self._choice = PrefixChoice(spec)
        self._prefixes = [
            random_words(spec.shared_prefix_tokens, generator(seed, RandomStream.PREFIX, which))
            for which in range(spec.shared_prefixes)
        ]

    def prompt(self, number: int, place: int, rng: np.random.Generator) -> Prompt:
        """Join the shared prefix, the words that spell the number, and random words."""
        input_tokens = draw_tokens(self._lengths, rng, place)
        which = self._choice.choose(place, rng)
        chosen = [] if which is None else list(self._prefixes[which])
        chosen += self._leads.words(number) if self._leads else []
        chosen += random_words(max(0, input_tokens - len(chosen)), rng)
        return Prompt(
            text=" ".join(chosen[:input_tokens]),
            input_tokens=input_tokens,
            exact=False,
            variant=_label(self._choice.label(which), _length_label(self._lengths, input_tokens)),
        )


class ExactPrompts:
    """Prompts of exactly as many tokens as wanted, by the server's own tokenizer."""

    def __init__(self, spec: PromptSpec, seed: int, exact: ExactText) -> None:
        self._lengths = spec.input_tokens
        self._exact = exact
        self._leads = Leads(seed) if spec.unique else None
        self._choice = PrefixChoice(spec)
        self._prefixes = [
            exact.prefix(spec.shared_prefix_tokens, generator(seed, RandomStream.PREFIX, which))
            for which in range(spec.shared_prefixes if spec.shared_prefix_tokens else 0)
        ]

    def prompt(self, number: int, place: int, rng: np.random.Generator) -> Prompt:
        """Make text that the tokenizer counts as the wanted number. Raises DatasetError."""
        input_tokens = draw_tokens(self._lengths, rng, place)
        which = self._choice.choose(place, rng)
        prefix = "" if which is None else self._prefixes[which]
        lead = self._leads.words(number) if self._leads else []
        return Prompt(
            text=self._exact.text(input_tokens, rng, lead=lead, prefix=prefix),
            input_tokens=input_tokens,
            exact=True,
            variant=_label(self._choice.label(which), _length_label(self._lengths, input_tokens)),
        )


class FixedPrompt:
    """One prompt for all requests: what request 0 would have sent."""

    def __init__(self, source: PromptSource, seed: int) -> None:
        self._prompt = source.prompt(0, 0, generator(seed, RandomStream.REQUEST, 0))

    def prompt(self, number: int, place: int, rng: np.random.Generator) -> Prompt:  # noqa: ARG002 - always one
        """Give the one prompt."""
        return self._prompt


class FilePrompts:
    """Rows of a file in an order shuffled under the seed, over again after the last."""

    def __init__(self, rows: Sequence[PromptRow], seed: int, exact: ExactText | None) -> None:
        self._rows = rows
        self._order = generator(seed, RandomStream.ROWS).permutation(len(rows)).tolist()
        self._exact = exact

    def prompt(self, number: int, place: int, rng: np.random.Generator) -> Prompt:  # noqa: ARG002 - by place
        """Take the row whose turn it is at this place."""
        row = self._rows[self._order[place % len(self._order)]]
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


def chat_messages(prompt: Prompt) -> list[Mapping[str, Any]]:
    """A prompt as the messages of a chat."""
    if prompt.messages is not None:
        return list(prompt.messages)
    return [{"role": "user", "content": prompt.text}]
