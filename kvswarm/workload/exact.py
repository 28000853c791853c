"""Make text of an exact number of tokens, by the server's own tokenizer.

In:  `tokenizer.json`, or a directory with it.
Out: text that the tokenizer counts as exactly N, checked by counting it.

What is counted is what the server counts for the text itself. Completions: with the special
tokens that the tokenizer adds (BOS), so that usage.prompt_tokens is N. Chat: without, because
there the server's template adds its own, the same for every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from kvswarm.errors import DatasetError
from kvswarm.workload.words import LEAD_WORDS, random_words, words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECES: Final = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,;:!?- \n")
"""Small things to append where no word brings exactly the tokens that are left."""
ADJUSTMENTS: Final = 64
DRAWS: Final = 8


def open_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer's file, or the one in a directory. Raises DatasetError."""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra, needed for this alone
    except ImportError as error:
        raise DatasetError(
            f"{path}: exact prompt lengths need the package tokenizers",
            fix="pip install 'kvswarm[tokenizers]', or leave out `tokenizer` for estimates.",
        ) from error
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DatasetError(
            f"{file}: there is no such tokenizer",
            fix="Give the model's tokenizer.json, or the directory that holds it.",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        raise DatasetError(
            f"{file}: is no tokenizer: {error}",
            fix="Give a tokenizer.json as Hugging Face models have it.",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class ExactText:
    """Texts of exact lengths. `special` tells whether special tokens count."""

    def __init__(self, tokenizer: Tokenizer, *, special: bool) -> None:
        self._tokenizer = tokenizer
        self._special = special
        after_word = self.count("the")
        costs = [self.count(f"the {word}") - after_word for word in words()]
        self._cost = dict(zip(words(), costs, strict=True))
        self._singles = [word for word, cost in self._cost.items() if cost == 1]
        self._mean_cost = max(1.0, sum(costs) / len(costs))
        self.lead_tokens = LEAD_WORDS * max(costs)
        """Tokens that the words which spell an index take at most."""

    def count(self, text: str) -> int:
        """Count tokens as this endpoint of the server would."""
        return len(self._tokenizer.encode(text, add_special_tokens=self._special).ids)

    def prefix(self, tokens: int, rng: np.random.Generator) -> str:
        """Make text to begin others with, of exactly `tokens`; empty where BOS is all of them."""
        return "" if tokens == self.count("") else self.text(tokens, rng)

    def text(
        self,
        tokens: int,
        rng: np.random.Generator,
        *,
        lead: Sequence[str] = (),
        prefix: str = "",
    ) -> str:
        """Make text of exactly `tokens`, beginning with `prefix` and the `lead` words.

        Raises DatasetError where the tokenizer allows no such text.
        """
        for _ in range(DRAWS):
            made = self._try(tokens, rng, list(lead), prefix)
            if made is not None:
                return made
        raise DatasetError(
            f"the tokenizer makes no text of exactly {tokens} tokens",
            fix=f"Give input_tokens above {self.count(prefix) + self.lead_tokens}, "
            "or leave out `tokenizer` for estimates.",
        )

    def _try(
        self, tokens: int, rng: np.random.Generator, chosen: list[str], prefix: str
    ) -> str | None:
        """Draw words for about the right length, then add and drop until the count is right."""
        before = [prefix] if prefix else []
        left = tokens - self.count(" ".join(before + chosen))
        for word in random_words(max(0, int(left / self._mean_cost) + 1), rng):
            if self._cost[word] > left:
                break
            left -= self._cost[word]
            chosen.append(word)
        chosen.extend(self._single_words(left, rng))
        tail = ""
        for _ in range(ADJUSTMENTS):
            text = " ".join(before + chosen) + tail
            left = tokens - self.count(text)
            if left == 0:
                return text or None  # a prompt of BOS alone is none
            if left > 0 and not tail and self._singles:
                chosen.extend(self._single_words(left, rng))
                continue
            piece = self._piece(text, left, rng) if left > 0 else None
            if piece is not None:
                tail += piece
            elif chosen:
                chosen.pop()
                tail = ""
            else:
                return None
        return None

    def _single_words(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw words of one token each; none where the tokenizer has no such words."""
        if count < 1 or not self._singles:
            return []
        return [self._singles[i] for i in rng.integers(len(self._singles), size=count).tolist()]

    def _piece(self, text: str, left: int, rng: np.random.Generator) -> str | None:
        """Find something small that brings the count nearer without passing it."""
        before = self.count(text)
        start = int(rng.integers(len(PIECES)))
        for piece in PIECES[start:] + PIECES[:start]:
            if 0 < self.count(text + piece) - before <= left:
                return piece
        return None
