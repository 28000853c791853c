"""What a client asks for: an OpenAI request as vLLM reads it.

In:  the bytes of a body, and what the server is like.  Out: `Request`, or RequestError.
Not: constraints, tools and images in detail (their own modules); the answer (`answers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.constraints import Constraint, constraint_of
from kvswarm.simulator.images import image_words
from kvswarm.simulator.refusal import RequestError
from kvswarm.simulator.tools import ToolUse, tool_use_of

VLLMS_OWN: Final = frozenset({
    "guided_choice", "guided_grammar", "guided_json", "guided_regex", "return_token_ids",
    "structured_outputs",
})  # fmt: skip
"""Keys that no other server knows."""
UNHEARD: Final = {"tgi": VLLMS_OWN | {"ignore_eos"}}
"""Keys that a server ignores without a word."""
REFUSED: Final = {"trtllm": VLLMS_OWN}
"""Keys that a server refuses, as it does all that it does not know."""
FORBIDDEN: Final = "extra_forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the simulator takes of an OpenAI request."""

    chat: bool
    model: str
    adapter: str | None
    """The LoRA adapter that `model` names; None: the model itself."""
    words: tuple[str, ...]
    """The prompt; each word is a token."""
    max_tokens: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    ignore_eos: bool
    token_ids: bool
    constraint: Constraint | None
    tools: ToolUse | None


def parse_request(raw: bytes, config: SimulatorConfig, *, chat: bool) -> Request:
    """Read a request body. Raises RequestError."""
    try:
        plain = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"JSON decode error: {error}") from error
    if not isinstance(plain, dict):
        raise RequestError(400, "the body must be a JSON object")
    refused = sorted(plain.keys() & REFUSED.get(config.flavor, ()))
    if refused:
        raise RequestError(
            400, f"{', '.join(refused)}: Extra inputs are not permitted", kind=FORBIDDEN
        )
    for name in UNHEARD.get(config.flavor, ()):
        plain.pop(name, None)
    model = plain.get("model", config.model)
    if model != config.model and model not in config.lora_modules:
        raise RequestError(404, f"The model `{model}` does not exist.", kind="NotFoundError")
    if plain.get("n", 1) != 1:
        raise RequestError(400, "only n=1 is supported")
    words = _words(plain, config, chat=chat)
    stream = bool(plain.get("stream"))
    options = plain.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RequestError(400, "stream_options: an object is required")
    if options and not stream:
        raise RequestError(400, "Stream options can only be defined when `stream=True`.")
    return Request(
        chat=chat,
        model=model,
        adapter=model if model != config.model else None,
        words=words,
        max_tokens=_max_tokens(plain, len(words), config.max_model_len, chat=chat),
        stream=stream,
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        ignore_eos=bool(plain.get("ignore_eos")),
        token_ids=bool(plain.get("return_token_ids")),
        constraint=constraint_of(plain),
        tools=tool_use_of(plain, parser=config.tool_parser) if chat else None,
    )


def _max_tokens(plain: dict[str, Any], prompt_tokens: int, limit: int, *, chat: bool) -> int:
    asked = plain.get("max_completion_tokens")
    asked = plain.get("max_tokens") if asked is None else asked
    max_tokens = asked if asked is not None else (limit - prompt_tokens if chat else 16)
    if type(max_tokens) is not int or max_tokens < 1:
        raise RequestError(400, f"max_tokens must be at least 1, got {max_tokens}.")
    if prompt_tokens + max_tokens > limit:
        raise RequestError(
            400,
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{max_tokens} output tokens and your prompt contains {prompt_tokens} tokens.",
        )
    return max_tokens


def _words(plain: dict[str, Any], config: SimulatorConfig, *, chat: bool) -> tuple[str, ...]:
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
    words: list[str] = []
    images = 0
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, list):
            words += str(content).split()
            continue
        parts = [part for part in content if isinstance(part, dict)]
        images += sum(part.get("type") == "image_url" for part in parts)
        if images > config.max_images:
            raise RequestError(
                400, f"At most {config.max_images} image(s) may be provided in one prompt."
            )
        for part in parts:
            words += _of_part(part, config.image_tokens_per_tile)
    return tuple(words) or ("",)


def _of_part(part: dict[str, Any], tokens_per_tile: int) -> tuple[str, ...] | list[str]:
    """The words of a part of a message: its text, or what stands for its image."""
    if part.get("type") != "image_url":
        return str(part.get("text", "")).split()
    image = part.get("image_url")
    return image_words(image.get("url") if isinstance(image, dict) else image, tokens_per_tile)
