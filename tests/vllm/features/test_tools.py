"""The tool-calling profile: calls as vLLM's hermes parser gives them, and how they are scored."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from judging import call_kind
from measuring import Measured, check_served, measure, refined
from serving import Server
from tapping import Exchanged, tapping

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

FORCED = ["named", "required"]


def scored_run(
    server: Server, runs: Path, profile: Path, requests: int
) -> tuple[Measured, list[Exchanged]]:
    """Run through the tap. Every attempt must have counted what the server did."""
    with tapping(server) as (tapped, seen):
        flags = ["--requests", str(requests)]
        run = measure(tapped, runs, "--profile", str(profile), *flags)
    logger.info("%s, attempt %d\n%s", profile.stem, len(run.attempts), run.output)
    for attempt in run.attempts:
        check_served(attempt)
    return run, seen[-requests:]


def kinds_told(run: Measured) -> Counter[tuple[object, ...]]:
    """Tokens and score of every first turn, as kvswarm has them."""
    rows = run.rows[run.rows["variant"] != "after result"]
    columns = ("prompt_tokens", "completion_tokens", "finish_reason", "output_score")
    return Counter(zip(*(rows[name].tolist() for name in columns), strict=True))


def kinds_judged(seen: list[Exchanged]) -> Counter[tuple[object, ...]]:
    """The same by what went over the wire, judged here."""
    return Counter(
        (
            one.usage["prompt_tokens"],
            one.usage["completion_tokens"],
            one.finish_reason,
            call_kind(one),
        )
        for one in seen
        if one.asked["tool_choice"] != "none"
    )


@pytest.fixture(scope="module")
def measured(
    server: Server, runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Measured, list[Exchanged]]:
    """A run with all ways of choosing, and arguments that the server holds to their schema."""
    choice = "tool_calling: {choice: {auto: 1, required: 1, named: 1}, no_call_share: 0.5}"
    directory = tmp_path_factory.mktemp("profile")
    profile = refined("tool-calling", server, directory, "warmup: null", choice)
    return scored_run(server, runs, profile, 48)


def test_every_score_is_that_of_another_judge(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """The pieces of a call are put together again here, and its arguments held to their schema."""
    run, seen = measured
    assert kinds_told(run) == kinds_judged(seen)


def test_forced_calls_are_sound_unless_max_tokens_cut_them(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """With strict, random weights make sound calls; under `required`, of any function."""
    rows = measured[0].rows
    for variant in FORCED:
        scores = rows[rows["variant"] == variant]["output_score"]
        assert len(scores) > 6
        assert set(scores) & {"valid", "wrong_function"}
    # The server may write a 31 February, which no pattern of a date keeps out.
    days = rows["output_detail"].str.contains('the schema wants format "date', na=False)
    named = rows[(rows["variant"] == "named") & ~days]
    required = rows[(rows["variant"] == "required") & ~days]
    assert set(named["output_score"]) <= {"valid", "truncated"}
    assert set(required["output_score"]) <= {"valid", "truncated", "wrong_function"}
    for calls, reason in ((named, "stop"), (required, "tool_calls")):
        is_cut = calls["output_score"] == "truncated"
        assert set(calls["finish_reason"][~is_cut]) == {reason}
        assert set(calls["finish_reason"][is_cut]) <= {"length"}


def test_without_a_choice_random_weights_call_nothing(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """Wrong where a function was asked for, and right where none was."""
    rows = measured[0].rows
    assert set(rows[rows["variant"] == "auto"]["output_score"]) == {"no_call"}
    assert set(rows[rows["variant"] == "no call"]["output_score"]) == {"valid"}


def test_tpot_of_calls_leaves_out_what_the_parser_holds_back(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """The name of a function comes with many tokens at once, and its closing tag never."""
    rows = measured[0].rows
    forced = rows[rows["variant"].isin(FORCED) & (rows["output_score"] != "truncated")]
    assert (forced["first_event_tokens"] > 5).all()
    for tokens, all_tokens, tpot_ms, gaps_us in zip(
        forced["event_tokens"],
        forced["completion_tokens"],
        forced["tpot_ms"],
        forced["itl_us"],
        strict=True,
    ):
        assert sum(tokens) < all_tokens
        assert tpot_ms == pytest.approx(sum(gaps_us) / 1e3 / sum(tokens[1:]), rel=0.01)
    logger.info(
        "calls: %.1f tokens in the first event, %.1f after the last, of %.1f",
        forced["first_event_tokens"].mean(),
        forced["completion_tokens"].mean() - forced["event_tokens"].map(sum).mean(),
        forced["completion_tokens"].mean(),
    )


def test_junk_is_scored_as_junk_where_nothing_holds_the_arguments(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """Without strict, vLLM forces a call and lets its arguments be any JSON."""
    loose = (
        "tool_calling: {choice: {auto: 0, required: 1, named: 1}, strict: false, no_call_share: 0}"
    )
    profile = refined("tool-calling", server, tmp_path, "warmup: null", loose)
    run, seen = scored_run(server, runs, profile, 24)
    assert kinds_told(run) == kinds_judged(seen)
    assert "bad_json" in set(run.rows["output_score"])
    assert not any("strict" in tool["function"] for one in seen for tool in one.asked["tools"])


def test_results_go_back_and_are_answered_in_words(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """The server takes the history with the call and its result, and calls no more."""
    twice = "tool_calling: {choice: named, no_call_share: 0, second_turn: true}"
    profile = refined("tool-calling", server, tmp_path, "warmup: null", "concurrency: 4", twice)
    run, seen = scored_run(server, runs, profile, 16)
    assert kinds_told(run) == kinds_judged(seen)
    second = run.rows[run.rows["turn"] == 1]
    assert len(second) > 3
    assert set(second["variant"]) == {"after result"}
    assert second["output_score"].isna().all()
    for one in seen:
        if one.asked["tool_choice"] == "none":
            assert [message["role"] for message in one.asked["messages"]] == [
                "user",
                "assistant",
                "tool",
            ]
            assert one.texts
            assert not one.calls
