"""The engine's schedule: what must hold at every step of any workload, and times by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine, Sequence, Step, block_hashes

UNHURRIED = settings(deadline=None, max_examples=60)


def config_of(**values: Any) -> SimulatorConfig:
    """A small engine whose times are easy to add: 10 ms, 1 ms a sequence, 0.1 ms a token."""
    easy = {"step_ms": 10.0, "decode_us": 1000.0, "prefill_us": 100.0, "block_size": 4}
    return SimulatorConfig(**{**easy, **values})


def sequence_of(
    config: SimulatorConfig, prompt: str, max_tokens: int, *, eos_seed: int | None = None
) -> Sequence:
    """A request as the server makes it; without a seed it ignores the end of sequence."""
    words = prompt.split()
    return Sequence(
        prompt_tokens=len(words),
        max_tokens=max_tokens,
        ignore_eos=eos_seed is None,
        hashes=block_hashes(words, config.block_size) if config.prefix_caching else [],
        rng=random.Random(eos_seed),  # noqa: S311 - no secret
        draft_rng=random.Random(prompt) if config.speculative_tokens else None,  # noqa: S311
    )


def words(count: int, name: str = "w") -> str:
    """A prompt of so many tokens, none of them in a prompt of another name."""
    return " ".join(f"{name}{i}" for i in range(count))


def started(config: SimulatorConfig, *prompts: tuple[str, int]) -> tuple[Engine, list[Sequence]]:
    """An engine with these prompts and numbers of tokens to generate."""
    engine = Engine(config)
    sequences = [sequence_of(config, prompt, max_tokens) for prompt, max_tokens in prompts]
    for sequence in sequences:
        engine.add(sequence)
    return engine, sequences


def finish(engine: Engine) -> list[Step]:
    """Step until nothing is left; the steps."""
    steps = []
    while (step := engine.step()).duration_ms:
        steps.append(step)
    assert (engine.running, list(engine.waiting)) == ([], [])
    return steps


@dataclass(frozen=True)
class Arrival:
    """A request that comes, and perhaps leaves, before these steps."""

    step: int
    prompt: str
    max_tokens: int
    eos_seed: int | None
    leaves_at: int | None


@st.composite
def workloads(draw: st.DrawFn) -> tuple[SimulatorConfig, list[Arrival]]:
    """A tight engine, and requests that fit it, many with a prefix in common."""
    config = config_of(
        max_num_seqs=draw(st.integers(1, 5)),
        max_num_batched_tokens=draw(st.integers(1, 24)),
        num_kv_blocks=draw(st.integers(2, 16)),
        block_size=draw(st.integers(1, 5)),
        prefix_caching=draw(st.booleans()),
        speculative_tokens=draw(st.sampled_from([0, 0, 1, 4])),
        acceptance=draw(st.sampled_from([0.0, 0.6, 1.0])),
        draft_us=0.0,
    )
    room = config.num_kv_blocks * config.block_size
    arrivals = []
    for place in range(draw(st.integers(1, 8))):
        max_tokens = draw(st.integers(1, min(12, room - 1)))
        prompt_tokens = draw(st.integers(1, min(20, room - max_tokens)))
        name = draw(st.sampled_from(["shared", f"own{place}-"]))
        step = draw(st.integers(0, 12))
        leaves_at = draw(st.none() | st.integers(step, step + 15))
        eos_seed = draw(st.none() | st.integers(0, 9))
        arrivals.append(Arrival(step, words(prompt_tokens, name), max_tokens, eos_seed, leaves_at))
    return config, arrivals


@dataclass
class Drive:
    """An engine that is driven over arrivals, and checked at every step."""

    config: SimulatorConfig
    arrivals: list[Arrival]
    engine: Engine = field(init=False)
    sequences: dict[int, Sequence] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    admitted: list[int] = field(default_factory=list)
    durations_ms: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine(self.config)

    def run(self) -> None:
        """Drive to the end."""
        # The oldest gets a token, or a chunk of its prompt, in every step: so it must end by then.
        most = 20 + sum(len(a.prompt.split()) + 2 * a.max_tokens + 30 for a in self.arrivals) * 2
        for step in range(most):
            self._come_and_go(step)
            if not self._step() and step > 30:
                return
        pytest.fail("the engine does not end")

    def _come_and_go(self, step: int) -> None:
        for place, arrival in enumerate(self.arrivals):
            if arrival.step == step:
                asked = (self.config, arrival.prompt, arrival.max_tokens)
                sequence = sequence_of(*asked, eos_seed=arrival.eos_seed)
                assert self.engine.fits(sequence.prompt_tokens, sequence.max_tokens)
                self.sequences[place] = sequence
                self.engine.add(sequence)
            if arrival.leaves_at == step and self.sequences[place].finish_reason is None:
                self.engine.drop(self.sequences[place])
                self.left.add(place)

    def _step(self) -> bool:
        engine, config = self.engine, self.config
        had_work = bool(engine.running or engine.waiting)
        generated = {place: s.generated for place, s in self.sequences.items()}
        computed = {s: s.computed for s in engine.running}
        preemptions = engine.preemptions
        step = engine.step()
        emitted = [place for place, s in self.sequences.items() if s in step.emitted]
        assert len(step.emitted) == len(set(step.emitted)) == len(emitted)
        got = dict(zip(step.emitted, step.tokens, strict=True))
        assert all(1 <= tokens <= 1 + config.speculative_tokens for tokens in step.tokens)
        for place, sequence in self.sequences.items():
            assert sequence.generated - generated[place] == got.get(sequence, 0)
            assert sequence.generated <= sequence.max_tokens
        assert len(engine.running) <= config.max_num_seqs
        assert (step.duration_ms > 0) == had_work
        if engine.preemptions > preemptions:
            assert {*engine.running} <= {*computed}, "nothing starts on what was just taken"
        self._check_budget(step, computed)
        self._check_blocks()
        self.admitted += [p for s in step.admitted for p, q in self.sequences.items() if q is s]
        self.durations_ms.append(step.duration_ms)
        self.tokens.append([p for p in emitted for _ in range(got[self.sequences[p]])])
        return had_work

    def _check_budget(self, step: Step, computed: dict[Sequence, int]) -> None:
        """All tokens that were computed in the step, but for those from the prefix cache."""
        spent = 0
        for sequence in {*step.emitted, *self.engine.running}:
            if sequence in computed and sequence.computed > computed[sequence]:
                spent += sequence.computed - computed[sequence]
            elif sequence not in computed and not self.config.prefix_caching:
                spent += sequence.computed
        assert spent <= self.config.max_num_batched_tokens
        if step.duration_ms:
            spent_us = (step.duration_ms - self.config.step_ms) * 1000
            prefill_us = spent_us - len(step.emitted) * self.config.decode_us
            prefilled = prefill_us / self.config.prefill_us
            assert -0.001 < prefilled < self.config.max_num_batched_tokens + 0.001

    def _check_blocks(self) -> None:
        engine = self.engine
        held = [s.holding for s in engine.running]
        in_use = sum(h.own for h in held) + len({block for h in held for block in h.shared})
        assert all(h.own >= 0 for h in held)
        assert engine.pool.available == self.config.num_kv_blocks - in_use >= 0
        assert engine.pool.used_share == pytest.approx(in_use / self.config.num_kv_blocks)
        for sequence in engine.running:
            assert sequence.holding.blocks * self.config.block_size >= sequence.computed
        for sequence in self.sequences.values():
            assert sequence in engine.running or not sequence.holding.blocks


@UNHURRIED
@given(workloads())
def test_whatever_comes_and_goes_every_request_ends_with_all_its_tokens(
    workload: tuple[SimulatorConfig, list[Arrival]],
) -> None:
    """Drive checks batch, budget, tokens and blocks at each step; here is what must be at the end."""
    drive = Drive(*workload)
    drive.run()
    for place, arrival in enumerate(drive.arrivals):
        sequence = drive.sequences[place]
        emitted = sum(tokens.count(place) for tokens in drive.tokens)
        assert emitted == sequence.generated <= arrival.max_tokens
        if place in drive.left:
            assert sequence.finish_reason is None
        elif sequence.finish_reason == "stop":
            assert arrival.eos_seed is not None
            assert 1 <= sequence.generated < arrival.max_tokens
        else:
            assert (sequence.finish_reason, sequence.generated) == ("length", arrival.max_tokens)
    engine = drive.engine
    assert (engine.running, list(engine.waiting)) == ([], [])
    assert (engine.pool.available, engine.pool.used_share) == (drive.config.num_kv_blocks, 0.0)
    came = sorted(drive.admitted, key=lambda place: (drive.arrivals[place].step, place))
    assert drive.admitted == came, "first come, first served"
    assert {*range(len(drive.arrivals))} - drive.left <= {*drive.admitted}
    ran = [drive.sequences[place] for place in drive.admitted]
    assert engine.prefix_queries == sum(s.prompt_tokens for s in ran)
    assert engine.prefix_hits == sum(s.cached_tokens for s in ran) < max(1, engine.prefix_queries)
    if not drive.config.prefix_caching:
        assert engine.prefix_hits == 0


@UNHURRIED
@given(workloads())
def test_the_same_requests_give_the_same_tokens_at_the_same_times(
    workload: tuple[SimulatorConfig, list[Arrival]],
) -> None:
    """A simulated run can be repeated."""
    first, second = Drive(*workload), Drive(*workload)
    first.run()
    second.run()
    assert first.durations_ms == second.durations_ms
    assert first.tokens == second.tokens


@UNHURRIED
@given(workloads())
def test_without_shared_prefixes_caching_changes_nothing(
    workload: tuple[SimulatorConfig, list[Arrival]],
) -> None:
    """Kept blocks must be as good as free ones."""
    config, arrivals = workload
    # Plenty of blocks, as a preempted sequence would find its own prompt again.
    plenty = {"num_kv_blocks": 500, "max_num_seqs": config.max_num_seqs}
    apart = [
        Arrival(a.step, words(len(a.prompt.split()), f"p{place}-"), a.max_tokens, a.eos_seed, None)
        for place, a in enumerate(arrivals)
    ]
    drives = [Drive(config_of(prefix_caching=on, **plenty), apart) for on in (True, False)]
    for drive in drives:
        drive.run()
        assert drive.engine.preemptions == drive.engine.prefix_hits == 0
    assert drives[0].durations_ms == drives[1].durations_ms


@UNHURRIED
@given(prompt=st.integers(1, 200), max_tokens=st.integers(1, 20), budget=st.integers(1, 64))
def test_a_lone_request_takes_its_chunks_and_then_a_step_per_token(
    prompt: int, max_tokens: int, budget: int
) -> None:
    """The formula of docs/simulator.md, with an oracle that knows no schedule."""
    config = config_of(max_num_batched_tokens=budget)
    engine, _ = started(config, (words(prompt), max_tokens))
    steps = finish(engine)
    chunks = -(-prompt // budget)
    assert [len(step.emitted) for step in steps] == [0] * (chunks - 1) + [1] * max_tokens
    times_ms = [step.duration_ms for step in steps]
    # The last chunk counts as a decode where it is one token of many.
    alone = chunks > 1 and (prompt - 1) % budget == 0
    ttft_ms = chunks * 10 + (prompt - alone) * 0.1 + 1
    assert sum(times_ms[:chunks]) == pytest.approx(ttft_ms)
    assert times_ms[chunks:] == [11.0] * (max_tokens - 1)


def test_a_steps_time_grows_with_the_batch_and_with_what_is_prefilled() -> None:
    """Three prompts of 8 in one step, then three decodes, then two."""
    engine, _ = started(config_of(), (words(8, "a"), 2), (words(8, "b"), 3), (words(8, "c"), 3))
    assert [step.duration_ms for step in finish(engine)] == pytest.approx([10 + 3 + 2.4, 13, 12])


def test_a_long_prompt_is_prefilled_in_chunks_beside_those_that_decode() -> None:
    """Chunked prefill: the running sequence gets a token in every step, and pays for the chunk."""
    config = config_of(max_num_batched_tokens=10)
    engine, [short] = started(config, (words(4, "a"), 20))
    engine.step()
    long = sequence_of(config, words(45, "b"), 2)
    engine.add(long)
    for _ in range(4):
        step = engine.step()
        assert step.emitted == [short]
        assert step.duration_ms == pytest.approx(10 + 1 + 9 * 0.1)
    step = engine.step()
    assert step.emitted == [short, long]
    assert step.duration_ms == pytest.approx(10 + 2 + 9 * 0.1)
    assert len(finish(engine)) == 14


def test_requests_over_the_batch_size_wait_for_their_turn() -> None:
    """max_num_seqs bounds what runs; the next starts in the step after one has ended."""
    engine, four = started(config_of(max_num_seqs=2), *[(words(3, n), 3) for n in "abcd"])
    assert [engine.step().emitted for _ in range(6)] == [four[:2]] * 3 + [four[2:]] * 3


def test_when_the_cache_is_full_the_newest_is_preempted_and_computed_anew() -> None:
    """Two of 8 + 8 tokens need 8 blocks of 4, there are 6: one must yield, and loses no token."""
    config = config_of(num_kv_blocks=6, prefix_caching=False)
    engine, [older, newer] = started(config, (words(8, "a"), 8), (words(8, "b"), 8))
    for _ in range(5):
        assert engine.step().emitted == [older, newer]
    later = sequence_of(config, words(8, "c"), 1)
    engine.add(later)
    step = engine.step()
    while step.emitted == [older]:
        step = engine.step()
        if older.finish_reason is None:
            assert list(engine.waiting) == [newer, later], "it is the first to come back"
            assert (newer.computed, newer.holding.blocks, newer.generated) == (0, 0, 5)
    assert (older.finish_reason, older.generated) == ("length", 8)
    assert engine.preemptions == 1
    # Its prompt of 8 and its 5 tokens are prefilled in one step, which gives the sixth.
    assert step.emitted == [newer, later]
    assert step.duration_ms == pytest.approx(10 + 2 + (13 + 8) * 0.1)
    assert [step.emitted for step in finish(engine)] == [[newer]] * 2
    assert (newer.finish_reason, newer.generated) == ("length", 8)
    assert engine.pool.available == 6


def test_what_needs_more_than_the_whole_cache_does_not_fit() -> None:
    """Such a request would wait for ever."""
    engine = Engine(config_of(num_kv_blocks=3))
    assert engine.fits(4, 8)
    assert not engine.fits(5, 8)


@pytest.mark.parametrize(
    ("again", "prefilled", "cached"),
    [(words(14) + " other words", 4, 12), (words(14), 2, 12), (words(12), 1, 11), ("x", 1, 0)],
    ids=["longer", "the same", "known whole: one is left to decode from", "another"],
)
def test_a_known_prefix_is_not_computed_again(again: str, prefilled: int, cached: int) -> None:
    """Of a prompt of 14, 3 blocks of 4 are full and known afterwards."""
    config = config_of()
    engine, [first] = started(config, (words(14), 2))
    finish(engine)
    assert (engine.prefix_queries, engine.prefix_hits, first.cached_tokens) == (14, 0, 0)
    sequence = sequence_of(config, again, 1)
    engine.add(sequence)
    assert engine.step().duration_ms == pytest.approx(10 + 1 + prefilled * 0.1)
    assert (sequence.cached_tokens, engine.prefix_hits) == (cached, cached)
    assert engine.prefix_queries == 14 + sequence.prompt_tokens


def test_a_prefix_in_use_is_shared_and_takes_no_more_blocks() -> None:
    """Two of 16 + 4 tokens: 4 blocks in common and one of its own each."""
    config = config_of(num_kv_blocks=50)
    engine, [_] = started(config, (words(16), 4))
    engine.step()
    engine.add(sequence_of(config, words(16) + " x", 4))
    engine.step()
    assert engine.pool.available == 50 - 4 - 2


def test_the_prefix_that_was_longest_unused_is_evicted_first() -> None:
    """Room for 4 blocks: a and b are kept, c needs 2, so a goes and b stays."""
    config = config_of(num_kv_blocks=4)
    engine, _ = started(config, (words(7, "a"), 1), (words(7, "b"), 1))
    finish(engine)
    hits = {}
    for name, tokens in (("c", 12), ("b", 5), ("a", 5)):
        sequence = sequence_of(config, words(tokens, name), 1)
        engine.add(sequence)
        finish(engine)
        hits[name] = sequence.cached_tokens
    assert hits == {"c": 0, "b": 4, "a": 0}


@UNHURRIED
@given(
    same=st.integers(0, 40),
    rest=st.integers(0, 40),
    more=st.integers(0, 40),
    size=st.integers(1, 9),
)
def test_prompts_share_hashes_for_as_many_blocks_as_they_share_from_the_start(
    same: int, rest: int, more: int, size: int
) -> None:
    """A block is its tokens and all before: equal words after a difference are another block."""
    common, tail = words(same, "s").split(), words(more, "t").split()
    first = block_hashes([*common, "A", *words(rest, "a").split(), *tail], size)
    second = block_hashes([*common, "B", *words(rest, "a").split(), *tail], size)
    equal = [a == b for a, b in zip(first, second, strict=True)]
    assert len(equal) == (same + 1 + rest + more) // size
    assert equal == [place < same // size for place in range(len(equal))]


def test_ends_of_sequence_come_at_random_about_every_200_tokens() -> None:
    """Geometric with 0.005; the seeds are fixed, so this is one number, not a chance."""
    config = config_of(max_num_seqs=1000, num_kv_blocks=10**6, max_num_batched_tokens=10**4)
    engine = Engine(config)
    sequences = [sequence_of(config, f"p{seed}", 5000, eos_seed=seed) for seed in range(500)]
    for sequence in sequences:
        engine.add(sequence)
    finish(engine)
    assert {sequence.finish_reason for sequence in sequences} == {"stop"}
    mean = sum(sequence.generated for sequence in sequences) / len(sequences)
    assert 170 < mean < 230
