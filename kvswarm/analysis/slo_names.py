"""How older files of SLOs call the figures, as the names that kvswarm has.

In:  `p95_ttft_ms`, `error_rate`, `min_throughput_rps`, ...
Out: the figure, by what its limits are to be multiplied, and which way they go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from kvswarm.analysis.named_figures import Direction, NamedFigure, figure_named

STATISTIC: Final = r"p50|p75|p90|p95|p99_?9|p99|avg|average|mean|median|max|min"
STATISTICS: Final = {"avg": "mean", "average": "mean", "median": "p50", "p99_9": "p999"}
LATENCIES: Final = {
    "ttft": "ttft", "time_to_first_token": "ttft", "first_token": "ttft",
    "itl": "itl", "inter_token_latency": "itl", "tbt": "itl", "time_between_tokens": "itl",
    "tpot": "tpot", "time_per_output_token": "tpot",
    "e2e": "e2e", "e2e_latency": "e2e", "end_to_end": "e2e", "end_to_end_latency": "e2e",
    "latency": "e2e", "request_latency": "e2e", "response_time": "e2e", "": "e2e",
}  # fmt: skip
UNITS_MS: Final = {"ms": 1.0, "us": 1e-3, "s": 1e3, "sec": 1e3, "secs": 1e3, "seconds": 1e3}
NAMES: Final = {
    "error_share": ("error_rate", "error_ratio", "failure_rate", "failure_share", "fail_rate"),
    "success_share": ("success_rate", "success_ratio"),
    "requests_per_s": (
        "throughput_rps", "rps", "requests_per_second", "requests_per_sec", "request_throughput",
        "request_throughput_rps", "throughput_requests_per_second",
    ),
    "output_tokens_per_s": (
        "throughput_tps", "tps", "tokens_per_second", "tokens_per_sec", "tokens_per_s",
        "output_tokens_per_second", "output_throughput_tps", "token_throughput",
        "throughput_tokens_per_second", "throughput_tokens_per_s",
    ),
    "goodput_rps": ("goodput_requests_per_second", "goodput_requests_per_s", "request_goodput"),
    "goodput_share": ("goodput_rate", "goodput_ratio"),
    "valid_output_share": (
        "valid_share", "valid_rate", "validity_share", "validity_rate", "valid_output_rate",
    ),
    "cold_multiplier": (
        "cold_start_multiplier", "cold_warm_multiplier", "cold_warm_ratio", "cold_warm_ttft_ratio",
    ),
    "time_to_first_ready_s": (
        "cold_start_s", "cold_start_seconds", "time_to_ready_s", "time_to_first_pod_s",
        "time_to_first_ready_pod_s",
    ),
}  # fmt: skip
"""What else our names are called."""
OURS: Final = {other: name for name, others in NAMES.items() for other in others}


@dataclass(frozen=True, slots=True)
class Meant:
    """The figure that a name means, and how limits under that name are to be read."""

    figure: NamedFigure
    scale: float = 1.0
    direction: Direction | None = None
    """What the name itself says, as `min_` and `max_` do."""


def meant_by(name: str) -> Meant | None:
    """The figure that a name of ours or an older one means; None where it means nothing."""
    figure = figure_named(name)
    if figure is not None:
        return Meant(figure)
    plain = name.strip().lower().replace("-", "_").replace("p99.9", "p999").replace(" ", "_")
    found = _older(plain)
    if found is not None:
        return found
    for prefix, direction in DIRECTIONS.items():
        if plain.startswith(prefix):
            found = _older(plain.removeprefix(prefix))
            return None if found is None else replace(found, direction=direction)
    return None


DIRECTIONS: Final[dict[str, Direction]] = {"min_": "at least", "max_": "at most"}


def _older(name: str) -> Meant | None:
    stem, scale = re.subn(r"_(pct|percent|percentage)$", "", name)
    share = 0.01 if scale else 1.0
    for each in (name, stem, f"{stem}_rate"):
        figure = figure_named(OURS.get(each, each))
        if figure is not None and (share == 1.0 or figure.is_share):
            return Meant(figure, share)
    return _latency(name) or _cost(name)


def _latency(name: str) -> Meant | None:
    """`p95_ttft_ms`, `ttft_p95_s`, `p99_latency_ms`, `p95_ms`: a statistic, a unit at the end."""
    stem, _, unit = name.rpartition("_")
    first = re.fullmatch(rf"({STATISTIC})(?:_(\w+))?", stem)
    last = re.fullmatch(rf"(\w+?)_({STATISTIC})", stem)
    if first is not None:
        statistic, latency = first[1], first[2] or ""
    elif last is not None:
        statistic, latency = last[2], last[1]
    else:
        return None
    ours = STATISTICS.get(statistic, statistic)
    figure = figure_named(f"{LATENCIES.get(latency)}_{ours}_ms")
    return None if figure is None or unit not in UNITS_MS else Meant(figure, UNITS_MS[unit])


def _cost(name: str) -> Meant | None:
    """`cost_per_1k_tokens`, `usd_per_1m_output_tokens`."""
    match = re.fullmatch(r"(?:cost|usd|dollars?)_per_(\w+?)(?:_usd)?", name)
    if match is None:
        return None
    work = re.sub(r"^(1m|1_million|1000000)_", "million_", match[1])
    work = re.sub(r"^(1000|thousand|k)_", "1k_", work)
    figure = figure_named(f"cost_per_{work}_usd")
    return None if figure is None else Meant(figure)
