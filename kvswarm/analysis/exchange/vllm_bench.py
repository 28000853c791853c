"""The result file of `vllm bench serve`: out of a run, and into one.

As vllm-project/vllm writes it, vllm/benchmarks/serve.py of commit
009e6d4a1cd6ba3fb2a9fc00f4ec06f5297232a1: one flat object; with `--save-detailed`, arrays with an
element per request too. Times in the arrays are in seconds, the statistics in milliseconds.

Its TTFT is from before the request is written, connecting included, to the first chunk; its TPOT
is (latency - TTFT) / (output tokens - 1). A figure keeps the name, and is by kvswarm's definition
in what is exported, by vLLM's in what is imported without the arrays.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from kvswarm.analysis.exchange.imported_run import ImportedRun, Row, row_of
from kvswarm.analysis.exchange.reading import Count, Moment, Time, at, number
from kvswarm.analysis.exchange.source import Source, plain
from kvswarm.origin import ImportedInfo, ToldFigures

NAMES: Final = {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "itl_ms", "e2el": "e2e_ms"}
STATISTICS: Final = {
    "mean": "mean", "median": "p50", "std": "std", "p50": "p50", "p75": "p75", "p90": "p90",
    "p95": "p95", "p99": "p99", "p99.9": "p999",
}  # fmt: skip
DATE: Final = "%Y%m%d-%H%M%S"
CHAT: Final = "openai-chat"


class Result(msgspec.Struct, kw_only=True):
    """What is read of the file; it holds more."""

    model_id: str
    duration: Time
    completed: Count
    total_input_tokens: Count
    total_output_tokens: Count
    failed: Count | None = None
    """Older files have none."""
    num_prompts: Count | None = None
    date: str | None = None
    backend: str | None = None
    request_rate: float | str | None = None
    max_concurrency: int | None = None
    request_throughput: Time | None = None
    output_throughput: Time | None = None
    request_goodput: Time | None = None
    input_lens: list[Count | None] | None = None
    output_lens: list[Count | None] | None = None
    ttfts: list[Time | None] | None = None
    itls: list[list[Time]] | None = None
    latencies: list[Time | None] | None = None
    start_times: list[Moment | None] | None = None
    queue_times: list[float | None] | None = None
    errors: list[str] | None = None


def detected(content: Any) -> bool:
    """Whether an object looks like one of these."""
    return at(content, "model_id") is not None and at(content, "total_output_tokens") is not None


def exported(source: Source, *, detail: bool = True) -> dict[str, Any]:
    """A run as such a file. `detail`: with the arrays, as of `--save-detailed`."""
    summary, load = source.summary, source.load
    throughput, requests, tokens = (summary[k] for k in ("throughput", "requests", "tokens"))
    backend = CHAT if source.info.target.endpoint == "chat" else "openai"
    output, prompt = throughput["output_tokens_per_s"], throughput["input_tokens_per_s"]
    ended_ns = source.info.ended_ns
    result: dict[str, Any] = {
        "date": None if ended_ns is None else datetime.fromtimestamp(ended_ns / 1e9).strftime(DATE),  # noqa: DTZ006 - vLLM's date is of the machine's own clock
        "endpoint_type": backend,
        "backend": backend,
        "label": summary["run"]["profile"],
        "model_id": source.info.target.model,
        "tokenizer_id": None,
        "num_prompts": len(source),
        "made_by": source.made_by,
        "verdict": summary["verdict"]["status"],
        "request_rate": source.rate_rps or "inf",
        "burstiness": load.get("burstiness", 1.0),
        "max_concurrency": source.concurrency,
        "duration": summary["duration_s"],
        "completed": requests["ok"],
        "failed": requests["failed"] + requests["cancelled"],
        "total_input_tokens": tokens["prompt"],
        "total_output_tokens": tokens["completion"],
        "request_throughput": throughput["requests_per_s"],
        "request_goodput": source.goodput_rps,
        "output_throughput": output,
        "total_token_throughput": None if output is None or prompt is None else output + prompt,
    }
    for name, own in NAMES.items():
        for theirs, statistic in STATISTICS.items():
            result[f"{theirs}_{name}_ms"] = summary[own][statistic]
    return {**result, **(_arrays(source) if detail else {})}


def _arrays(source: Source) -> dict[str, Any]:
    ok = source.ok
    queue_s = (source["sent_ns"] - source["intended_ns"]) / 1e9
    texts = zip(source.texts["error_kind"], source.texts["error_detail"], strict=True)

    def of_ok(values: Any, missing: Any, *, whole: bool = False) -> list[Any]:
        # vLLM writes 0 for what a failed request has not.
        return [
            value if good else missing
            for value, good in zip(plain(values, whole=whole), ok, strict=True)
        ]

    return {
        "input_lens": plain(source["prompt_tokens"], whole=True),
        "output_lens": of_ok(source.output_tokens, 0, whole=True),
        "ttfts": of_ok(source["ttft_ms"] / 1e3, 0.0),
        "itls": [
            (source.gaps_of(place) / 1e6).tolist() if good else [] for place, good in enumerate(ok)
        ],
        "latencies": of_ok(source["e2e_ms"] / 1e3, 0.0),
        "start_times": plain(source.starts_s),
        "queue_times": plain(queue_s),
        "errors": ["" if kind is None else f"{kind}: {detail or ''}" for kind, detail in texts],
    }


def imported(content: Any, file: str) -> ImportedRun:
    """Such a file as a run. Raises msgspec.ValidationError where it is none."""
    result = msgspec.convert(content, Result)
    rows, notes = _rows(result)
    ended_ns = _ended_ns(result)
    started_ns = None if ended_ns is None else ended_ns - round(result.duration * 1e9)
    if ended_ns is not None:
        notes.append("the file tells no time zone: its date was taken as of this machine's")
    failed = result.failed
    if failed is None:
        failed = max(0, (result.num_prompts or result.completed) - result.completed)
    rate = result.request_rate
    return ImportedRun(
        imported=ImportedInfo(
            tool="vllm-bench",
            version=None,
            file=file,
            has_rows=rows is not None,
            concurrency=result.max_concurrency,
            rate_rps=rate if isinstance(rate, float) else None,
            figures=ToldFigures(
                sent=result.completed + failed,
                ok=result.completed,
                failed=failed,
                duration_s=result.duration,
                requests_per_s=result.request_throughput,
                output_tokens_per_s=result.output_throughput,
                input_tokens_per_s=(
                    result.total_input_tokens / result.duration if result.duration > 0 else None
                ),
                goodput_requests_per_s=result.request_goodput,
                prompt_tokens=result.total_input_tokens,
                completion_tokens=result.total_output_tokens,
                latencies={own: _statistics(content, name) for name, own in NAMES.items()},
            ),
        ),
        model=result.model_id,
        endpoint=_endpoint(result.backend),
        started_ns=started_ns,
        ended_ns=ended_ns,
        rows=_placed(rows, started_ns),
        notes=notes,
    )


def _statistics(content: Any, name: str) -> dict[str, float | None]:
    told: dict[str, float | None] = {}
    for theirs, statistic in STATISTICS.items():
        value = number(at(content, f"{theirs}_{name}_ms"))
        if value is not None:
            told[statistic] = value
    return told


def _endpoint(backend: str | None) -> str | None:
    if backend is None:
        return None
    return "chat" if "chat" in backend else "completions"


def _ended_ns(result: Result) -> int | None:
    """The file's date is taken when all is over."""
    try:
        local = datetime.strptime(result.date or "", DATE)  # noqa: DTZ007 - the file tells none
    except ValueError:
        return None
    return round(local.astimezone().timestamp() * 1e9)


def _rows(result: Result) -> tuple[list[Row] | None, list[str]]:
    """A row per request, its moments in ns after the first; None without the arrays."""
    ttfts, gaps, lengths, errors = result.ttfts, result.itls, result.output_lens, result.errors
    if ttfts is None or gaps is None or lengths is None or errors is None:
        return None, ["the file has no arrays (--save-detailed): only its sums are known"]
    count = len(ttfts)
    starts = [None] * count if result.start_times is None else result.start_times
    sizes = {len(each) for each in (gaps, lengths, errors, starts)}
    if sizes != {count}:
        raise msgspec.ValidationError("arrays have unlike lengths - at `$.ttfts`, `$.itls`, ...")
    notes = []
    if result.start_times is None:
        notes.append("the file has no `start_times`: its own duration and rates are used")
    if result.latencies is None:
        notes.append("the file has no `latencies`: E2E ends with the last chunk")
    first = min((start for start in starts if start is not None), default=0.0)
    prompts, ends, queues = result.input_lens, result.latencies, result.queue_times
    rows = []
    for place, (ttft, start) in enumerate(zip(ttfts, starts, strict=True)):
        row = row_of(place, _endpoint(result.backend))
        if start is not None:
            row["sent_ns"] = round((start - first) * 1e9)
            queue = _element(queues, place)
            row["intended_ns"] = None if queue is None else row["sent_ns"] - round(queue * 1e9)
        row["prompt_tokens"] = _element(prompts, place)
        # An answer without a chunk is one that failed, whether or not it left a message.
        if errors[place] or (not ttft and not lengths[place]):
            row.fail(_kind(errors[place]), errors[place])
        elif ttft is not None:
            e2e = _element(ends, place)
            row.answer(ttft, gaps[place], ttft + sum(gaps[place]) if e2e is None else e2e)
            row.tokens(lengths[place])
        rows.append(row)
    return rows, notes


def _element(values: list[Any] | None, place: int) -> Any:
    return values[place] if values is not None and place < len(values) else None


def _kind(text: str) -> str:
    """The error's kind where kvswarm wrote it, else that another tool did."""
    kind = text.partition(":")[0]
    return kind if kind.isidentifier() else "other_tool"


def _placed(rows: list[Row] | None, started_ns: int | None) -> list[Row] | None:
    for row in rows or ():
        row.shift(started_ns or 0)
    return rows
