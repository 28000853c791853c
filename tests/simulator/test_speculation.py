"""Speculation and adapters: by hand on the engine, and over HTTP with its counters."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine, Sequence, block_hashes

sys.path.insert(0, str(Path(__file__).parent))
from simulating import CHAT, COMPLETIONS, FAST, parse_metrics, simulating, total

UNHURRIED = settings(deadline=None, max_examples=60)
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
SPECULATIVE = "vllm:spec_decode_num"


def config_of(**values: Any) -> SimulatorConfig:
    """Times that are easy to add: 10 ms, 1 ms a sequence, 0.1 ms a token, 0.5 ms a draft token."""
    easy = {"step_ms": 10.0, "decode_us": 1000.0, "prefill_us": 100.0, "draft_us": 500.0}
    return SimulatorConfig(**{**easy, "block_size": 4, "lora_load_ms": 40.0, **values})


def chance(seed: int) -> random.Random:
    """A source of chance."""
    return random.Random(seed)  # noqa: S311 - no secret


def sequence_of(prompt_tokens: int, max_tokens: int, **values: Any) -> Sequence:
    """A request that ignores the end of sequence, and is speculated on."""
    made: dict[str, Any] = {
        "ignore_eos": True, "hashes": [], "rng": chance(1), "draft_rng": chance(2),
    } | values  # fmt: skip
    return Sequence(prompt_tokens=prompt_tokens, max_tokens=max_tokens, **made)


def tokens_of(config: SimulatorConfig, *sequences: Sequence) -> tuple[list[Any], list[float], Any]:
    """Tokens of every step, times of every step, and the engine."""
    engine = Engine(config)
    for sequence in sequences:
        engine.add(sequence)
    tokens, times_ms = [], []
    while (step := engine.step()).duration_ms:
        tokens.append(step.tokens)
        times_ms.append(step.duration_ms)
    return tokens, times_ms, engine


def test_a_step_gives_what_was_accepted_and_one_more_and_never_too_much() -> None:
    """All accepted: 1 with the prompt, 4, 4, and the last draft is cut to what may follow."""
    config = config_of(speculative_tokens=3, acceptance=1.0)
    tokens, times_ms, engine = tokens_of(config, sequence_of(8, 11))
    assert tokens == [[1], [4], [4], [2]]
    assert times_ms == pytest.approx([11.8, 12.5, 12.5, 11.5])
    told = engine.speculation
    assert (told.drafts, told.draft_tokens, told.accepted_tokens) == (3, 7, 7)
    assert told.accepted_per_position == [3, 2, 2]


def test_what_is_not_accepted_costs_its_time_all_the_same() -> None:
    """None accepted: a token a step, and the drafts are paid for."""
    config = config_of(speculative_tokens=2, acceptance=0.0)
    tokens, times_ms, engine = tokens_of(config, sequence_of(4, 4))
    assert tokens == [[1]] * 4
    assert times_ms == pytest.approx([11.4, 12.0, 11.5, 11.0])
    assert (engine.speculation.drafts, engine.speculation.accepted_tokens) == (2, 0)


def test_a_position_is_accepted_only_after_the_one_before() -> None:
    """So counts fall from one position to the next, by the chance of each."""
    config = config_of(speculative_tokens=4, acceptance=0.6)
    _, _, engine = tokens_of(config, sequence_of(4, 6000))
    told = engine.speculation
    before = told.drafts
    for count in told.accepted_per_position:
        assert count / before == pytest.approx(0.6, abs=0.06)
        before = count
    mean = 1 + told.accepted_tokens / told.drafts
    assert mean == pytest.approx((1 - 0.6**5) / (1 - 0.6), rel=0.03)


def test_drafts_share_the_budget_and_leave_it_to_the_next() -> None:
    """Of 6 tokens a step, the first takes 1 + 3, and the second the two that are left."""
    config = config_of(speculative_tokens=3, acceptance=1.0, max_num_batched_tokens=6)
    tokens, _, _ = tokens_of(config, sequence_of(3, 9), sequence_of(3, 9))
    assert tokens[:3] == [[1, 1], [4, 2], [4, 2]]


@UNHURRIED
@given(seed=st.integers(0, 99), drafts=st.integers(1, 6), document=st.none() | st.integers(1, 40))
def test_speculation_changes_when_tokens_come_and_never_which(
    seed: int, drafts: int, document: int | None
) -> None:
    """An end of sequence, or of a document, within an accepted draft cuts the rest of it."""
    ends = []
    for speculative in (0, drafts):
        made = {"ignore_eos": False, "rng": chance(seed), "document_tokens": document}
        one = sequence_of(5, 300, **made)
        config = config_of(speculative_tokens=speculative)
        tokens, _, _ = tokens_of(config, one)
        assert sum(map(sum, tokens)) == one.generated
        ends.append((one.generated, one.finish_reason))
    assert ends[0] == ends[1]
    if document is not None:
        assert ends[0] == (document, "stop")


@BOTH
def test_a_step_is_one_event_with_the_ids_of_all_its_tokens(path: str) -> None:
    """As vLLM's chunks with speculation; the text is that of the same server without."""
    asked = {"stream": True, "max_tokens": 40, "return_token_ids": True}
    asked |= {"stream_options": {"include_usage": True}}
    with simulating(*FAST, "--seed", "3") as plain:
        text = "".join(plain.ask(path, **asked).tokens())
        assert not any(name.startswith(SPECULATIVE) for name, _ in plain.metrics())
    options = ("--speculative-tokens", "3", "--acceptance", "0.8", "--draft-us", "1")
    with simulating(*FAST, "--seed", "3", *options) as running:
        answer = running.ask(path, **asked)
        metrics = running.metrics()
    *chunks, last = answer.chunks()
    counts = [len(c["choices"][0].get("token_ids", ())) for c in chunks]
    events = [count for count in counts if count]
    assert "".join(answer.tokens()) == text
    assert (sum(events), last["usage"]["completion_tokens"], events[0]) == (40, 40, 1)
    assert {1, 4} <= {*events} <= {1, 2, 3, 4}
    accepted = total(metrics, f"{SPECULATIVE}_accepted_tokens_total")
    assert total(metrics, f"{SPECULATIVE}_drafts_total") == len(events) - 1 - (events[-1] == 1)
    assert 40 - len(events) == accepted
    per_position = [
        total(metrics, f"{SPECULATIVE}_accepted_tokens_per_pos_total", position=str(place))
        for place in range(3)
    ]
    assert sum(per_position) == accepted
    assert per_position == sorted(per_position, reverse=True)
    assert total(metrics, f"{SPECULATIVE}_draft_tokens_total") >= accepted
    assert total(metrics, "vllm:generation_tokens_total") == 40
    gaps = total(metrics, "vllm:inter_token_latency_seconds_count")
    assert gaps == len(events) - 1


def test_the_counters_are_those_of_vllm() -> None:
    """Names, types and labels, against a captured page."""
    page = (Path(__file__).parents[1] / "fixtures/metrics_ngram.prom").read_text().splitlines()
    with simulating(*FAST, "--speculative-tokens", "4") as running:
        text = running.get("/metrics").body.decode()
    ours = {
        (name, tuple(sorted(dict(labels) | {"model_name": ""})))
        for name, labels in parse_metrics(text)
        if "spec_decode" in name
    }
    real = parse_metrics("\n".join(line for line in page if line.startswith("vllm:spec")) + "\n")
    assert ours == {(n, tuple(sorted(dict(k)))) for n, k in real if not n.endswith("_created")}
    kinds = [line for line in text.splitlines() if line.startswith("# TYPE vllm:spec_decode")]
    assert {*kinds} <= {*page}


# -- adapters ------------------------------------------------------------------------------------


def admitted_ms(config: SimulatorConfig, *adapters: str | None) -> list[float]:
    """Times of the steps of one-token requests with these adapters, one after another."""
    engine = Engine(config)
    times_ms = []
    for adapter in adapters:
        engine.add(sequence_of(1, 1, adapter=adapter))
        times_ms.append(engine.step().duration_ms)
    return times_ms


def test_an_adapter_is_loaded_where_it_is_not_among_the_latest() -> None:
    """Two places: a third takes that of the one that was longest unused; the model needs none."""
    used = ("a", "b", "a", "c", "a", "b", None, "c")
    loads = [1, 1, 0, 1, 0, 1, 0, 1]
    times_ms = admitted_ms(config_of(max_loras=2), *used)
    assert times_ms == pytest.approx([11.1 + 40 * load for load in loads])
    assert admitted_ms(config_of(), "a", "a", "b", "a") == pytest.approx([51.1, 11.1, 51.1, 51.1])


def test_who_runs_beside_a_load_waits_for_it() -> None:
    """The step is as long for all."""
    engine = Engine(config_of(max_loras=2))
    engine.add(sequence_of(4, 5))
    engine.step()
    for name in ("a", "b"):
        engine.add(sequence_of(4, 2, adapter=name))
    step = engine.step()
    assert step.duration_ms == pytest.approx(10 + 3 + 0.8 + 2 * 40)
    assert len(step.emitted) == 3
    assert engine.step().duration_ms == pytest.approx(13)


def test_what_one_adapter_computed_is_of_no_use_to_another() -> None:
    """The keys and values differ, though the tokens are equal."""
    words = [f"w{place}" for place in range(12)]
    ways = [block_hashes(words, 4, adapter) for adapter in (None, "a", "b")]
    assert len({block for hashes in ways for block in hashes}) == 9


def test_adapters_are_models_to_a_client() -> None:
    """In the list, in requests and answers, in the cache, and in vLLM's gauge."""
    prompt = " ".join(f"word{place}" for place in range(40))
    options = ("--lora-modules", "one", "two", "--max-loras", "2", "--lora-load-ms", "1")
    with simulating(*FAST, *options) as running:
        cards = running.get("/v1/models").json()["data"]
        assert [(c["id"], c["root"], c["parent"]) for c in cards] == [
            ("sim", "sim", None), ("one", "one", "sim"), ("two", "two", "sim"),
        ]  # fmt: skip
        cached = []
        for model in ("sim", "one", "two", "one", "sim"):
            body = running.ask(model=model, prompt=prompt).json()
            assert body["model"] == model
            cached.append(body["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0, 0, 0, 32, 32]
        assert running.ask(model="three").status == 404
        info = "vllm:lora_requests_info"
        assert newest(running.metrics(), info)["running_lora_adapters"] == ""
        connection, response = running.hold(model="two", max_tokens=8000)
        running.wait_for(lambda metrics: newest(metrics, info)["running_lora_adapters"] == "two")
        labels = newest(running.metrics(), info)
        assert labels == {
            "max_lora": "2", "running_lora_adapters": "two", "waiting_lora_adapters": ""
        }  # fmt: skip
        response.close()
        connection.close()
        running.wait_for(lambda metrics: newest(metrics, info)["running_lora_adapters"] == "")
    with simulating(*FAST) as plain:
        assert info not in {name for name, _ in plain.metrics()}
        assert plain.ask(model="one").status == 404


def newest(metrics: Any, name: str) -> dict[str, str]:
    """The labels that were true last: the value is a time."""
    found = [(value, dict(labels)) for (one, labels), value in metrics.items() if one == name]
    return max(found, key=lambda pair: pair[0])[1]
