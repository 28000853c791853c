"""The structured-output profile: constraints that vLLM holds, and scores that jsonschema gives too."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from judging import form_kind
from measuring import Measured, check_served, measure, refined
from serving import Server
from tapping import Exchanged, tapping

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

FORMS = ["contact", "date", "events", "order", "outline", "person", "sentiment", "ticket"]
BOUNDED = ["date", "sentiment", "ticket"]
"""Forms that random tokens end within MAX_TOKENS."""
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def measured(
    server: Server, runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Measured, list[Exchanged]]:
    """A run of the profile, and what went over the wire in the attempt that counts."""
    profile = refined("structured-output", server, tmp_path_factory.mktemp("profile"))
    return scored_run(server, runs, profile, 48)


def scored_run(
    server: Server, runs: Path, profile: Path, requests: int
) -> tuple[Measured, list[Exchanged]]:
    """Run through the tap. Every attempt must have counted what the server did."""
    with tapping(server) as (tapped, seen):
        flags = ["--requests", str(requests), "--max-tokens", str(MAX_TOKENS)]
        run = measure(tapped, runs, "--profile", str(profile), *flags)
    logger.info("%s, attempt %d\n%s", profile.stem, len(run.attempts), run.output)
    for attempt in run.attempts:
        check_served(attempt)
    return run, seen[-requests:]


def kinds_told(run: Measured) -> Counter[tuple[object, ...]]:
    """Tokens and score of every answer, as kvswarm has them."""
    rows = run.rows
    scores = [score if isinstance(score, str) else None for score in rows["output_score"]]
    columns = (rows["prompt_tokens"], rows["completion_tokens"], rows["finish_reason"])
    return Counter(zip(*(column.tolist() for column in columns), scores, strict=True))


def kinds_judged(seen: list[Exchanged]) -> Counter[tuple[object, ...]]:
    """The same by what went over the wire, judged here."""
    return Counter(
        (
            one.usage["prompt_tokens"],
            one.usage["completion_tokens"],
            one.finish_reason,
            form_kind(one),
        )
        for one in seen
    )


def test_every_score_is_that_of_another_judge(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """A scorer that agrees with itself proves nothing."""
    run, seen = measured
    assert kinds_told(run) == kinds_judged(seen)


def test_constrained_answers_are_valid_unless_max_tokens_cut_them(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """The server holds random weights to every form; only a 31 February gets through."""
    run, _ = measured
    constrained = run.rows[run.rows["variant"] == "constrained"]
    assert sorted(set(constrained["case"])) == FORMS
    bad = constrained[constrained["output_score"] == "invalid"]
    assert bad["output_detail"].str.contains('the schema wants format "date').all()
    assert set(constrained["output_score"]) - {"invalid"} == {"valid", "truncated"}
    is_cut = constrained["output_score"] == "truncated"
    assert (constrained["finish_reason"][is_cut] == "length").all()
    assert (constrained["completion_tokens"][is_cut] == MAX_TOKENS).all()
    assert (constrained["finish_reason"][~is_cut] == "stop").all()
    valid_cases = set(constrained["case"][constrained["output_score"] == "valid"])
    assert valid_cases.issuperset(BOUNDED)


def test_controls_are_not_scored_and_stand_against_the_constrained(
    measured: tuple[Measured, list[Exchanged]],
) -> None:
    """What constraints cost is told from pairs, and the valid share is of the constrained alone."""
    run, _ = measured
    rows, outputs = run.rows[run.rows["phase"] == "measure"], run.summary["outputs"]
    assert Counter(rows["variant"]) == {"constrained": 16, "control": 16}
    assert rows["output_score"][rows["variant"] == "control"].isna().all()
    assert outputs["checked"] == 16
    assert outputs["valid"] == (rows["output_score"] == "valid").sum()
    effects = {effect["figure"]: effect for effect in run.summary["effects"]}
    assert effects["ttft_ms"]["of"] == "constrained"
    assert effects["ttft_ms"]["against"] == "control"
    assert effects["ttft_ms"]["count"] == 16


def test_forms_hold_too_where_they_are_sent_as_vllms_own_member(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """`via: structured_outputs` is another way into the server, with the same answers."""
    via = "structured_output: {via: structured_outputs, control: false}"
    profile = refined("structured-output", server, tmp_path, "warmup: null", via)
    run, seen = scored_run(server, runs, profile, 16)
    assert Counter(next(iter(one.asked["structured_outputs"])) for one in seen) == {
        "json": 12, "regex": 2, "choice": 2,
    }  # fmt: skip
    assert not any("response_format" in one.asked for one in seen)
    assert kinds_told(run) == kinds_judged(seen)
    assert "valid" in set(run.rows["output_score"])
