"""The `benchmarks.json` of guidellm: out of a run, and into one.

As vllm-project/guidellm writes it: src/guidellm/benchmark/schemas/generative/{report,benchmark}.py
of commit 03820eba155d34eb602244535cc2412c32af6f54, metrics.py beside them and
src/guidellm/schemas/request_stats.py of commit 06cef2910dc1517f863ce09ff118af07d463d055. A file
holds a run for each rate; requests are by status, times in s since 1970.

Its `inter_token_latency_ms` is (last token - first token) / (output tokens - 1) of a request, so
it is TPOT here, and there are no gaps. Its sums weight a request by its tokens and take 0 for what
is missing, so that a run is counted from its requests wherever all of them are in the file.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from kvswarm.analysis.blocks import Floats
from kvswarm.analysis.exchange.imported_run import ImportedRun, Row, row_of
from kvswarm.analysis.exchange.reading import Count, Moment, at, number, text, whole
from kvswarm.analysis.exchange.source import Source, spread
from kvswarm.origin import ImportedInfo, ToldFigures

STATISTICS: Final = {"mean": "mean", "min": "min", "max": "max", "std_dev": "std", "count": "count"}
PERCENTILES: Final = {
    "p001": "p0.1", "p01": "p1", "p05": "p5", "p10": "p10", "p25": "p25", "p50": "p50",
    "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9",
}  # fmt: skip
TOLD_PERCENTILES: Final = ("p50", "p75", "p90", "p95", "p99", "p999")
LATENCIES: Final = {
    "time_to_first_token_ms": ("ttft_ms", 1.0), "inter_token_latency_ms": ("tpot_ms", 1.0),
    "request_latency": ("e2e_ms", 1e3),
}  # fmt: skip
"""Theirs, to ours and the factor that makes it ms."""


def detected(content: Any) -> bool:
    """Whether an object looks like one of these."""
    return at(content, "benchmarks", 0, "metrics") is not None


def parts(values: list[Any]) -> list[Any]:
    """The runs of a file, each with what the file says of all."""
    found = at(values[0], "benchmarks")
    if not isinstance(found, list) or not found:
        raise msgspec.ValidationError("has no runs - at `$.benchmarks`")
    return [{"file": values[0], "benchmark": each} for each in found]


def exported(source: Source, *, detail: bool = True) -> dict[str, Any]:
    """A run as such a file, of one run. `detail`: with its requests.

    What guidellm tells of its own scheduler is left out, so its own `from-file` does not take it.
    """
    summary, requests = source.summary, source.summary["requests"]
    throughput = summary["throughput"]
    times = source["sent_ns"], source["end_ns"]
    start_s = float(np.fmin.reduce(times[0])) / 1e9
    end_s = float(np.fmax.reduce(times[1])) / 1e9
    counts = {
        "successful": requests["ok"],
        "incomplete": requests["cancelled"],
        "errored": requests["failed"],
        "total": requests["sent"],
    }
    per_token = (source["last_token_ns"] - source["sent_ns"]) / 1e6 / source.output_tokens
    good = per_token[source.ok & (source.output_tokens > 0)]
    values = {
        "request_latency": source.good("e2e_ms") / 1e3,
        "prompt_token_count": source.good("prompt_tokens"),
        "output_token_count": source.output_tokens[source.ok],
        "time_to_first_token_ms": source.good("ttft_ms"),
        "time_per_output_token_ms": good[~np.isnan(good)],
        "inter_token_latency_ms": source.good("tpot_ms"),
    }
    rates = {
        "requests_per_second": throughput["requests_per_s"],
        "prompt_tokens_per_second": throughput["input_tokens_per_s"],
        "output_tokens_per_second": throughput["output_tokens_per_s"],
    }
    target = source.info.target
    return {
        "made_by": source.made_by,
        "args": {"target": target.base_url, "model": target.model},
        "benchmarks": [
            {
                "type_": "generative_benchmark",
                "id_": source.info.run_id,
                "verdict": summary["verdict"]["status"],
                "config": {"strategy": _strategy(source)},
                "scheduler_metrics": {
                    "measure_start_time": start_s,
                    "measure_end_time": end_s,
                    "requests_made": counts,
                },
                "metrics": {
                    "request_totals": counts,
                    **{name: _of_ok(_distribution(found)) for name, found in values.items()},
                    **{name: _of_ok({"mean": rate}) for name, rate in rates.items()},
                },
                "requests": _requests(source) if detail else None,
                "start_time": start_s,
                "end_time": end_s,
                "duration": end_s - start_s,
            }
        ],
    }


def _strategy(source: Source) -> dict[str, Any]:
    if source.concurrency is not None:
        return {"type_": "concurrent", "streams": source.concurrency}
    pattern = source.load.get("pattern")
    kind = pattern if pattern in {"constant", "poisson"} else "async"
    return {"type_": kind, "rate": source.rate_rps}


def _of_ok(distribution: dict[str, Any] | None) -> dict[str, Any]:
    return {"successful": distribution, "incomplete": None, "errored": None, "total": None}


def _distribution(values: Floats) -> dict[str, Any] | None:
    told = spread(values)
    if told is None:
        return None
    return {
        "mean": told["mean"],
        "median": told["p50"],
        "variance": told["std"] ** 2,
        "std_dev": told["std"],
        "min": told["min"],
        "max": told["max"],
        "count": told["count"],
        "total_sum": told["sum"],
        "percentiles": {theirs: told[ours] for theirs, ours in PERCENTILES.items()},
    }


def _requests(source: Source) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"successful": [], "incomplete": [], "errored": []}
    for place, kind in enumerate(source.texts["error_kind"]):
        status = "successful" if kind is None else "errored"
        found["incomplete" if kind == "cancelled" else status].append(_request(source, place))
    return found


def _request(source: Source, place: int) -> dict[str, Any]:
    def value(name: str) -> float | None:
        found = float(source[name][place])
        return None if np.isnan(found) else found

    def second(name: str) -> float | None:
        found = value(name)
        return None if found is None else found / 1e9

    start_s, end_s = second("sent_ns"), second("end_ns")
    kind = source.texts["error_kind"][place]
    output = None if kind is not None else float(source.output_tokens[place])
    e2e_ms = value("e2e_ms")
    return {
        "type_": "generative_request_stats",
        "request_id": f"{source.info.run_id}-{round(source['index'][place])}",
        "info": {
            "status": {None: "completed", "cancelled": "cancelled"}.get(kind, "errored"),
            "error": None if kind is None else source.texts["error_detail"][place] or kind,
            "timings": {
                "targeted_start": second("intended_ns"),
                "request_start": start_s,
                "first_token_iteration": second("first_token_ns"),
                "last_token_iteration": second("last_token_ns"),
                "token_iterations": round(value("events") or 0),
                "request_end": end_s,
            },
        },
        "request_start_time": start_s,
        "request_end_time": end_s,
        "request_latency": None if e2e_ms is None else e2e_ms / 1e3,
        "prompt_tokens": value("prompt_tokens"),
        "output_tokens": output,
        "time_to_first_token_ms": value("ttft_ms"),
        "inter_token_latency_ms": value("tpot_ms"),
    }


class Timings(msgspec.Struct):
    """Of one request; the moments are s since 1970."""

    targeted_start: Moment | None = None
    request_start: Moment | None = None
    first_token_iteration: Moment | None = None
    last_token_iteration: Moment | None = None
    token_iterations: Count = 0
    request_end: Moment | None = None


class Info(msgspec.Struct):
    """What its scheduler knew of a request."""

    timings: Timings
    error: str | None = None


class Request(msgspec.Struct):
    """What is read of one request."""

    info: Info
    prompt_tokens: float | None = None
    output_tokens: float | None = None


class Requests(msgspec.Struct):
    """Requests by status."""

    successful: list[Request] | None = None
    incomplete: list[Request] | None = None
    errored: list[Request] | None = None


class Benchmark(msgspec.Struct):
    """What is read of one run."""

    metrics: dict[str, Any]
    requests: Requests | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None


def imported(content: Any, file: str) -> ImportedRun:
    """A run of such a file. Raises msgspec.ValidationError where it is none."""
    benchmark = msgspec.convert(content["benchmark"], Benchmark)
    told = _told(benchmark)
    rows = _rows(benchmark)
    # Only a sample of the requests may be in the file, which is then no run to count.
    whole_run = _ok(rows) == told.ok and told.ok > 0
    strategy = at(content, "benchmark", "config", "strategy")
    notes = ["guidellm tells no gaps between tokens: ITL is not known"]
    if not whole_run:
        notes.append(f"the file has {_ok(rows)} of {told.ok} requests: only its sums are used")
    start, end = benchmark.start_time, benchmark.end_time
    return ImportedRun(
        imported=ImportedInfo(
            tool="guidellm",
            version=text(at(content, "file", "metadata", "guidellm_version")),
            file=file,
            has_rows=whole_run,
            concurrency=whole(at(strategy, "streams")),
            rate_rps=number(at(strategy, "rate")),
            figures=told,
        ),
        model=_backend(content, "model"),
        base_url=_backend(content, "target"),
        started_ns=None if start is None else round(start * 1e9),
        ended_ns=None if end is None else round(end * 1e9),
        rows=rows if whole_run else None,
        notes=notes,
    )


def _backend(content: Any, name: str) -> str | None:
    """What was asked for, wherever its versions tell it."""
    places = (
        ("benchmark", "config", "backend"),
        ("file", "args"),
        ("file", "args", "backend_kwargs"),
        ("file", "config", "spec", "backend"),
    )
    found = (text(at(content, *place, name)) for place in places)
    return next((each for each in found if each is not None), None)


def _ok(rows: list[Row]) -> int:
    return sum(row["phase"] == "measure" and row.get("error_kind") is None for row in rows)


def _told(benchmark: Benchmark) -> ToldFigures:
    metrics = benchmark.metrics
    totals = at(metrics, "request_totals")
    ok = whole(at(totals, "successful"))
    if ok is None:
        raise msgspec.ValidationError("has no count - at `$.metrics.request_totals.successful`")
    failed, cancelled = (whole(at(totals, name)) or 0 for name in ("errored", "incomplete"))
    start, end = benchmark.start_time, benchmark.end_time

    def of_ok(name: str, statistic: str) -> float | None:
        value = number(at(metrics, name, "successful", statistic))
        return value if value is not None and value >= 0 else None

    return ToldFigures(
        sent=ok + failed + cancelled,
        ok=ok,
        failed=failed,
        cancelled=cancelled,
        duration_s=end - start if start is not None and end is not None and end > start else None,
        requests_per_s=of_ok("requests_per_second", "mean"),
        output_tokens_per_s=of_ok("output_tokens_per_second", "mean"),
        input_tokens_per_s=of_ok("prompt_tokens_per_second", "mean"),
        prompt_tokens=whole(of_ok("prompt_token_count", "total_sum")),
        completion_tokens=whole(of_ok("output_token_count", "total_sum")),
        latencies={
            own: _latency(at(metrics, name, "successful"), factor)
            for name, (own, factor) in LATENCIES.items()
        },
    )


def _latency(distribution: Any, factor: float) -> dict[str, float | None]:
    found = {ours: number(at(distribution, theirs)) for theirs, ours in STATISTICS.items()}
    found |= {name: number(at(distribution, "percentiles", name)) for name in TOLD_PERCENTILES}
    return {
        name: value if name == "count" else value * factor
        for name, value in found.items()
        if value is not None and value >= 0
    }


def _rows(benchmark: Benchmark) -> list[Row]:
    found = benchmark.requests or Requests()
    groups = (
        (None, found.successful),
        ("other_tool", found.errored),
        ("cancelled", found.incomplete),
    )
    pairs = [(kind, request) for kind, group in groups for request in group or ()]
    pairs.sort(key=lambda pair: pair[1].info.timings.request_start or 0.0)
    return [_row(place, kind, request, benchmark) for place, (kind, request) in enumerate(pairs)]


def _row(place: int, kind: str | None, request: Request, benchmark: Benchmark) -> Row:
    row, timings = row_of(place, None), request.info.timings
    start, first = timings.request_start, timings.first_token_iteration
    last, end = timings.last_token_iteration, timings.request_end
    row["phase"] = _phase(start, end, benchmark)
    row["sent_ns"], row["end_ns"], row["intended_ns"] = map(
        _ns, (start, end, timings.targeted_start)
    )
    if kind is not None:
        row.fail(kind, request.info.error)
    elif start is None or first is None or end is None:
        row.fail("other_tool", "the file does not tell its times")
    else:
        row.answer(first - start, [], end - start)
        row["events"] = timings.token_iterations
        row["last_token_ns"] = _ns(last)
        from_first_s = None if last is None else last - first
        row.tokens(whole(request.output_tokens), from_first_s)
        if from_first_s is None:
            row["tpot_ms"] = None
        row["prompt_tokens"] = whole(request.prompt_tokens)
    return row


def _phase(start: float | None, end: float | None, benchmark: Benchmark) -> str:
    """As guidellm does: what ended before the measurement, or began after it, is not of it."""
    if end is not None and benchmark.start_time is not None and end < benchmark.start_time:
        return "warmup"
    if start is not None and benchmark.end_time is not None and start > benchmark.end_time:
        return "cooldown"
    return "measure"


def _ns(moment_s: float | None) -> int | None:
    return None if moment_s is None else round(moment_s * 1e9)
