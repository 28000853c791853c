"""/metrics under vLLM's names (0.32), in Prometheus's text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from kvswarm.simulator.engine import Engine

TTFT_BUCKETS_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_BUCKETS_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS_S: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip


class Histogram:
    """Counts of values by bucket."""

    def __init__(self, edges_s: tuple[float, ...]) -> None:
        self._edges_s = edges_s
        self._counts = [0] * (len(edges_s) + 1)
        self._sum_s = 0.0

    def observe(self, value_s: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._edges_s, value_s)] += 1
        self._sum_s += value_s

    def lines(self, name: str, labels: str) -> list[str]:
        """The histogram as text."""
        lines = [f"# TYPE {name} histogram"]
        total = 0
        for edge, count in zip((*self._edges_s, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{edge}",{labels}}} {total}')
        return [
            *lines,
            f"{name}_sum{{{labels}}} {self._sum_s}",
            f"{name}_count{{{labels}}} {total}",
        ]


@dataclass
class Metrics:
    """What the server has done so far."""

    model: str
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BUCKETS_S))
    itl: Histogram = field(default_factory=lambda: Histogram(ITL_BUCKETS_S))
    e2e: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    queue: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    prompt_tokens: int = 0
    generation_tokens: int = 0
    successes: Counter[str] = field(default_factory=Counter)
    exact_streams: int = 0
    """Responses in flight that no engine knows of."""

    def token(self, read_ns: int, before_ns: int | None, now_ns: int) -> None:
        """Count one token of a request that was read then, whose token before was sent then."""
        self.generation_tokens += 1
        if before_ns is None:
            self.ttft.observe((now_ns - read_ns) / 1e9)
        else:
            self.itl.observe((now_ns - before_ns) / 1e9)

    def finished(self, read_ns: int, now_ns: int, prompt_tokens: int, reason: str) -> None:
        """Count one answered request."""
        self.e2e.observe((now_ns - read_ns) / 1e9)
        self.prompt_tokens += prompt_tokens
        self.successes[reason] += 1

    def text(self, engine: Engine, block_size: int) -> str:
        """The page."""
        labels = f'engine="0",model_name="{self.model}"'
        gauges = {
            "num_requests_running": len(engine.running) + self.exact_streams,
            "num_requests_waiting": len(engine.waiting),
            "kv_cache_usage_perc": engine.pool.used_share,
        }
        counters = {
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.generation_tokens,
            "prefix_cache_queries": engine.prefix_queries,
            "prefix_cache_hits": engine.prefix_hits,
            "num_preemptions": engine.preemptions,
        }
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{labels}}} {value}"]
        for name, value in counters.items():
            full = f"vllm:{name}_total"
            lines += [f"# TYPE {full} counter", f"{full}{{{labels}}} {value}"]
        lines.append("# TYPE vllm:request_success_total counter")
        for reason in ("length", "stop"):
            with_reason = f'{labels},finished_reason="{reason}"'
            lines.append(f"vllm:request_success_total{{{with_reason}}} {self.successes[reason]}")
        config = f'{labels},block_size="{block_size}",num_gpu_blocks="{engine.pool.total}"'
        lines += [
            "# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{config}}} 1"
        ]  # fmt: skip
        histograms = {
            "time_to_first_token_seconds": self.ttft,
            "inter_token_latency_seconds": self.itl,
            "e2e_request_latency_seconds": self.e2e,
            "request_queue_time_seconds": self.queue,
        }
        for name, histogram in histograms.items():
            lines += histogram.lines(f"vllm:{name}", labels)
        return "\n".join(lines) + "\n"
