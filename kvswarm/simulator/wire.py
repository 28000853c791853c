"""What goes over the wire: vLLM's chunks and bodies; those of others derive from them.

In:  a parsed request, its planned answer, and how many tokens are due.
Out: bytes of events and bodies.
"""

from __future__ import annotations

import random
import time
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kvswarm.simulator.answers import Answer, Piece
from kvswarm.simulator.asked import Request
from kvswarm.simulator.config import SimulatorConfig

encode: Final = msgspec.json.Encoder().encode
DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
VOCABULARY: Final = (
    " the", " of", " and", " to", " in", " is", " that", " it", " was", " for", " on", " are",
    " with", " as", " at", " be", " this", " have", " from", " or", " one", " had", " by", " but",
    " caf\u00e9", " na\u00efve", " \u6c34", " \u706b", " \U0001f642", ".", ",", "\n",
)  # fmt: skip
PIECE_IDS: Final = 32_000
"""Tokens of documents have ids above the vocabulary's."""


@dataclass(slots=True)
class Call:
    """A tool call so far."""

    name: str
    call_id: str
    arguments: list[str] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        """The call as a body has it."""
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.call_id, "type": "function", "function": function}


class Chunks:
    """Makes the events of one response."""

    error_event = (
        b'data: {"error": {"message": "simulated failure", "type": "InternalServerError", '
        b'"code": 500}}\n\n'
    )
    reasoning_key = "reasoning"
    tells_finish = True
    """Whether finish_reason is told: a fault of the stream may take it away."""

    def __init__(
        self, request: Request, answer: Answer, number: int, config: SimulatorConfig
    ) -> None:
        self._request = request
        self._document = answer.document
        self._finish_reason = answer.finish_reason
        self._reasoning_tokens = config.reasoning_tokens if request.chat else 0
        self._words_only = answer.document is None and not self._reasoning_tokens
        self._rng = random.Random(f"{config.seed}/{number}")  # noqa: S311 - text, not secrets
        kind = "chat.completion.chunk" if request.chat else "text_completion"
        name = f"{'chatcmpl' if request.chat else 'cmpl'}-{number:016x}"
        self._head = {
            "id": name, "object": kind, "created": int(time.time()), "model": request.model
        }  # fmt: skip
        self.tokens = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Call] = []

    @property
    def complete_tokens(self) -> int | None:
        """Tokens of the whole answer; None where it is words without end."""
        if self._document is None:
            return None
        return self._reasoning_tokens + len(self._document)

    def role(self) -> bytes:
        """Chat's first chunk, which bears no token; nothing for completions."""
        if not self._request.chat:
            return b""
        return self._event({"delta": {"role": "assistant", "content": ""}})

    def token(self, count: int = 1) -> bytes:
        """The chunk of the next tokens."""
        return self._event(self.take(count))

    def take(self, count: int) -> dict[str, Any]:
        """The next tokens, as the choice of a chunk."""
        if count != 1 or not self._words_only:
            return self._take_bundle(count)
        # Nearly all events are made here: one plain word.
        place = self._rng.randrange(len(VOCABULARY))
        text = VOCABULARY[place]
        self.tokens += 1
        self._text.append(text)
        choice: dict[str, Any] = {"delta": {"content": text}} if self._request.chat else {
            "text": text
        }  # fmt: skip
        if self._request.token_ids:
            choice["token_ids"] = [place]
        return choice

    def _take_bundle(self, count: int) -> dict[str, Any]:
        """Tokens of any kind, joined in one delta."""
        delta: dict[str, Any] = {}
        ids = []
        for _ in range(count):
            place = self.tokens - self._reasoning_tokens
            self.tokens += 1
            if place < 0 or self._document is None:
                word = self._rng.randrange(len(VOCABULARY))
                ids.append(word)
                piece = Piece(VOCABULARY[word])
            else:
                piece = self._document[place]
                ids.append(len(VOCABULARY) + zlib.crc32(piece.text.encode()) % PIECE_IDS)
            if piece.call is not None:
                delta.setdefault("content", None)
                self._take_call(piece, piece.call, delta.setdefault("tool_calls", []))
                continue
            key, texts = ("content", self._text)
            if place < 0:
                key, texts = (self.reasoning_key, self._reasoning)
            texts.append(piece.text)
            delta[key] = delta.get(key, "") + piece.text
        choice: dict[str, Any] = {"delta": delta} if self._request.chat else {
            "text": delta.get("content", "")
        }  # fmt: skip
        if self._request.token_ids:
            choice["token_ids"] = ids
        return choice

    def _take_call(self, piece: Piece, index: int, entries: list[dict[str, Any]]) -> None:
        """Add a token of a tool call: the one that opens it, or a fragment of its arguments."""
        if piece.name is not None and piece.call_id is not None:
            self._calls.append(Call(piece.name, piece.call_id))
            entries.append({
                "id": piece.call_id, "type": "function", "index": index,
                "function": {"name": piece.name},
            })  # fmt: skip
            return
        self._calls[index].arguments.append(piece.text)
        if not entries or entries[-1]["index"] != index:
            entries.append({"index": index, "function": {}})
        function = entries[-1]["function"]
        function["arguments"] = function.get("arguments", "") + piece.text

    def end(self, finish_reason: str | None, cached_tokens: int, *, done: bool = True) -> bytes:
        """finish_reason, usage where asked for, `[DONE]`."""
        empty: dict[str, Any] = {"delta": {}} if self._request.chat else {"text": ""}
        data = b""
        if finish_reason is not None:
            data = self._event({**empty, "finish_reason": finish_reason})
        if self._request.include_usage:
            whole = {**self._head, "choices": [], "usage": self.usage(cached_tokens)}
            data += b"data: " + encode(whole) + b"\n\n"
        return data + (DONE if done else b"")

    def finish_reason(self, reason: str | None) -> str | None:
        """What the client is told of the engine's reason: a call that is whole ends as a call."""
        return self._finish_reason if reason == "stop" else reason

    def usage(self, cached_tokens: int = 0) -> dict[str, Any]:
        """The counts so far."""
        prompt = len(self._request.words)
        counts: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }
        if self._reasoning_tokens:
            counts["completion_tokens_details"] = {"reasoning_tokens": len(self._reasoning)}
        return counts

    def whole(self, finish_reason: str | None, cached_tokens: int) -> bytes:
        """The answer in one body, for requests that do not stream."""
        text = "".join(self._text)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self._request.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self._reasoning_tokens:
                message[self.reasoning_key] = "".join(self._reasoning)
            if self._calls:
                message["content"] = None
                message["tool_calls"] = [call.whole() for call in self._calls]
            choice["message"] = message
        else:
            choice["text"] = text
        kind = "chat.completion" if self._request.chat else "text_completion"
        head = {**self._head, "object": kind}
        return encode({**head, "choices": [choice], "usage": self.usage(cached_tokens)})

    def _event(self, choice: dict[str, Any]) -> bytes:
        full = {"index": 0, "logprobs": None, "finish_reason": None, **choice}
        chunk: dict[str, Any] = {**self._head, "choices": [full]}
        if self._request.continuous_usage:
            chunk["usage"] = self.usage()
        return b"data: " + encode(chunk) + b"\n\n"


def framed(data: bytes) -> bytes:
    """One chunk of HTTP's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)
