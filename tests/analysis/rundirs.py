"""Run directories for tests, made by the writers that a run uses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jsonschema

from kvswarm.analysis.summary import summarise
from kvswarm.analysis.table import finish_table
from kvswarm.profiles.model import Lengths, Load, Profile, PromptSpec
from kvswarm.records import Record, encode_batch, pack_u32
from kvswarm.rundir import JournalWriter, RunDir, RunInfo, TargetInfo, WorkerInfo

START_NS: Final = 1_764_000_000_123_456_789
"""When the load of these runs begins: 2025, with odd digits so that rounding shows."""
MS: Final = 1_000_000
S: Final = 1_000_000_000
LENGTHS: Final = Lengths(kind="fixed", mean_tokens=16)


def profile(**changes: Any) -> Profile:
    """A closed loop of four users; `load` is a dict of changes to it."""
    load = {"pattern": "steady", "open_loop": False, "requests": 10, "concurrency": 4}
    load.update(changes.pop("load", {}))
    plain: dict[str, Any] = {
        "name": "case",
        "description": "a case",
        "load": Load(**load),
        "prompt": PromptSpec(input_tokens=LENGTHS, output_tokens=LENGTHS),
    }
    return Profile(**{**plain, **changes})


def open_profile(**changes: Any) -> Profile:
    """Arrivals at 100 a second."""
    load = {"pattern": "constant", "open_loop": True, "concurrency": None, "rate_rps": 100.0}
    return profile(load={**load, **changes.pop("load", {})}, **changes)


def timed_profile(duration_s: float, **changes: Any) -> Profile:
    """A closed loop that ends by time."""
    return profile(load={"requests": None, "duration_s": duration_s}, **changes)


def run_info(of: Profile | None = None, **changes: Any) -> RunInfo:
    """run.json of a run of ten seconds that ended well, with one worker."""
    plain: dict[str, Any] = {
        "run_id": "cafe01",
        "profile": (of or profile()).to_dict(),
        "seed": 7,
        "target": TargetInfo(base_url="http://127.0.0.1:8000/v1", model="m", endpoint="chat"),
        "argv": ["kvswarm", "run", "--model", "m"],
        "locust_argv": ["locust"],
        "versions": {"kvswarm": "0", "python": "3"},
        "host": {"name": "here"},
        "workers": [worker()],
        "started_ns": START_NS - 50 * MS,
        "load_started_ns": START_NS,
        "load_stopped_ns": START_NS + 10 * S,
        "ended_ns": START_NS + 11 * S,
        "ended": "completed",
    }
    return RunInfo(**{**plain, **changes})


def worker(**changes: Any) -> WorkerInfo:
    """One worker's last word."""
    return WorkerInfo(**{"worker": 0, "host": "here", "pid": 1, **changes})


def good(
    index: int,
    *,
    at_ms: float = 0.0,
    ttft_ms: float = 100.0,
    gaps_ms: Sequence[float] = (10.0, 10.0, 10.0),
    tail_ms: float = 1.0,
    **changes: Any,
) -> Record:
    """A successful request sent `at_ms` after the load began, `tail_ms` from last token to end."""
    sent_ns = START_NS + round(at_ms * MS)
    first_ns = sent_ns + round(ttft_ms * MS)
    gaps_us = [round(gap * 1000) for gap in gaps_ms]
    last_ns = first_ns + sum(gaps_us) * 1000
    plain: dict[str, Any] = {
        "index": index, "worker": 0, "phase": "measure", "scenario": "case", "endpoint": "chat",
        "intended_ns": sent_ns, "sent_ns": sent_ns, "first_byte_ns": first_ns - MS,
        "first_token_ns": first_ns, "last_token_ns": last_ns,
        "end_ns": last_ns + round(tail_ms * MS), "send_spread_us": 20, "http_status": 200,
        "finish_reason": "length", "asked_input_tokens": 16,
        "asked_output_tokens": len(gaps_us) + 1, "prompt_tokens": 16,
        "completion_tokens": len(gaps_us) + 1, "events": len(gaps_us) + 1,
        "packed_itl_us": pack_u32(gaps_us), "packed_read_lag_us": pack_u32([30] * (len(gaps_us) + 1)),
    }  # fmt: skip
    return Record(**{**plain, **changes})


def failed(index: int, kind: str, *, at_ms: float = 0.0, **changes: Any) -> Record:
    """A request that was sent and failed after a second, with latencies that must not count."""
    plain = {"error_kind": kind, "error_detail": "planted", "finish_reason": None}
    return good(index, at_ms=at_ms, ttft_ms=900.0, gaps_ms=(70.0, 70.0), **{**plain, **changes})


def unsent(index: int, kind: str = "connect", *, at_ms: float = 0.0, **changes: Any) -> Record:
    """A request that never reached the wire."""
    intended_ns = START_NS + round(at_ms * MS)
    plain: dict[str, Any] = {
        "index": index, "worker": 0, "phase": "measure", "scenario": "case", "endpoint": "chat",
        "intended_ns": intended_ns, "end_ns": intended_ns + 5 * MS, "error_kind": kind,
        "error_detail": "planted",
    }  # fmt: skip
    return Record(**{**plain, **changes})


MIXED: Final = [
    good(0, phase="warmup", ttft_ms=5000.0, gaps_ms=(500.0,) * 3, connect_us=90_000),
    good(1, at_ms=1000, connect_us=400),
    failed(2, "http_429", at_ms=1100, http_status=429, connect_us=80_000),
    failed(3, "stall", at_ms=1200),
    failed(4, "stall", at_ms=1300),
    failed(5, "cancelled", at_ms=1400),
    unsent(6, at_ms=1500),
    good(7, at_ms=1600, ttft_ms=200.0, gaps_ms=(20.0, 20.0, 20.0)),
    good(8, at_ms=9000, phase="cooldown", ttft_ms=5000.0, gaps_ms=(500.0,) * 3),
    failed(9, "http_500", at_ms=9100, phase="cooldown"),
]
"""Two measured successes of 100 and 200 ms amid everything that must not count."""


def write_run(
    path: Path, batches: Iterable[Sequence[Record]], info: RunInfo | None = None
) -> RunDir:
    """Write run.json and the journal, as the coordinator does."""
    path.mkdir(parents=True, exist_ok=True)
    run = RunDir(path)
    run.write_info(info or run_info())
    journal = JournalWriter(run.journal)
    for batch in batches:
        journal.append(encode_batch(batch))
    journal.close()
    return run


def summary_of(
    path: Path, records: Sequence[Record], info: RunInfo | None = None
) -> dict[str, Any]:
    """Write a run, make its table, and give the summary as JSON would hold it; without the page."""
    run = write_run(path, [records], info)
    summary: dict[str, Any] = json.loads(json.dumps(summarise(run, finish_table(run))))
    return summary


def summary_schema() -> dict[str, Any]:
    """The JSON Schema of summary.json, itself checked."""
    text = resources.files("kvswarm.analysis").joinpath("summary.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema
