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
from kvswarm.stream.pattern import Pattern, decoded, learn, stretches
from kvswarm.stream.sse import EventCutter

DONE: Final = b"[DONE]"
LEARN_READS: Final = 3
"""Reads to decode before the pattern is learned: in chat the first event bears no token."""
LEAST_LIKE_READS: Final = 16
LEAST_LIKE_EVENTS: Final = 4
"""Shorter runs of like reads or events are decoded with their neighbours: calls cost, too."""
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
    """What a stream has said so far. `absorb` adds, `arrivals` gives the times at the end."""

    __slots__ = (
        "_arrivals", "_cutter", "_event_pattern", "_event_tokens", "_pattern", "_tokens_told",
        "cached_tokens", "completion_tokens", "done", "error_event", "events", "finish_reason",
        "first_token_ns", "malformed", "pending_tokens", "prompt_tokens", "reasoning_text",
        "reasoning_tokens", "text", "tool_calls", "unstamped",
    )  # fmt: skip

    def __init__(self) -> None:
        self._cutter = EventCutter()
        self._pattern: Pattern | None = None
        self._event_pattern: Pattern | None = None
        self._arrivals: list[tuple[NDArray[np.int64], ...]] = []
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
        count = len(reads.bodies)
        begin = 0
        if self._event_pattern is None:
            begin = min(count, LEARN_READS)
            self._absorb_events(reads, 0, begin)
        raw: list[bytes | None] = [None] * (count - begin)
        if self._event_pattern is not None:
            raw = self._event_pattern.raw_texts(reads.bodies[begin:])
        for first, end, like in stretches(raw, LEAST_LIKE_READS, begin):
            texts = decoded(raw[first - begin : end - begin]) if like else None
            if texts is None or self.done or not self._cutter.between_events:
                self._absorb_events(reads, first, end)
            elif bearing := self._take_texts(texts):
                place = np.array(bearing) + first
                stamps_ns = reads.stamps_ns[place]
                self._arrive(stamps_ns, np.zeros_like(stamps_ns), reads.reads_ns[place])

    def _absorb_events(self, reads: Reads, first: int, end: int) -> None:
        """Take the reads from `first` to `end`, whatever they hold."""
        bodies = reads.bodies[first:end]
        data, ends = self._cutter.cut(b"".join(bodies))
        bearing = self._understand(data)
        if not bearing:
            return
        ends = ends[bearing]
        body_ends = np.cumsum(np.fromiter(map(len, bodies), dtype=np.int64, count=len(bodies)))
        shared = np.searchsorted(body_ends, ends, side="left")
        place = shared + first
        stamps_ns = reads.stamps_ns[place]
        late_ns = np.where(
            ends < body_ends[shared], np.maximum(stamps_ns - reads.floors_ns[place], 0), 0
        )
        self._arrive(stamps_ns, late_ns, reads.reads_ns[place])

    def _arrive(self, *times_ns: NDArray[np.int64]) -> None:
        """Keep stamps, late bounds and moments of the reads of token-bearing events."""
        self._arrivals.append(times_ns)
        if self.first_token_ns is None:
            self.first_token_ns = int(times_ns[0][0])

    def _understand(self, data: list[bytes]) -> list[int]:
        """Note what events say; give the places of the token-bearing ones."""
        if self.done or not data:
            return []
        if DONE in data:
            data = data[: data.index(DONE)]
            self.done = True
        raw: list[bytes | None] = [None] * len(data)
        if self._pattern is not None:
            raw = self._pattern.raw_texts(data)
        bearing: list[int] = []
        for first, end, like in stretches(raw, LEAST_LIKE_EVENTS):
            texts = decoded(raw[first:end]) if like else None
            if texts is None:
                found = self._take_chunks(self._chunks(data[first:end]))
            else:
                found = self._take_texts(texts)
            bearing += [first + place for place in found]
        if data and raw[-1] is None:
            self._learn(data[-1])
        return bearing

    def _learn(self, data: bytes) -> None:
        """Know chunks like this one from now on, if it has a text and nothing else."""
        pattern = learn(data, _only_text)
        if pattern is not None:
            self._pattern, self._event_pattern = pattern, pattern.as_event()

    def _take_texts(self, texts: list[str]) -> list[int]:
        """Note the texts of chunks that hold nothing else; give the places of those with some."""
        bearing = [place for place, text in enumerate(texts) if text]
        if bearing and self._tokens_told:
            self._event_tokens.append(self.pending_tokens)
            self._tokens_told = self.pending_tokens > 0 and len(bearing) == 1
        if bearing:
            self.pending_tokens = 0
        self.text += texts
        self.events += len(bearing)
        return bearing

    def _chunks(self, data: list[bytes]) -> list[Chunk | None]:
        """Decode the data of events; None stands for what is no chunk."""
        try:
            chunks: list[Chunk | None] = [*_decode_many(b"[" + b",".join(data) + b"]")]
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # find out below which one it is
        else:
            # An event may hold `{},{}`: malformed by itself, well-formed when joined.
            if len(chunks) == len(data):
                return chunks
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
                if choice.finish_reason and self.finish_reason is None:
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
        times_ns = np.zeros((3, self.events), dtype=np.int64)
        for row, parts in zip(times_ns, zip(*self._arrivals, strict=True), strict=False):
            np.concatenate(parts, out=row)
        times_ns[2] = np.maximum(times_ns[2] - times_ns[0], 0)
        return times_ns


def _only_text(data: bytes) -> str | None:
    """The text of a chunk that says nothing else; None for every other."""
    try:
        chunk = _decode_one(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(chunk.choices) != 1 or chunk != Chunk(choices=chunk.choices, object=chunk.object):
        return None
    choice = chunk.choices[0]
    if chunk.object == "error" or choice.finish_reason or choice.token_ids is not None:
        return None
    if choice.delta is None:
        return choice.text
    delta = choice.delta
    # trtllm-serve has an empty reasoning_content in every chunk: an empty text says nothing.
    if delta.reasoning or delta.reasoning_content or delta.tool_calls:
        return None
    return delta.content
