"""The part of run.json that only a run has which another tool measured."""

from __future__ import annotations

import msgspec


class ToldFigures(msgspec.Struct, kw_only=True):
    """What the file of another tool says of its own run. None: it does not."""

    sent: int
    ok: int
    failed: int
    cancelled: int = 0
    duration_s: float | None = None
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    input_tokens_per_s: float | None = None
    goodput_requests_per_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latencies: dict[str, dict[str, float | None]] = {}
    """`ttft_ms`, ... to statistics of it, in ms, by the names of summary.json."""


class ImportedInfo(msgspec.Struct, kw_only=True):
    """Where an imported run came from."""

    tool: str
    version: str | None = None
    file: str
    """Name of the file that was imported."""
    has_rows: bool
    """Whether it told of each request; else `figures` are all there is."""
    concurrency: int | None = None
    rate_rps: float | None = None
    figures: ToldFigures
