"""A run's file of genai-bench: out of a run.

As sgl-project/genai-bench writes it, one for each scenario and concurrency in an experiment's
folder; of commit d3cb7ce85b3056133c4f234ba692c593d1de67f2, the folder parallel_feature_branch has
one: D100_100_text-to-text_zai-org_GLM-4.6_num_concurrency_1_time_300s.json. Times are in seconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from kvswarm.analysis.blocks import Floats
from kvswarm.analysis.exchange.source import Source, plain, spread

STATISTICS: Final = {
    "min": "min", "max": "max", "mean": "mean", "stddev": "std", "sum": "sum", "p25": "p25",
    "p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99",
}  # fmt: skip
NOT_TOLD: Final = ("network_dns_time", "network_tls_time")
"""kvswarm times name, connection and TLS together, as `network_connect_time`."""


def exported(source: Source, *, detail: bool = True) -> dict[str, Any]:
    """A run as such a file. `detail`: with its requests."""
    summary, columns = source.summary, _columns(source)
    throughput, requests = summary["throughput"], summary["requests"]
    rates = throughput["input_tokens_per_s"], throughput["output_tokens_per_s"]
    errors = requests["failed"] + requests["cancelled"]
    codes = source["http_status"][~source.ok]
    starts_s = source.starts_s[~np.isnan(source.starts_s)]
    span_s = float(starts_s.max()) if len(starts_s) else 0.0
    closed = source.concurrency is not None
    found = {
        "aggregated_metrics": {
            "scenario": summary["run"]["profile"],
            "num_concurrency": source.concurrency,
            "batch_size": 1,
            "iteration_type": "num_concurrency" if closed else "request_rate",
            "request_rate": source.rate_rps,
            "run_duration": summary["duration_s"],
            "mean_output_throughput_tokens_per_s": rates[1],
            "mean_input_throughput_tokens_per_s": rates[0],
            "mean_total_tokens_throughput_tokens_per_s": (
                None if rates[0] is None or rates[1] is None else rates[0] + rates[1]
            ),
            "mean_total_chars_per_hour": None,
            "requests_per_second": throughput["requests_per_s"],
            "error_codes_frequency": {
                str(round(code)): count
                for code, count in Counter(codes.tolist()).items()
                if code == code  # noqa: PLR0124 - NaN: no status came
            },
            "error_rate": errors / requests["sent"] if requests["sent"] else None,
            "num_error_requests": errors,
            "num_completed_requests": requests["ok"],
            "num_requests": requests["sent"],
            "total_arrivals": requests["sent"],
            "arrival_requests_per_second": len(starts_s) / span_s if span_s else None,
            "stats": {
                name: _statistics(values[source.ok & ~np.isnan(values)])
                for name, values in columns.items()
            },
            "made_by": source.made_by,
            "verdict": summary["verdict"]["status"],
        },
    }
    return {
        **found,
        **({"individual_request_metrics": _requests(source, columns)} if detail else {}),
    }


def _columns(source: Source) -> dict[str, Floats]:
    """Per request, by genai-bench's names and in its units; NaN: missing."""
    ttft_s, e2e_s = source["ttft_ms"] / 1e3, source["e2e_ms"] / 1e3
    prompt, output = source["prompt_tokens"], source.output_tokens
    later_s = e2e_s - ttft_s
    missing = np.full(len(source), np.nan)
    return {
        "ttft": ttft_s,
        "tpot": source["tpot_ms"] / 1e3,
        "e2e_latency": e2e_s,
        "output_latency": later_s,
        "output_inference_speed": _divided(np.ones(len(source)), source["tpot_ms"] / 1e3),
        "num_input_tokens": prompt,
        "num_output_tokens": output,
        "total_tokens": prompt + output,
        "input_throughput": _divided(prompt, ttft_s),
        "output_throughput": _divided(output - 1, later_s),
        "network_connect_time": source["connect_us"] / 1e6,
        **dict.fromkeys(NOT_TOLD, missing),
    }


def _divided(amount: Floats, by: Floats) -> Floats:
    """NaN where it is by nothing."""
    quotients: Floats = np.divide(amount, by, out=np.full(len(by), np.nan), where=by > 0)
    return quotients


def _statistics(values: Floats) -> dict[str, float | None]:
    told = spread(values)
    return {theirs: None if told is None else told[ours] for theirs, ours in STATISTICS.items()}


def _requests(source: Source, columns: dict[str, Floats]) -> list[dict[str, Any]]:
    lists = {
        name: plain(np.where(source.ok, values, np.nan), whole=name.startswith(("num_", "total_")))
        for name, values in columns.items()
    }
    codes = plain(source["http_status"], whole=True)
    return [
        {
            **{name: values[place] for name, values in lists.items()},
            "error_code": None if kind is None else codes[place],
            "error_message": None if kind is None else f"{kind}: {detail or ''}",
        }
        for place, (kind, detail) in enumerate(
            zip(source.texts["error_kind"], source.texts["error_detail"], strict=True)
        )
    ]
