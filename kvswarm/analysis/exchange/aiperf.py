"""The result files of aiperf: `profile_export_aiperf.json` out of a run, and both of its into one.

As ai-dynamo/aiperf writes them: src/aiperf/exporters/metrics_json_exporter.py of commit
047d59dd4bca43ff272f46c6b4af0ebb62cb8ad0 (sums, `{metric: {unit, avg, p1, ...}}`, whose members are
those of schema 1.4, JsonExportData in src/aiperf/common/models/export_models.py), and
docs/tutorials/working-with-profile-exports.md of commit 13992dbd96879c76e9584f2e8dc05db49bee6cf2
(`profile_export.jsonl`, an object per request).

Its `inter_token_latency` is (request latency - TTFT) / (output tokens - 1), so it is TPOT here;
`inter_chunk_latency`, a list per request, holds the gaps.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from kvswarm.analysis.exchange.imported_run import ImportedRun, Row, row_of
from kvswarm.analysis.exchange.reading import Count, Time, at, number, text, whole
from kvswarm.analysis.exchange.source import Source, spread
from kvswarm.analysis.run_facts import moment
from kvswarm.origin import ImportedInfo, ToldFigures

SCHEMA_VERSION: Final = "1.4"
LATENCIES: Final = {
    "time_to_first_token": "ttft_ms", "inter_token_latency": "tpot_ms",
    "inter_chunk_latency": "itl_ms", "request_latency": "e2e_ms",
}  # fmt: skip
STATISTICS: Final = {
    "avg": "mean", "min": "min", "max": "max", "std": "std", "p50": "p50", "p75": "p75",
    "p90": "p90", "p95": "p95", "p99": "p99", "count": "count",
}  # fmt: skip
PERCENTILES: Final = ("p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99")
TO_MS: Final = {"ms": 1.0, "sec": 1e3, "s": 1e3, "us": 1e-3, "ns": 1e-6}


def detected(content: Any) -> bool:
    """Whether an object looks like one of these."""
    return _is_line(content) or at(content, "request_latency", "unit") is not None


def _is_line(content: Any) -> bool:
    return at(content, "metadata", "request_start_ns") is not None


def parts(values: list[Any]) -> list[Any]:
    """The runs of a file: all lines of JSON lines are one."""
    return [values] if _is_line(values[0]) else values


def exported(source: Source, *, detail: bool = True) -> dict[str, Any]:
    """A run as a `profile_export_aiperf.json`, which has no part per request with `detail` too."""
    del detail
    summary = source.summary
    throughput, requests = summary["throughput"], summary["requests"]
    values = {
        "time_to_first_token": ("ms", source.good("ttft_ms")),
        "inter_token_latency": ("ms", source.good("tpot_ms")),
        "inter_chunk_latency": ("ms", source.good_gaps_ms),
        "request_latency": ("ms", source.good("e2e_ms")),
        "input_sequence_length": ("tokens", source.good("prompt_tokens")),
        "output_sequence_length": ("tokens", source.output_tokens[source.ok]),
    }
    sums = {
        "request_count": ("requests", requests["ok"]),
        "error_request_count": ("requests", requests["failed"] + requests["cancelled"]),
        "request_throughput": ("requests/sec", throughput["requests_per_s"]),
        "output_token_throughput": ("tokens/sec", throughput["output_tokens_per_s"]),
        "total_output_tokens": ("tokens", summary["tokens"]["completion"]),
        "benchmark_duration": ("sec", summary["duration_s"]),
        "goodput": ("requests/sec", source.goodput_rps),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "made_by": source.made_by,
        "verdict": summary["verdict"]["status"],
        "benchmark_id": source.info.run_id,
        "input_config": _config(source),
        "was_cancelled": summary["run"]["ended"] != "completed",
        "is_complete": summary["run"]["ended"] is not None,
        "error_summary": [
            {"error_details": {"type": kind, "message": kind}, "count": count}
            for kind, count in requests["by_error"].items()
        ],
        "start_time": moment(source.info.started_ns),
        "end_time": moment(source.info.ended_ns),
        **{name: _metric(unit, spread(found)) for name, (unit, found) in values.items()},
        **{
            name: {"unit": unit, "avg": value}
            for name, (unit, value) in sums.items()
            if value is not None
        },
    }


def _config(source: Source) -> dict[str, Any]:
    target = source.info.target
    return {
        "endpoint": {
            "model_names": [target.model],
            "type": target.endpoint,
            "urls": [target.base_url],
            "streaming": True,
        },
        "loadgen": {"concurrency": source.concurrency, "request_rate": source.rate_rps},
    }


def _metric(unit: str, told: dict[str, float] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    plain = {"unit": unit, "avg": told["mean"], **{name: told[name] for name in PERCENTILES}}
    return plain | {name: told[name] for name in ("min", "max", "std", "count", "sum")}


class Metadata(msgspec.Struct):
    """Of one request."""

    request_start_ns: int
    request_end_ns: int | None = None
    benchmark_phase: str | None = None
    was_cancelled: bool = False


class Error(msgspec.Struct):
    """Why one failed."""

    code: int | str | None = None
    type: str | None = None
    message: str | None = None


class Line(msgspec.Struct):
    """What is read of a line of `profile_export.jsonl`."""

    metadata: Metadata
    metrics: dict[str, Any] | None = None
    error: Error | None = None


def imported(content: Any, file: str) -> ImportedRun:
    """Such a file as a run. Raises msgspec.ValidationError where it is none."""
    return _from_lines(content, file) if isinstance(content, list) else _from_sums(content, file)


def _from_sums(content: Any, file: str) -> ImportedRun:
    ok = whole(at(content, "request_count", "avg"))
    if ok is None:
        raise msgspec.ValidationError("has no number of requests - at `$.request_count.avg`")
    failed = whole(at(content, "error_request_count", "avg")) or 0
    duration_s = _average(content, "benchmark_duration")
    prompt, completion = (
        whole(at(content, f"{name}_sequence_length", "sum")) for name in ("input", "output")
    )
    if completion is None:
        completion = whole(at(content, "total_output_tokens", "avg"))
    endpoint = text(at(content, "input_config", "endpoint", "type"))
    return ImportedRun(
        imported=ImportedInfo(
            tool="aiperf",
            version=text(at(content, "aiperf_version")),
            file=file,
            has_rows=False,
            concurrency=whole(at(content, "input_config", "loadgen", "concurrency")),
            rate_rps=number(at(content, "input_config", "loadgen", "request_rate")),
            figures=ToldFigures(
                sent=ok + failed,
                ok=ok,
                failed=failed,
                duration_s=duration_s,
                requests_per_s=_average(content, "request_throughput"),
                output_tokens_per_s=_average(content, "output_token_throughput"),
                input_tokens_per_s=prompt / duration_s if prompt and duration_s else None,
                goodput_requests_per_s=_average(content, "goodput"),
                prompt_tokens=prompt,
                completion_tokens=completion,
                latencies={own: _told(content, name) for name, own in LATENCIES.items()},
            ),
        ),
        model=text(at(content, "input_config", "endpoint", "model_names", 0)),
        endpoint=endpoint if endpoint in {"chat", "completions"} else None,
        base_url=text(at(content, "input_config", "endpoint", "urls", 0)),
        started_ns=_ns(at(content, "start_time")),
        ended_ns=_ns(at(content, "end_time")),
        ended=None if _is_cut_off(content) else "completed",
        notes=["the file has no requests (profile_export.jsonl has): only its sums are known"],
    )


def _is_cut_off(content: Any) -> bool:
    return at(content, "was_cancelled") is True or at(content, "is_complete") is False


def _average(content: Any, name: str) -> float | None:
    value = number(at(content, name, "avg"))
    return value if value is not None and value >= 0 else None


def _told(content: Any, name: str) -> dict[str, float | None]:
    factor = TO_MS.get(text(at(content, name, "unit")) or "")
    if factor is None:
        return {}
    told: dict[str, float | None] = {}
    for theirs, statistic in STATISTICS.items():
        value = number(at(content, name, theirs))
        if value is not None and value >= 0:
            told[statistic] = value if theirs == "count" else value * factor
    return told


def _ns(told: Any) -> int | None:
    """Of a date and time; one without a time zone is of the machine's own clock."""
    try:
        return round(datetime.fromisoformat(told).timestamp() * 1e9)
    except (TypeError, ValueError, OverflowError):
        return None


def _from_lines(lines: list[Any], file: str) -> ImportedRun:
    read = msgspec.convert(lines, list[Line])
    rows = [_row(place, line) for place, line in enumerate(read)]
    measured = [row for row in rows if row["phase"] == "measure"]
    failed = sum(row.get("error_kind") is not None for row in measured)
    return ImportedRun(
        imported=ImportedInfo(
            tool="aiperf",
            file=file,
            has_rows=True,
            figures=ToldFigures(sent=len(measured), ok=len(measured) - failed, failed=failed),
        ),
        started_ns=min(line.metadata.request_start_ns for line in read),
        ended_ns=max((line.metadata.request_end_ns or 0 for line in read), default=0) or None,
        rows=rows,
        notes=["the file tells neither model nor target"],
    )


class Measured(msgspec.Struct):
    """What is read of a request's metrics, in ms."""

    time_to_first_token: Time
    request_latency: Time
    inter_chunk_latency: list[Time] | None = None
    input_sequence_length: Count | None = None
    output_sequence_length: Count | None = None


def _row(place: int, line: Line) -> Row:
    row = row_of(place, None)
    told = line.metadata
    row["sent_ns"] = told.request_start_ns
    if told.benchmark_phase == "warmup":
        row["phase"] = "warmup"
    if line.error is not None or told.was_cancelled:
        error = line.error or Error()
        row["end_ns"] = told.request_end_ns
        kind = error.type or "other_tool"
        row.fail("cancelled" if told.was_cancelled else kind, error.message)
        return row
    measured = msgspec.convert(_values(line.metrics or {}), Measured)
    ttft_s, e2e_s = measured.time_to_first_token / 1e3, measured.request_latency / 1e3
    gaps_ms = measured.inter_chunk_latency
    row.answer(ttft_s, [gap_ms / 1e3 for gap_ms in gaps_ms or ()], e2e_s)
    # Without the gaps it is not known when the last token came: aiperf takes the end for it.
    row.tokens(measured.output_sequence_length, None if gaps_ms else e2e_s - ttft_s)
    if gaps_ms is None:
        row["last_token_ns"] = None
    row["prompt_tokens"] = measured.input_sequence_length
    return row


def _values(metrics: dict[str, Any]) -> dict[str, Any]:
    """The values of a request's metrics; times in ms, whatever their unit."""
    values = {}
    for name, each in metrics.items():
        value, factor = at(each, "value"), TO_MS.get(text(at(each, "unit")) or "", 1.0)
        if factor != 1.0 and isinstance(value, list):
            value = [part * factor if number(part) is not None else part for part in value]
        elif factor != 1.0 and number(value) is not None:
            value *= factor
        values[name] = value
    return values
