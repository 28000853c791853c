"""A Benchmark Report v0.2 of llm-d: out of a run.

As llm-d/llm-d-benchmark defines it: benchmark-report/llmd_benchmark_report/br_v0_2_json_schema.json
of its package llmd-benchmark-report 0.2.1, which is `benchmark_report.schema.json` here, under
Apache-2.0: see NOTICE. That is the schema of revision 0.2.1, of which every report of 0.2 is one
too; what is written here declares 0.2, which readers of both revisions take.

Latencies are in ms, rates in tokens/s and queries/s. What the schema demands and kvswarm does not
know, such as the accelerators of a server, is not made up: the part is left out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import jsonschema

from kvswarm.analysis.blocks import Floats
from kvswarm.analysis.exchange.source import Source, spread
from kvswarm.analysis.schemas import validator
from kvswarm.errors import RunDirError

SCHEMA: Final = "exchange/benchmark_report.schema.json"

VERSION: Final = "0.2"
STATISTICS: Final = {
    "mean": "mean", "stddev": "std", "min": "min", "max": "max", "p0p1": "p0.1", "p1": "p1",
    "p5": "p5", "p10": "p10", "p25": "p25", "p50": "p50", "p75": "p75", "p90": "p90",
    "p95": "p95", "p99": "p99", "p99p9": "p99.9",
}  # fmt: skip
DISTRIBUTIONS: Final = {"fixed": "fixed", "uniform": "uniform", "normal": "gaussian"}


def exported(source: Source, *, detail: bool = True) -> dict[str, Any]:
    """A run as such a report, which has no part per request with `detail` too.

    Raises RunDirError where it would not be one by its schema.
    """
    del detail
    summary, info = source.summary, source.info
    duration_s = summary["duration_s"]
    report = {
        "version": VERSION,
        "run": {
            "uid": info.run_id,
            "time": {
                "start": summary["run"]["started"],
                "end": summary["run"]["ended_at"],
                "duration": None if duration_s is None else f"PT{duration_s:.6f}S",
            },
            "description": f"{source.made_by}: verdict {summary['verdict']['status']}",
        },
        "scenario": _scenario(source),
        "results": {"request_performance": {"aggregate": _aggregate(source)}},
    }
    try:
        validator(SCHEMA).validate(report)
    except jsonschema.ValidationError as error:
        raise RunDirError(
            f"the run makes no Benchmark Report: {error.json_path}: {error.message}",
            fix="Export it in another format.",
        ) from error
    return report


def _scenario(source: Source) -> dict[str, Any] | None:
    """The load as kvswarm was asked for it, and the server where its version is known."""
    profile, target = source.info.profile, source.info.target
    if not profile:  # imported: what was asked for is not known
        return None
    packed = json.dumps(profile, sort_keys=True).encode()
    service = target.service
    stack = []
    if target.server_version is not None:
        backend = service.backend if service is not None else None
        stack.append(
            {
                "metadata": {"label": "server", "cfg_id": _hash(target.server_version.encode())},
                "standardized": {
                    "kind": "generic",
                    "tool": backend or "openai-compatible",
                    "tool_version": target.server_version,
                    "model": target.model,
                },
                "native": {},
            }
        )
    prompt = profile["prompt"]
    return {
        "stack": stack or None,
        "load": {
            "metadata": {"cfg_id": _hash(packed), "description": profile["name"]},
            "standardized": {
                "tool": "kvswarm",
                "tool_version": source.info.versions.get("kvswarm", "unknown"),
                "parallelism": max(1, len(source.info.workers)),
                "source": "sampled" if prompt.get("prompts_file") else "random",
                "input_seq_len": _lengths(prompt["input_tokens"], source["prompt_tokens"]),
                "output_seq_len": _lengths(prompt["output_tokens"], source.output_tokens),
                "rate_qps": source.rate_rps,
                "concurrency": source.concurrency,
            },
            "native": {"config": profile},
        },
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lengths(asked: dict[str, Any], seen: Floats) -> dict[str, Any]:
    """As they were asked for; where that is a list or a file, their mean as it was seen."""
    kind = DISTRIBUTIONS.get(asked["kind"], "other")
    if kind in {"fixed", "gaussian"}:
        value, std = asked["mean_tokens"], asked["std_tokens"]
        return {
            "distribution": kind,
            "value": value,
            "std_dev": std if kind == "gaussian" else None,
            "min": asked["min_tokens"] if kind == "gaussian" else None,
            "max": asked["max_tokens"] if kind == "gaussian" else None,
        }
    if kind == "uniform":
        low, high = asked["min_tokens"], asked["max_tokens"]
        return {"distribution": kind, "value": (low + high) / 2, "min": low, "max": high}
    told = spread(seen[seen == seen])  # noqa: PLR0124 - without NaN
    return {"distribution": kind, "value": 0 if told is None else told["mean"]}


def _aggregate(source: Source) -> dict[str, Any]:
    requests, throughput = source.summary["requests"], source.summary["throughput"]
    output, prompt = throughput["output_tokens_per_s"], throughput["input_tokens_per_s"]
    total = None if output is None or prompt is None else output + prompt
    return {
        "requests": {
            "total": requests["sent"],
            "failures": requests["failed"],
            "incomplete": requests["cancelled"],
            "input_length": _statistics("count", source.good("prompt_tokens")),
            "output_length": _statistics("count", source.output_tokens[source.ok]),
        },
        "latency": {
            "time_to_first_token": _statistics("ms", source.good("ttft_ms")),
            "time_per_output_token": _statistics("ms/token", source.good("tpot_ms")),
            "inter_token_latency": _statistics("ms/token", source.good_gaps_ms),
            "request_latency": _statistics("ms", source.good("e2e_ms")),
        },
        "throughput": {
            "input_token_rate": _rate("tokens/s", prompt),
            "output_token_rate": _rate("tokens/s", output),
            "total_token_rate": _rate("tokens/s", total),
            "request_rate": _rate("queries/s", throughput["requests_per_s"]),
        },
    }


def _statistics(units: str, values: Floats) -> dict[str, Any] | None:
    told = spread(values)
    if told is None:
        return None
    return {"units": units, **{theirs: told[ours] for theirs, ours in STATISTICS.items()}}


def _rate(units: str, value: float | None) -> dict[str, Any] | None:
    return None if value is None else {"units": units, "mean": value}
