"""The simulator as Text Generation Inference: its chunks, metrics, pages and errors.

Source: TGI 3's router, `chat.rs` and `server.rs` of huggingface/text-generation-inference: no
role-only chunk, the role in each, finish_reason with the last token, metrics without labels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.simulator.answers import Answer
from kvswarm.simulator.asked import Request
from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine, Sequence
from kvswarm.simulator.flavor import JSON, VERSION, Flavor, Serving, health, prometheus
from kvswarm.simulator.metrics import Histogram, Metrics
from kvswarm.simulator.refusal import RequestError
from kvswarm.simulator.responses import Response
from kvswarm.simulator.wire import DONE, Chunks, encode

DURATION_BUCKETS_S: Final = tuple(1e-4 * 1.5**power for power in range(35))
LENGTH_BUCKETS: Final = 100
"""Equal ones, up to the longest prompt or answer."""
ROLE: Final = {"role": "assistant"}
COMPLETION_REASONS: Final = {"stop": "eos_token", "length": "length"}
"""Completions tell TGI's own reasons, chat OpenAI's."""
VALIDATION_STATUS: Final = 422
ERROR_TYPES: Final = {VALIDATION_STATUS: "validation", 404: "validation", 429: "overloaded"}
OTHER_ERROR: Final = "generation"


class TgiChunks(Chunks):
    """Makes the events of one response of TGI."""

    error_event = (
        b'data: {"error":"Request failed during generation: simulated failure",'
        b'"error_type":"generation"}\n\n'
    )
    _ended = False

    def __init__(
        self, request: Request, answer: Answer, number: int, config: SimulatorConfig
    ) -> None:
        super().__init__(request, answer, number, config)
        self._head |= {"id": "", "system_fingerprint": VERSION}

    def role(self) -> bytes:
        """Nothing: each chunk has the role."""
        return b""

    def token(self, count: int = 1) -> bytes:
        """The chunk of the next tokens; with the last that the limit allows, it is the end."""
        choice = self.take(count)
        if self.tokens < self._request.max_tokens or self.tokens == self.complete_tokens:
            return self._event(choice)
        return self._last(choice, "length")

    def end(self, finish_reason: str | None, cached_tokens: int, *, done: bool = True) -> bytes:
        """A chunk for the token that ends the sequence, usage where asked for, `[DONE]`."""
        data = b""
        if finish_reason is not None and not self._ended:
            data = self._last({"delta": {}} if self._request.chat else {"text": ""}, finish_reason)
        if self._request.include_usage and self._request.chat:
            whole = {**self._head, "choices": [], "usage": self.usage(cached_tokens)}
            data += b"data: " + encode(whole) + b"\n\n"
        return data + (DONE if done else b"")

    def usage(self, cached_tokens: int = 0) -> dict[str, Any]:  # noqa: ARG002
        """The counts so far; TGI tells nothing of its prefix cache."""
        prompt = len(self._request.words)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }

    def _last(self, choice: dict[str, Any], finish_reason: str) -> bytes:
        """The chunk with the reason, and in completions with the usage, asked for or not."""
        if not self.tells_finish:
            return self._event(choice)
        self._ended = True
        if self._request.chat:
            return self._event({**choice, "finish_reason": finish_reason})
        reason = COMPLETION_REASONS[finish_reason]
        return self._event({**choice, "finish_reason": reason}, usage=self.usage())

    def whole(self, finish_reason: str | None, cached_tokens: int) -> bytes:
        """The answer in one body."""
        if not self._request.chat and finish_reason is not None:
            finish_reason = COMPLETION_REASONS[finish_reason]
        return super().whole(finish_reason, cached_tokens)

    def _event(self, choice: dict[str, Any], **more: Any) -> bytes:
        full: dict[str, Any] = {"index": 0, "logprobs": None}
        if self._request.chat:
            full["finish_reason"] = choice.get("finish_reason")
            full["delta"] = {**ROLE, **(choice["delta"] or {"content": ""})}
        else:
            full |= {"finish_reason": choice.get("finish_reason", ""), "text": choice["text"]}
        chunk = {**self._head, "choices": [full], **more}
        return b"data: " + encode(chunk) + b"\n\n"


def _durations() -> Histogram:
    return Histogram(DURATION_BUCKETS_S)


@dataclass
class TgiMetrics(Metrics):
    """What TGI tells: neither TTFT nor anything of the KV cache."""

    e2e: Histogram = field(default_factory=_durations)
    queue: Histogram = field(default_factory=_durations)
    inference: Histogram = field(default_factory=_durations)
    time_per_token: Histogram = field(default_factory=_durations)
    """Of each request the mean: inference over tokens, and so with the prefill in it."""

    def __post_init__(self) -> None:
        longest = self.config.max_model_len
        edges = tuple(longest / LENGTH_BUCKETS * place for place in range(1, LENGTH_BUCKETS + 1))
        self._input_tokens, self._generated_tokens = Histogram(edges), Histogram(edges)

    def finished(self, response: Response, sequence: Sequence) -> None:
        """Count one answered request."""
        super().finished(response, sequence)
        assert response.made_ns is not None  # noqa: S101 - it has a token at the least
        began_ns = response.read_ns if response.admitted_ns is None else response.admitted_ns
        inference_s = (response.made_ns - began_ns) / 1e9
        self.inference.observe(inference_s)
        self.time_per_token.observe(inference_s / sequence.generated)
        self._input_tokens.observe(sequence.prompt_tokens)
        self._generated_tokens.observe(sequence.generated)

    def text(self, engine: Engine) -> str:
        """The page."""
        lines = [
            "# TYPE tgi_request_count counter", f"tgi_request_count {self.received}",
            "# TYPE tgi_request_success counter",
            f"tgi_request_success {self.successes.total()}",
            "# TYPE tgi_request_failure counter", *self._failures(),
            "# TYPE tgi_queue_size gauge", f"tgi_queue_size {len(engine.waiting)}",
            "# TYPE tgi_batch_current_size gauge",
            f"tgi_batch_current_size {len(engine.running) + self.exact_streams}",
        ]  # fmt: skip
        histograms = {
            "duration": self.e2e,
            "queue_duration": self.queue,
            "inference_duration": self.inference,
            "mean_time_per_token_duration": self.time_per_token,
            "input_length": self._input_tokens,
            "generated_tokens": self._generated_tokens,
        }
        for name, histogram in histograms.items():
            lines += histogram.lines(f"tgi_request_{name}", "")
        return "\n".join(lines) + "\n"

    def _failures(self) -> list[str]:
        """What was refused, by what TGI calls the error."""
        counts = Counter({"validation": 0})
        for status, count in self.refused.items():
            counts[ERROR_TYPES.get(status, OTHER_ERROR)] += count
        return [f'tgi_request_failure{{err="{kind}"}} {counts[kind]}' for kind in sorted(counts)]


def _info(serving: Serving) -> tuple[bytes, bytes]:
    config = serving.config
    told = {
        "model_id": config.model,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_input_tokens": config.max_model_len - 1,
        "max_total_tokens": config.max_model_len,
        "router": "text-generation-router",
        "version": VERSION,
    }
    return encode(told), JSON


def _models(serving: Serving) -> tuple[bytes, bytes]:
    name = serving.config.model
    card = {"id": name, "object": "model", "created": 0, "owned_by": name}
    return encode({"object": "list", "data": [card]}), JSON


def _refusal(error: RequestError) -> tuple[int, bytes]:
    """What vLLM calls a bad request, TGI calls an error of validation."""
    status, message = error.status, error.message
    if status == 400:  # noqa: PLR2004 - HTTP's own
        status, message = VALIDATION_STATUS, f"Input validation error: {message}"
    kind = ERROR_TYPES.get(status, OTHER_ERROR)
    return status, encode({"error": message, "error_type": kind})


TGI: Final = Flavor(
    pages={"/health": health, "/info": _info, "/metrics": prometheus, "/v1/models": _models},
    refusal=_refusal,
    chunks=TgiChunks,
    metrics=TgiMetrics,
)
