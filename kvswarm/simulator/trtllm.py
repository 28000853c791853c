"""The simulator as trtllm-serve: its chunks, metrics, pages and errors.

Source: TensorRT-LLM's `serve/openai_server.py`, `openai_protocol.py`, `postprocess_handlers.py` and
`metrics/collector.py`: finish_reason with the last token, nulls left out in chat, metrics of
requests when they end, `/metrics` a list of iterations that reading empties.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.simulator.asked import FORBIDDEN
from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine, Sequence, Step
from kvswarm.simulator.flavor import JSON, Flavor, Serving, health, prometheus, version
from kvswarm.simulator.metrics import ITL_BUCKETS_S, Histogram, Metrics
from kvswarm.simulator.refusal import RequestError
from kvswarm.simulator.responses import Response
from kvswarm.simulator.wire import DONE, Chunks, encode

MAX_ITERATIONS: Final = 1000
"""As many iterations are kept for `/metrics`; the oldest go first."""


class TrtllmChunks(Chunks):
    """Makes the events of one response of trtllm-serve."""

    reasoning_key = "reasoning_content"
    _ended = False

    def role(self) -> bytes:
        """Chat's first chunk, which has no content at all, and a space at its end."""
        if not self._request.chat:
            return b""
        return self._event({"delta": {"role": "assistant"}}).replace(b"\n\n", b" \n\n")

    def token(self, count: int = 1) -> bytes:
        """The chunk of the next tokens; with the last that the limit allows, it is the end."""
        choice = self.take(count)
        if self.tokens >= self._request.max_tokens and self.tokens != self.complete_tokens:
            self._finish(choice, "length")
        return self._event(choice)

    def end(self, finish_reason: str | None, cached_tokens: int, *, done: bool = True) -> bytes:
        """A chunk for the token that ends the sequence, usage where asked for, `[DONE]`."""
        data = b""
        if finish_reason is not None and not self._ended:
            choice: dict[str, Any] = (
                {"delta": {"content": ""}} if self._request.chat else {"text": ""}
            )
            self._finish(choice, finish_reason)
            data = self._event(choice)
        if self._request.include_usage:
            whole = {**self._head, "choices": [], "usage": self.usage(cached_tokens)}
            data += b"data: " + encode(whole) + b"\n\n"
        return data + (DONE if done else b"")

    def usage(self, cached_tokens: int = 0) -> dict[str, Any]:
        """The counts so far; reasoning is not counted apart."""
        counts = super().usage(cached_tokens)
        counts.pop("completion_tokens_details", None)
        return counts

    def _finish(self, choice: dict[str, Any], reason: str) -> None:
        if self.tells_finish:
            self._ended = True
            choice["finish_reason"] = reason

    def _event(self, choice: dict[str, Any]) -> bytes:
        if self._request.chat:
            # Where it says anything, there is a text of either kind; nulls are left out.
            delta = choice["delta"]
            if "role" not in delta:
                delta["content"] = delta.get("content") or ""
                delta.setdefault("reasoning_content", "")
            full = {"index": 0, **choice}
            chunk: dict[str, Any] = {**self._head, "choices": [full]}
        else:
            nothing = {
                "token_ids": None, "logprobs": None, "finish_reason": None, "stop_reason": None,
                "avg_decoded_tokens_per_iter": None,
            }  # fmt: skip
            full = {"index": 0, "text": "", **nothing, **choice}
            chunk = {**self._head, "choices": [full], "usage": None}
        if self._request.continuous_usage and self._request.include_usage:
            chunk["usage"] = self.usage()
        return b"data: " + encode(chunk) + b"\n\n"


@dataclass
class TrtllmMetrics(Metrics):
    """What trtllm-serve tells."""

    tpot: Histogram = field(default_factory=lambda: Histogram(ITL_BUCKETS_S))
    answered_tokens: int = 0
    """Of requests that ended well: a request counts as a whole, at its end."""
    cached_tokens: int = 0

    def finished(self, response: Response, sequence: Sequence) -> None:
        """Count one answered request."""
        super().finished(response, sequence)
        first_ns, made_ns = response.first_token_ns, response.made_ns
        if first_ns is not None and made_ns is not None and sequence.generated > 1:
            self.tpot.observe((made_ns - first_ns) / 1e9 / (sequence.generated - 1))
        self.answered_tokens += sequence.generated
        self.cached_tokens += sequence.cached_tokens

    def text(self, engine: Engine) -> str:
        """The page."""
        labels = f'engine_type="trtllm",model_name="{self.config.model}"'
        gauges: dict[str, float] = {
            "kv_cache_utilization": engine.pool.used_share,
            "kv_cache_max_blocks": engine.pool.total,
            "kv_cache_tokens_per_block": self.config.block_size,
            "num_requests_running": len(engine.running) + self.exact_streams,
            "num_requests_waiting": len(engine.waiting),
        }
        if engine.prefix_queries:
            gauges["kv_cache_hit_rate"] = engine.prefix_hits / engine.prefix_queries
        counters = {
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.answered_tokens,
            "prompt_cached_tokens": self.cached_tokens,
        }
        if self.config.speculative_tokens:
            counters |= {
                "spec_decode_num_draft_tokens": engine.speculation.draft_tokens,
                "spec_decode_num_accepted_tokens": engine.speculation.accepted_tokens,
            }
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE trtllm_{name} gauge", f"trtllm_{name}{{{labels}}} {value}"]
        for name, value in counters.items():
            full = f"trtllm_{name}_total"
            lines += [f"# TYPE {full} counter", f"{full}{{{labels}}} {value}"]
        full = "trtllm_request_success_total"
        lines.append(f"# TYPE {full} counter")
        for reason in ("length", "stop"):
            counted = self.successes[reason]
            lines.append(f'{full}{{{labels},finished_reason="{reason}"}} {counted}')
        histograms = {
            "time_to_first_token": self.ttft,
            "time_per_output_token": self.tpot,
            "e2e_request_latency": self.e2e,
            "request_queue_time": self.queue,
            "request_prefill_time": self.prefill,
            "request_decode_time": self.decode,
        }
        for name, histogram in histograms.items():
            lines += histogram.lines(f"trtllm_{name}_seconds", labels)
        return "\n".join(lines) + "\n"


class ToldEngine(Engine):
    """The engine, which also keeps what it would tell of each step."""

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__(config)
        self._tokens_per_block = config.block_size
        self._count = 0
        self._told: deque[dict[str, Any]] = deque(maxlen=MAX_ITERATIONS)

    def step(self) -> Step:
        """Compute one step."""
        step = super().step()
        if step.duration_ms:
            self._count += 1
            used = self.pool.total - self.pool.available
            self._told.append({
                "iter": self._count,
                "iterLatencyMS": step.duration_ms,
                "numActiveRequests": len(self.running),
                "numQueuedRequests": len(self.waiting),
                "kvCacheStats": {
                    "maxNumBlocks": self.pool.total,
                    "usedNumBlocks": used,
                    "freeNumBlocks": self.pool.available,
                    "tokensPerBlock": self._tokens_per_block,
                },
            })  # fmt: skip
        return step

    def take_told(self) -> list[dict[str, Any]]:
        """What was kept since it was last asked."""
        told = list(self._told)
        self._told.clear()
        return told


def _iterations(serving: Serving) -> tuple[bytes, bytes]:
    assert isinstance(serving.engine, ToldEngine)  # noqa: S101 - the flavor's own
    return encode(serving.engine.take_told()), JSON


def _models(serving: Serving) -> tuple[bytes, bytes]:
    card = {
        "id": serving.config.model, "object": "model", "created": 0, "owned_by": "tensorrt_llm"
    }  # fmt: skip
    return encode({"object": "list", "data": [card]}), JSON


def _refusal(error: RequestError) -> tuple[int, bytes]:
    """Flat, and of a body that its schema does not allow the text alone."""
    if error.kind == FORBIDDEN:
        return error.status, encode({"error": error.message})
    told = {
        "object": "error", "message": error.message, "type": error.kind, "param": None,
        "code": error.status,
    }  # fmt: skip
    return error.status, encode(told)


TRTLLM: Final = Flavor(
    pages={
        "/health": health, "/metrics": _iterations, "/prometheus/metrics": prometheus,
        "/v1/models": _models, "/version": version,
    },
    refusal=_refusal,
    chunks=TrtllmChunks,
    metrics=TrtllmMetrics,
    engine=ToldEngine,
)  # fmt: skip
