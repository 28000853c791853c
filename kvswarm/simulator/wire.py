"""What goes over the wire: vLLM's chunks, errors and bodies.

In:  a parsed request and its tokens.  Out: bytes of events; dicts of JSON bodies.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec

encode: Final = msgspec.json.Encoder().encode
DONE: Final = b"data: [DONE]\n\n"
VOCABULARY: Final = (
    " the", " of", " and", " to", " in", " is", " that", " it", " was", " for", " on", " are",
    " with", " as", " at", " be", " this", " have", " from", " or", " one", " had", " by", " but",
    " caf\u00e9", " na\u00efve", " \u6c34", " \u706b", " \U0001f642", ".", ",", "\n",
)  # fmt: skip


class RequestError(Exception):
    """A request that vLLM would refuse: the status and the message."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind

    def body(self) -> bytes:
        """The error as vLLM sends it."""
        error = {
            "message": self.message, "type": self.kind, "param": None, "code": self.status
        }  # fmt: skip
        return encode({"error": error})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the simulator takes of an OpenAI request."""

    chat: bool
    words: tuple[str, ...]
    """The prompt; each word is a token."""
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    ignore_eos: bool
    token_ids: bool


def parse_request(raw: bytes, *, chat: bool, model: str, max_model_len: int) -> Request:
    """Read a request body. Raises RequestError."""
    try:
        plain = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, f"JSON decode error: {error}") from error
    if not isinstance(plain, dict):
        raise RequestError(400, "the body must be a JSON object")
    if plain.get("model", model) != model:
        raise RequestError(
            404, f"The model `{plain['model']}` does not exist.", kind="NotFoundError"
        )
    if plain.get("n", 1) != 1:
        raise RequestError(400, "only n=1 is supported")
    words = _words(plain, chat=chat)
    asked = plain.get("max_completion_tokens")
    asked = plain.get("max_tokens") if asked is None else asked
    max_tokens = asked if asked is not None else (max_model_len - len(words) if chat else 16)
    if type(max_tokens) is not int or max_tokens < 1:
        raise RequestError(400, f"max_tokens must be at least 1, got {max_tokens}.")
    if len(words) + max_tokens > max_model_len:
        raise RequestError(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, you "
            f"requested {max_tokens} output tokens and your prompt contains {len(words)} tokens.",
        )
    options = plain.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RequestError(400, "stream_options: an object is required")
    stream = bool(plain.get("stream"))
    if options and not stream:
        raise RequestError(400, "Stream options can only be defined when `stream=True`.")
    return Request(
        chat=chat,
        words=words,
        max_tokens=max_tokens,
        stream=stream,
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        ignore_eos=bool(plain.get("ignore_eos")),
        token_ids=bool(plain.get("return_token_ids")),
    )


def _words(plain: dict[str, Any], *, chat: bool) -> tuple[str, ...]:
    if not chat:
        prompt = plain.get("prompt")
        if not isinstance(prompt, str):
            raise RequestError(400, "prompt: a string is required")
        return tuple(prompt.split()) or ("",)
    messages = plain.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages: a list of at least one message is required")
    if not all(isinstance(message, dict) for message in messages):
        raise RequestError(400, "messages: each must be an object")
    return tuple(" ".join(map(_content, messages)).split()) or ("",)


def _content(message: dict[str, Any]) -> str:
    """The text of a message: plain, or in parts."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


class Chunks:
    """Makes the events of one streamed response."""

    def __init__(self, request: Request, number: int, model: str, seed: int) -> None:
        self._request = request
        self._rng = random.Random(f"{seed}/{number}")  # noqa: S311 - text, not secrets
        kind = "chat.completion.chunk" if request.chat else "text_completion"
        name = f"{'chatcmpl' if request.chat else 'cmpl'}-{number:016x}"
        self._head = {"id": name, "object": kind, "created": int(time.time()), "model": model}
        self.tokens = 0
        self.text: list[str] = []

    def role(self) -> bytes:
        """Chat's first chunk, which bears no token; nothing for completions."""
        if not self._request.chat:
            return b""
        return self._event({"delta": {"role": "assistant", "content": ""}})

    def token(self) -> bytes:
        """The chunk of the next token."""
        place = self._rng.randrange(len(VOCABULARY))
        text = VOCABULARY[place]
        self.tokens += 1
        self.text.append(text)
        choice: dict[str, Any] = {"delta": {"content": text}} if self._request.chat else {
            "text": text
        }  # fmt: skip
        if self._request.token_ids:
            choice["token_ids"] = [place]
        return self._event(choice)

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

    def usage(self, cached_tokens: int = 0) -> dict[str, Any]:
        """The counts so far."""
        prompt = len(self._request.words)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }

    def whole(self, finish_reason: str | None, cached_tokens: int) -> bytes:
        """The answer in one body, for requests that do not stream."""
        text = "".join(self.text)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self._request.chat:
            choice["message"] = {"role": "assistant", "content": text}
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
