"""What the events of an OpenAI stream mean: tokens, usage, how it finished, what went wrong.

In:  `Reads` (bytes of the body, with the stamps of their reads).
Out: `Meaning`: arrival times of the token-bearing events, counts, finish_reason, errors, text.
Not: the verdict on the request, which also needs HTTP and sockets: see `outcome.py`.
Source: OpenAI's chat and completions streams as vLLM, TGI and TensorRT-LLM send them.

A chunk is not a token: role-only chunks and empty deltas bear none, and one chunk may bear
several. Where the server tells tokens per chunk (`token_ids`, or usage in every chunk) they are
kept; tokens of a chunk without text count for the next chunk that has some.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from kvswarm.stream.exchange import Reads
from kvswarm.stream.pattern import Pattern, learn
from kvswarm.stream.sse import Cut, EventCutter

DONE: Final = b"[DONE]"
LEARN_EVENTS: Final = 2
"""Events to decode before the pattern is learned: in chat the first bears no token."""
NO_EVENTS: Final = np.empty(0, dtype=np.int64)
DETAIL_CHARS: Final = 300


class FunctionDelta(msgspec.Struct, gc=False):
    """A piece of a function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of the tool call with this `index`."""

    index: int = 0
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct, gc=False):
    """What one chat chunk adds."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class Choice(msgspec.Struct, gc=False):
    """One choice: `delta` in chat, `text` in completions."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class TokenDetails(msgspec.Struct, gc=False):
    """Tokens by kind, where the server tells."""

    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The server's own token counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """The data of one event. vLLM's older errors have `object: error` and `message` at the top."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw()
    object: str | None = None
    message: str | None = None


_decode_many = msgspec.json.Decoder(list[Chunk]).decode
_decode_one = msgspec.json.Decoder(Chunk).decode


class Meaning:
    """What a stream has said so far. `absorb` adds, `timing` gives the arrays at the end."""

    __slots__ = (
        "_arrivals", "_body_bytes", "_cutter", "_event_tokens", "_pattern", "_tokens_told",
        "cached_tokens", "completion_tokens", "done", "error_event", "events", "finish_reason",
        "first_token_ns",
        "malformed", "pending_tokens", "prompt_tokens", "reasoning_text", "reasoning_tokens",
        "text", "tool_calls", "unstamped",
    )  # fmt: skip

    def __init__(self) -> None:
        self._cutter = EventCutter()
        self._pattern: Pattern | None = None
        self._body_bytes = 0
        self._arrivals: list[NDArray[np.int64]] = []
        self._event_tokens: list[int] = []
        self._tokens_told = True
        self.pending_tokens = 0
        self.events = 0
        self.unstamped = 0
        self.first_token_ns: int | None = None
        self.done = False
        self.finish_reason: str | None = None
        self.error_event: str | None = None
        self.malformed: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.reasoning_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.text: list[str] = []
        self.reasoning_text: list[str] = []
        self.tool_calls: list[ToolCallDelta] = []

    def absorb(self, reads: Reads) -> None:
        """Take the next reads, in their order."""
        self.unstamped += reads.unstamped
        body_before = self._body_bytes
        self._body_bytes += len(reads.body)
        ends = self._bearing_ends(self._cutter.cut(reads.body))
        if not len(ends):
            return
        ends = ends - body_before
        place = np.searchsorted(reads.body_ends, ends, side="left")
        stamps_ns = reads.stamps_ns[place]
        late_ns = np.where(
            ends < reads.body_ends[place], np.maximum(stamps_ns - reads.floors_ns[place], 0), 0
        )
        lag_ns = np.maximum(reads.reads_ns[place] - stamps_ns, 0)
        self._arrivals.append(np.stack((stamps_ns, late_ns, lag_ns)))
        if self.first_token_ns is None:
            self.first_token_ns = int(stamps_ns[0])

    def _bearing_ends(self, cut: Cut) -> NDArray[np.int64]:
        """Note what the events say; give where in the body the token-bearing ones ended."""
        if not cut.text or self.done:
            return self._bearing_of(cut)
        found = []
        if self._pattern is None:
            head, cut = cut.split(LEARN_EVENTS)
            found.append(self._bearing_of(head))
            self._pattern = learn(head.data[-1], _only_text)
        if self._pattern is not None and len(cut) and not self.done:
            texts = self._pattern.run(cut)
            if texts is None:
                self._pattern = None
            else:
                run, cut = cut.split(len(texts))
                found.append(self._take_texts(texts, run.ends))
        found.append(self._bearing_of(cut))
        return np.concatenate(found)

    def _bearing_of(self, cut: Cut) -> NDArray[np.int64]:
        bearing = self._take_chunks(self._chunks(cut)) if len(cut) else []
        return cut.ends[bearing] if bearing else NO_EVENTS

    def _take_texts(self, texts: list[str], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Note the texts of chunks that hold nothing else; give the ends of those with some."""
        if "" in texts:
            ends = ends[np.fromiter(map(bool, texts), dtype=bool, count=len(texts))]
            texts = [text for text in texts if text]
        if texts:
            self._event_tokens += [self.pending_tokens] + [0] * (len(texts) - 1)
            self._tokens_told &= self.pending_tokens > 0 and len(texts) == 1
            self.pending_tokens = 0
        self.text += texts
        self.events += len(texts)
        return ends

    def _chunks(self, cut: Cut) -> list[Chunk | None]:
        """Decode the data up to `[DONE]`; None stands for what is no chunk."""
        if self.done:
            return []
        joined = cut.joined()
        if joined is not None:
            count = len(cut)
            if joined.endswith(DONE):
                self.done = True
                count -= 1
                joined = joined[: -len(DONE) - 1]
            try:
                chunks: list[Chunk | None] = [*_decode_many(b"[" + joined + b"]")]
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # find out below which one it is
            else:
                # An event may hold `{},{}`: malformed by itself, well-formed when joined.
                if len(chunks) == count:
                    return chunks
        data = cut.data
        if DONE in data:
            self.done = True
            data = data[: data.index(DONE)]
        return [self._one(piece) for piece in data]

    def _one(self, piece: bytes) -> Chunk | None:
        try:
            return _decode_one(piece)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if self.malformed is None:
                shown = piece[:DETAIL_CHARS].decode("utf-8", "replace")
                self.malformed = f"{error}: {shown}"
            return None

    def _take_chunks(  # noqa: C901, PLR0912 - one pass over all chunks: the hot half of decoding
        self, chunks: list[Chunk | None]
    ) -> list[int]:
        """Note what each chunk says; give the places of the token-bearing ones."""
        bearing: list[int] = []
        for place, chunk in enumerate(chunks):
            if chunk is None:
                continue
            chunk_tokens = 0
            if chunk.usage is not None:
                chunk_tokens = self._take_usage(chunk.usage)
            if chunk.error or chunk.object == "error":
                self._take_error(chunk)
            bears = False
            for choice in chunk.choices:
                if choice.finish_reason is not None and self.finish_reason is None:
                    self.finish_reason = choice.finish_reason
                if choice.token_ids is not None:
                    chunk_tokens = len(choice.token_ids)
                delta = choice.delta
                if delta is None:
                    if choice.text:
                        self.text.append(choice.text)
                        bears = True
                elif delta.content:
                    self.text.append(delta.content)
                    bears = True
                if delta is not None and self._take_rare(delta):
                    bears = True
            self.pending_tokens += chunk_tokens
            if bears:
                bearing.append(place)
                self._event_tokens.append(self.pending_tokens)
                if not self.pending_tokens:
                    self._tokens_told = False
                self.pending_tokens = 0
        self.events += len(bearing)
        return bearing

    def _take_rare(self, delta: Delta) -> bool:
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            self.reasoning_text.append(reasoning)
        if not delta.tool_calls:
            return bool(reasoning)
        self.tool_calls.extend(delta.tool_calls)
        functions = [call.function for call in delta.tool_calls if call.function is not None]
        return bool(reasoning) or any(f.name or f.arguments for f in functions)

    def _take_usage(self, usage: Usage) -> int:
        """Note the counts; give the tokens that were not counted before."""
        told = usage.completion_tokens
        new_tokens = max(0, (told or 0) - (self.completion_tokens or 0))
        self.prompt_tokens = usage.prompt_tokens
        self.completion_tokens = told
        if usage.prompt_tokens_details is not None:
            self.cached_tokens = usage.prompt_tokens_details.cached_tokens
        if usage.completion_tokens_details is not None:
            self.reasoning_tokens = usage.completion_tokens_details.reasoning_tokens
        return new_tokens

    def _take_error(self, chunk: Chunk) -> None:
        shown = bytes(chunk.error)
        if self.error_event is None and (shown != b"null" or chunk.object == "error"):
            text = shown.decode("utf-8", "replace") or chunk.message or "error"
            self.error_event = text[:DETAIL_CHARS]

    @property
    def event_tokens(self) -> list[int] | None:
        """Tokens per token-bearing event, where the server told them for every one."""
        return self._event_tokens if self._tokens_told and self._event_tokens else None

    def arrivals(self) -> NDArray[np.int64]:
        """Stamps, late bounds and read lags of the token-bearing events, ns; shape (3, events)."""
        if not self._arrivals:
            return np.empty((3, 0), dtype=np.int64)
        return np.concatenate(self._arrivals, axis=1)


def _only_text(data: bytes) -> str | None:
    """The text of a chunk that says nothing else; None for every other."""
    try:
        chunk = _decode_one(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(chunk.choices) != 1 or chunk != Chunk(choices=chunk.choices, object=chunk.object):
        return None
    choice = chunk.choices[0]
    if chunk.object == "error" or choice.finish_reason is not None or choice.token_ids is not None:
        return None
    if choice.delta is None:
        return choice.text
    return choice.delta.content if choice.delta == Delta(content=choice.delta.content) else None
