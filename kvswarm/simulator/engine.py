"""A continuous-batching engine, step by step, without a clock.

In:  requests as `Sequence`s.
Out: `step()`: how long the step takes, and which sequences got a token in it.
Not: HTTP, JSON, waiting (`server.py`); the KV cache (`blocks.py`).

As vLLM's scheduler (V1) in outline: running sequences first, one token each, then prefill in
chunks under a budget of tokens per step; first come first served; the newest sequence is
preempted and computed anew when the KV cache is full. A step's time grows with the sequences that
decode and the tokens that are prefilled. The same requests in the same order give the same tokens.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Final

from kvswarm.simulator.blocks import BlockPool, Holding
from kvswarm.simulator.config import SimulatorConfig

EOS_SHARE: Final = 0.005
"""Chance of an end-of-sequence token at each step, where the request does not ignore it."""


def block_hashes(words: Items[str], block_size: int) -> list[int]:
    """Hashes of the full blocks of a prompt, each of its tokens and all before."""
    hashes: list[int] = []
    before = 0
    for start in range(0, len(words) - block_size + 1, block_size):
        before = hash((before, *words[start : start + block_size]))
        hashes.append(before)
    return hashes


@dataclass(eq=False)
class Sequence:
    """One request in the engine."""

    prompt_tokens: int
    max_tokens: int
    ignore_eos: bool
    hashes: list[int]
    rng: random.Random
    generated: int = 0
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    admitted: bool = False
    """Whether it has run before; a preempted one has."""
    cached_tokens: int = 0
    holding: Holding = field(default_factory=Holding)
    finish_reason: str | None = None

    @property
    def tokens(self) -> int:
        """Prompt and output so far."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its time, the sequences that got a token, those that ran for the first time."""

    duration_ms: float
    emitted: list[Sequence]
    admitted: list[Sequence]


class Engine:
    """The state of the engine between steps."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self.pool = BlockPool(config.num_kv_blocks, caching=config.prefix_caching)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    def fits(self, prompt_tokens: int, max_tokens: int) -> bool:
        """Whether such a request can ever run."""
        blocks = -(-(prompt_tokens + max_tokens) // self._config.block_size)
        return blocks <= self.pool.total

    def add(self, sequence: Sequence) -> None:
        """Queue a request."""
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a request whose client is gone."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.pool.release(sequence.holding)

    def step(self) -> Step:  # noqa: C901 - the schedule in one place
        """Compute one step. Without any request it takes no time."""
        config = self._config
        budget = config.max_num_batched_tokens
        decoding: list[Sequence] = []
        admitted: list[Sequence] = []
        preempted_before = self.preemptions
        prefilled = 0
        for sequence in list(self.running):
            if sequence not in self.running or not budget:
                continue  # preempted just now, or to go on in the next step
            missing = sequence.tokens - sequence.computed
            chunk = min(missing, budget)
            if not self._make_room(sequence, chunk):
                continue
            budget -= chunk
            if missing > 1:
                prefilled += chunk
            sequence.computed += chunk
            if sequence.computed == sequence.tokens:
                decoding.append(sequence)
        while (
            self.waiting
            and budget
            and self.preemptions == preempted_before  # or it would get the blocks it just gave
            and len(self.running) < config.max_num_seqs
        ):
            sequence = self.waiting[0]
            chunk = self._admit(sequence, budget)
            if not chunk:
                break
            self.waiting.popleft()
            self.running.append(sequence)
            if not sequence.admitted:
                sequence.admitted = True
                admitted.append(sequence)
            budget -= chunk
            prefilled += chunk
            if sequence.computed == sequence.tokens:
                decoding.append(sequence)
        emitted = [sequence for sequence in decoding if sequence in self.running]
        for sequence in emitted:
            self._emit(sequence)
        if not emitted and not prefilled:
            return Step(0.0, [], [])
        spent_us = config.decode_us * len(emitted) + config.prefill_us * prefilled
        return Step(config.step_ms + spent_us / 1000, emitted, admitted)

    def _admit(self, sequence: Sequence, budget: int) -> int:
        """Start a waiting sequence, on cached blocks where it can; the tokens prefilled, or 0."""
        block_size = self._config.block_size
        hits = self.pool.take_prefix(sequence.hashes, sequence.holding)
        # At least one token must be computed, or there is nothing to decode from.
        cached = min(hits * block_size, sequence.tokens - 1)
        chunk = min(sequence.tokens - cached, budget)
        needed = -(-(cached + chunk) // block_size) - sequence.holding.blocks
        if not self.pool.take(max(0, needed), sequence.holding):
            self.pool.release(sequence.holding)
            return 0
        if not sequence.admitted:
            self.prefix_queries += sequence.prompt_tokens
            self.prefix_hits += cached
            sequence.cached_tokens = cached
        sequence.computed = cached + chunk
        return chunk

    def _make_room(self, sequence: Sequence, chunk: int) -> bool:
        """Get blocks for the next tokens, preempting the newest; False where it was this one."""
        blocks = -(-(sequence.computed + chunk) // self._config.block_size)
        while not self.pool.take(max(0, blocks - sequence.holding.blocks), sequence.holding):
            newest = self.running.pop()
            self.pool.release(newest.holding)
            newest.computed = 0
            self.waiting.appendleft(newest)
            self.preemptions += 1
            if newest is sequence:
                return False
        return True

    def _emit(self, sequence: Sequence) -> None:
        if not sequence.generated:
            self.pool.publish(sequence.hashes, sequence.holding)
        sequence.generated += 1
        if sequence.generated >= sequence.max_tokens:
            sequence.finish_reason = "length"
        elif not sequence.ignore_eos and sequence.rng.random() < EOS_SHARE:
            sequence.finish_reason = "stop"
        if sequence.finish_reason is not None:
            self.running.remove(sequence)
            self.pool.release(sequence.holding)
