"""/metrics under vLLM's names (0.32), in Prometheus's text format 0.0.4.

Not: the names of other servers, which count the same and more (`tgi.py`, `trtllm.py`).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine, Sequence
from kvswarm.simulator.responses import Response

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

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """The histogram as text; `labels` are those of all its samples, and may be none."""
        lines = [f"# TYPE {name} histogram"]
        total = 0
        among, alone = (f",{labels}", f"{{{labels}}}") if labels else ("", "")
        for edge, count in zip((*self._edges, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{edge}"{among}}} {total}')
        return [
            *lines,
            f"{name}_sum{alone} {self._sum}",
            f"{name}_count{alone} {total}",
        ]


@dataclass
class Metrics:
    """What the server has done so far."""

    config: SimulatorConfig
    ttft: Histogram = field(default_factory=lambda: Histogram(TTFT_BUCKETS_S))
    itl: Histogram = field(default_factory=lambda: Histogram(ITL_BUCKETS_S))
    e2e: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    queue: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    prefill: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    decode: Histogram = field(default_factory=lambda: Histogram(REQUEST_BUCKETS_S))
    received: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Requests that were refused, by the status with which they were."""
    prompt_tokens: int = 0
    generation_tokens: int = 0
    successes: Counter[str] = field(default_factory=Counter)
    exact_streams: int = 0
    """Responses in flight that no engine knows of."""
    adapters_seen_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """When these adapters were last seen running and waiting, by the clock."""

    def tokens(self, count: int, read_ns: int, before_ns: int | None, now_ns: int) -> None:
        """Count what one step gave a request that was read then, and had its last token then."""
        self.generation_tokens += count
        if before_ns is None:
            self.ttft.observe((now_ns - read_ns) / 1e9)
        else:
            self.itl.observe((now_ns - before_ns) / 1e9)

    def finished(self, response: Response, sequence: Sequence) -> None:
        """Count one answered request."""
        made_ns = response.made_ns
        first_ns = response.first_token_ns
        assert sequence.finish_reason is not None  # noqa: S101 - it is over
        assert made_ns is not None  # noqa: S101 - it has a token at the least
        assert first_ns is not None  # noqa: S101 - the first token never waits
        self.e2e.observe((made_ns - response.read_ns) / 1e9)
        if response.admitted_ns is not None:
            self.prefill.observe((first_ns - response.admitted_ns) / 1e9)
            self.decode.observe((made_ns - first_ns) / 1e9)
        self.prompt_tokens += sequence.prompt_tokens
        self.successes[sequence.finish_reason] += 1

    def text(self, engine: Engine) -> str:
        """The page."""
        labels = f'engine="0",model_name="{self.config.model}"'
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
        if self.config.speculative_tokens:
            counters |= {
                "spec_decode_num_drafts": engine.speculation.drafts,
                "spec_decode_num_draft_tokens": engine.speculation.draft_tokens,
                "spec_decode_num_accepted_tokens": engine.speculation.accepted_tokens,
            }
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{labels}}} {value}"]
        for name, value in counters.items():
            full = f"vllm:{name}_total"
            lines += [f"# TYPE {full} counter", f"{full}{{{labels}}} {value}"]
        reasons = {reason: self.successes[reason] for reason in ("length", "stop")}
        lines += _by("request_success_total", labels, "finished_reason", reasons)
        if self.config.speculative_tokens:
            accepted = dict(enumerate(engine.speculation.accepted_per_position))
            name = "spec_decode_num_accepted_tokens_per_pos_total"
            lines += _by(name, labels, "position", accepted)
        lines += self._adapters(engine)
        lines += self._cache_config(engine)
        histograms = {
            "time_to_first_token_seconds": self.ttft,
            "inter_token_latency_seconds": self.itl,
            "e2e_request_latency_seconds": self.e2e,
            "request_queue_time_seconds": self.queue,
            "request_prefill_time_seconds": self.prefill,
            "request_decode_time_seconds": self.decode,
        }
        for name, histogram in histograms.items():
            lines += histogram.lines(f"vllm:{name}", labels)
        return "\n".join(lines) + "\n"

    def _adapters(self, engine: Engine) -> list[str]:
        """Which adapters run and wait. As vLLM's: the value is when it was so, the newest holds."""
        if not self.config.lora_modules:
            return []
        now = (_adapters_of(engine.running), _adapters_of(engine.waiting))
        self.adapters_seen_s[now] = time.time()
        lines = ["# TYPE vllm:lora_requests_info gauge"]
        for (running, waiting), seen_s in self.adapters_seen_s.items():
            labels = (
                f'max_lora="{self.config.max_loras}",running_lora_adapters="{running}",'
                f'waiting_lora_adapters="{waiting}"'
            )
            lines.append(f"vllm:lora_requests_info{{{labels}}} {seen_s}")
        return lines

    def _cache_config(self, engine: Engine) -> list[str]:
        """The KV cache under vLLM's labels; those of GPUs have its defaults."""
        blocks, block_size = engine.pool.total, self.config.block_size
        values = {
            "block_size": block_size,
            "cache_dtype": "auto",
            "enable_prefix_caching": self.config.prefix_caching,
            "gpu_memory_utilization": 0.92,
            "is_attention_free": False,
            "kv_cache_size_tokens": blocks * block_size,
            "num_cpu_blocks": None,
            "num_gpu_blocks": blocks,
            "num_gpu_blocks_override": None,
            "sliding_window": None,
        }
        labels = ",".join(f'{name}="{value}"' for name, value in values.items())
        name = "vllm:cache_config_info"
        return [f"# TYPE {name} gauge", f'{name}{{engine="0",{labels}}} 1']


def _by(name: str, labels: str, key: str, values: Mapping[Any, int]) -> list[str]:
    """A counter with one more label."""
    return [
        f"# TYPE vllm:{name} counter",
        *(f'vllm:{name}{{{labels},{key}="{label}"}} {value}' for label, value in values.items()),
    ]


def _adapters_of(sequences: Iterable[Sequence]) -> str:
    """Their adapters, each once, in order of their names."""
    return ",".join(sorted({one.adapter for one in sequences if one.adapter is not None}))
