"""Answers of the stream as the workload knows them, and what they are worth."""

from __future__ import annotations

import msgspec

from kvswarm.records import Record
from kvswarm.scoring.score import score
from kvswarm.stream.deltas import Meaning
from kvswarm.workload.answers import Answer, tool_calls_of
from kvswarm.workload.requests import Expectation


def answer_of(meaning: Meaning) -> Answer:
    """What a stream said, as an answer."""
    return Answer(
        text="".join(meaning.text),
        tool_calls=tool_calls_of(meaning.tool_calls),
        finish_reason=meaning.finish_reason,
    )


def judged(record: Record, expectation: Expectation, meaning: Meaning) -> Record:
    """The record of a successful request with how its answer was judged."""
    found = score(expectation, answer_of(meaning))
    return msgspec.structs.replace(
        record, output_valid=found.valid, output_score=found.kind, output_detail=found.detail
    )
