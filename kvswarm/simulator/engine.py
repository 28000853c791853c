"""A continuous-batching engine, step by step, without a clock.

In:  requests as `Sequence`s.
Out: `step()`: how long the step takes, and which sequences got tokens in it.
Not: HTTP, JSON, waiting (`server.py`); the KV cache (`blocks.py`).

As vLLM's scheduler (V1) in outline: running sequences first, one token each, then prefill in
chunks under a budget of tokens per step; first come first served; the newest sequence is
preempted and computed anew when the KV cache is full. A step's time grows with the sequences that
decode, the tokens that are prefilled or drafted, and the adapters that are loaded. The same
requests in the same order give the same tokens.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Final

from kvswarm.simulator.blocks import BlockPool, Holding
from kvswarm.simulator.config import SimulatorConfig

EOS_SHARE: Final = 0.005
"""Chance of an end-of-sequence token at each step, where the request does not ignore it."""


def block_hashes(words: Items[str], block_size: int, adapter: str | None = None) -> list[int]:
    """Hashes of the full blocks of a prompt, each of its tokens and all before.

    What one adapter computed is of no use to another, so they share no block.
    """
    hashes: list[int] = []
    before = 0 if adapter is None else hash(adapter)
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
    document_tokens: int | None = None
    """Tokens of an answer that is complete then; None: it ends by chance, or at its limit."""
    adapter: str | None = None
    draft_rng: random.Random | None = None
    """Which drafts are accepted; None: nothing is drafted for it. Apart from `rng`, so that
    speculation changes when a sequence gets its tokens, and never which."""
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

    def grow(self, tokens: int) -> int:
        """Add up to so many tokens, less where one of them is the last; how many it got."""
        complete = self.document_tokens
        if self.ignore_eos and complete is None and self.generated + tokens < self.max_tokens:
            self.generated += tokens
            return tokens
        for got in range(1, tokens + 1):
            self.generated += 1
            if self.generated == complete:
                self.finish_reason = "stop"
            elif self.generated >= self.max_tokens:
                self.finish_reason = "length"
            elif complete is None and not self.ignore_eos and self.rng.random() < EOS_SHARE:
                self.finish_reason = "stop"
            if self.finish_reason is not None:
                return got
        return tokens


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its time, the sequences that got tokens, those that ran for the first time."""

    duration_ms: float
    emitted: list[Sequence]
    tokens: list[int]
    """Tokens for each of `emitted`: one, and with speculation those that were accepted."""
    admitted: list[Sequence]


class Speculation:
    """Drafts and what became of them, as vLLM counts them."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._acceptance = config.acceptance
        self.drafts = 0
        self.draft_tokens = 0
        self.accepted_per_position = [0] * config.speculative_tokens

    @property
    def accepted_tokens(self) -> int:
        """Drafted tokens that were accepted."""
        return sum(self.accepted_per_position)

    def verify(self, drafted: int, rng: random.Random) -> int:
        """Count a draft; how many of its tokens are accepted, each only after the one before."""
        self.drafts += 1
        self.draft_tokens += drafted
        accepted = 0
        while accepted < drafted and rng.random() < self._acceptance:
            self.accepted_per_position[accepted] += 1
            accepted += 1
        return accepted


class Engine:
    """The state of the engine between steps."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self.pool = BlockPool(config.num_kv_blocks, caching=config.prefix_caching)
        self.speculation = Speculation(config)
        self._adapters: OrderedDict[str, None] = OrderedDict()
        """Those that are loaded; the most recently used is the last."""
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
        decoding: dict[Sequence, int] = {}  # and the tokens that were drafted for each
        admitted: list[Sequence] = []
        preempted_before = self.preemptions
        prefilled = loads = 0
        for sequence in list(self.running):
            if sequence not in self.running or not budget:
                continue  # preempted just now, or to go on in the next step
            missing = sequence.tokens - sequence.computed
            chunk = min(missing, budget)
            drafted = self._drafted(sequence, budget) if missing == 1 else 0
            if not self._make_room(sequence, chunk + drafted):
                continue
            budget -= chunk + drafted
            if missing > 1:
                prefilled += chunk
            sequence.computed += chunk
            if sequence.computed == sequence.tokens:
                decoding[sequence] = drafted
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
            loads += self._load(sequence.adapter)
            if not sequence.admitted:
                sequence.admitted = True
                admitted.append(sequence)
            budget -= chunk
            prefilled += chunk
            if sequence.computed == sequence.tokens:
                decoding[sequence] = 0
        emitted = [sequence for sequence in decoding if sequence in self.running]
        if not emitted and not prefilled:
            return Step(0.0, [], [], [])
        tokens = [self._emit(sequence, decoding[sequence]) for sequence in emitted]
        spent_us = config.decode_us * len(emitted) + config.prefill_us * prefilled
        spent_us += config.draft_us * sum(decoding[sequence] for sequence in emitted)
        loading_ms = config.lora_load_ms * loads
        return Step(config.step_ms + loading_ms + spent_us / 1000, emitted, tokens, admitted)

    def _drafted(self, sequence: Sequence, budget: int) -> int:
        """Tokens to draft: no more than may follow, so that a lone request always has room."""
        if sequence.draft_rng is None or not sequence.generated:
            return 0
        may_follow = sequence.max_tokens - sequence.generated - 1
        return min(self._config.speculative_tokens, budget - 1, may_follow)

    def _load(self, adapter: str | None) -> bool:
        """Make an adapter the most recently used; whether it had to be loaded."""
        if adapter is None:
            return False
        loaded = adapter in self._adapters
        self._adapters[adapter] = None
        self._adapters.move_to_end(adapter)
        if len(self._adapters) > self._config.max_loras:
            self._adapters.popitem(last=False)
        return not loaded

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

    def _emit(self, sequence: Sequence, drafted: int) -> int:
        """Give a sequence its tokens; how many."""
        if not sequence.generated:
            self.pool.publish(sequence.hashes, sequence.holding)
        accepted = 0
        if drafted and sequence.draft_rng is not None:
            accepted = self.speculation.verify(drafted, sequence.draft_rng)
        tokens = sequence.grow(1 + accepted)
        sequence.computed += tokens - 1  # the step computed them while it verified the draft
        if sequence.finish_reason is not None:
            self.running.remove(sequence)
            self.pool.release(sequence.holding)
        return tokens
