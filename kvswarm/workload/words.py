"""Made text: plain words, each of which is one token in the usual vocabularies.

`words.txt` holds 1,024 English words. Each, with the blank before it, is a single entry of the
vocabularies of GPT-2 (50k), Mistral's SentencePiece (32k) and Mistral's Tekken (131k), and short
and common enough to be one in most others. Text of N words is therefore taken for N tokens:
measured over 20,000 words, 1.000 tokens a word in Mistral's four. The server adds what is its
own: a BOS token, or the chat template.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvswarm.workload.lengths import RandomStream, generator

WORD_BITS: Final = 10
LEAD_WORDS: Final = 3
"""Words at the start of a unique prompt that spell its index: 2**30 prompts start unlike."""
_LEAD_MASK: Final = (1 << (WORD_BITS * LEAD_WORDS)) - 1
_WORD_MASK: Final = (1 << WORD_BITS) - 1


@cache
def words() -> tuple[str, ...]:
    """Read the 1,024 words."""
    text = Path(__file__).with_name("words.txt").read_text(encoding="utf-8")
    return tuple(text.split())


@cache
def _word_array() -> NDArray[np.object_]:
    return np.array(words(), dtype=object)


def random_words(count: int, rng: np.random.Generator) -> list[str]:
    """Draw words, each equally likely."""
    pool = _word_array()
    drawn: list[str] = pool[rng.integers(len(pool), size=count)].tolist()
    return drawn


class Leads:
    """The first words of each prompt: no two indexes of a seed below 2**30 have the same."""

    def __init__(self, seed: int) -> None:
        rng = generator(seed, RandomStream.LEAD)
        # An odd factor makes index -> factor * index + shift one to one modulo a power of two.
        self._factor = int(rng.integers(1, _LEAD_MASK)) | 1
        self._shift = int(rng.integers(0, _LEAD_MASK))

    def words(self, index: int) -> list[str]:
        """Spell `index` in LEAD_WORDS words."""
        spelled = (index * self._factor + self._shift) & _LEAD_MASK
        pool = words()
        return [pool[(spelled >> (WORD_BITS * i)) & _WORD_MASK] for i in range(LEAD_WORDS)]
