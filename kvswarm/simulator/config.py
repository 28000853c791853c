"""What a simulator is like: every option, with its unit, and how the command line gives them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

STREAM_FAULTS: Final = (
    "cut", "stall", "error_event", "malformed", "no_done", "no_finish", "empty", "content-type",
    "gzip", "status-400", "status-429", "status-500", "status-503",
)  # fmt: skip
"""A client fails with these: each is an error of the request."""
CONTENT_FAULTS: Final = (
    "bad-json", "bad-schema", "no-tool-call", "wrong-tool", "bad-arguments", "bad-argument-types",
    "unwanted-tool-call", "cold-prefix",
)  # fmt: skip
"""The request succeeds, and what was said, or how it was computed, is wrong."""
FAULTS: Final = (*STREAM_FAULTS, *CONTENT_FAULTS)
FLAVORS: Final = ("vllm", "tgi", "trtllm")
LACKING: Final = {"tgi": ("lora_modules", "reasoning_tokens"), "trtllm": ("lora_modules",)}
"""Options for what a server has not, or not in this way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """One simulated server."""

    host: str = "127.0.0.1"
    port: int = 0
    flavor: str = "vllm"
    """The server that it is like: one of FLAVORS."""
    base_path: str | None = None
    """What its /v1 hangs below, such as /openai."""
    model: str = "sim"
    max_model_len: int = 8192
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    num_kv_blocks: int = 8192
    block_size: int = 16
    prefix_caching: bool = True
    step_ms: float = 20.0
    """Time of an empty step of the engine."""
    decode_us: float = 150.0
    """What each running sequence adds to a step."""
    prefill_us: float = 30.0
    """What each prompt token that is not cached adds to a step."""
    speculative_tokens: int = 0
    """Tokens drafted for each sequence that decodes, in each step."""
    acceptance: float = 0.7
    """Chance of each drafted token, where the one before it was accepted."""
    draft_us: float = 100.0
    """What each drafted token adds to a step."""
    lora_modules: tuple[str, ...] = ()
    max_loras: int = 1
    """Adapters that are loaded at a time: those most recently used."""
    lora_load_ms: float = 50.0
    image_tokens_per_tile: int = 256
    max_images: int = 8
    tool_parser: bool = True
    reasoning_tokens: int = 0
    """First tokens of each chat answer, which come as its reasoning."""
    keep_alive: bool = False
    stream_interval: int = 1
    """Tokens in an event, but for the first, which has one."""
    seed: int = 0
    exact: tuple[float, float] | None = None
    """Fixed TTFT and ITL in ms: no engine then."""
    truth_log: Path | None = None
    fault: str | None = None
    fault_share: float = 1.0
    exit_with_parent: bool = False


def parse_arguments(argv: Sequence[str]) -> SimulatorConfig:
    """Read the options; what is wrong ends the process with code 2 and one message."""
    parser = argparse.ArgumentParser(prog="kvswarm simulate", description="A simulated LLM server.")
    number = _within(int, 1)
    amount = _within(float, 0.001)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=_within(int, 0, 65535), help="port; 0, the default, takes a free one"
    )
    parser.add_argument("--flavor", choices=FLAVORS, help="the server it is like (default vllm)")
    parser.add_argument("--base-path", type=_path, metavar="PATH",
                        help="what its /v1 hangs below, such as /openai")  # fmt: skip
    parser.add_argument("--model", help="name of the model it serves (default sim)")
    parser.add_argument("--max-model-len", type=number, metavar="TOKENS",
                        help="prompt and output together")  # fmt: skip
    parser.add_argument("--max-num-seqs", type=number, metavar="N", help="sequences in a step")
    parser.add_argument("--max-num-batched-tokens", type=number, metavar="N",
                        help="tokens in a step")  # fmt: skip
    parser.add_argument("--num-kv-blocks", type=number, metavar="N", help="KV cache, in blocks")
    parser.add_argument("--block-size", type=number, metavar="TOKENS",
                        help="tokens in a block of the KV cache")  # fmt: skip
    parser.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false",
                        help="compute every prompt whole")  # fmt: skip
    parser.add_argument("--step-ms", type=amount, help="time of an empty step")
    parser.add_argument("--decode-us", type=amount, help="time per running sequence in a step")
    parser.add_argument("--prefill-us", type=amount, help="time per prompt token in a step")
    _add_model_arguments(parser)
    _add_wire_arguments(parser)
    parser.add_argument("--seed", type=int, help="of texts, ends and faults (default 0)")
    parser.add_argument("--exact", type=amount, nargs=2, metavar=("TTFT_MS", "ITL_MS"),
                        help="no engine: first token and every gap at fixed times")  # fmt: skip
    parser.add_argument("--truth-log", type=Path, metavar="FILE",
                        help="a JSON line per response: when it was read and sent")  # fmt: skip
    parser.add_argument("--fault", choices=FAULTS, help="what goes wrong, for tests of clients")
    parser.add_argument("--fault-share", type=_within(float, 0, 1), metavar="S",
                        help="share of requests (0 to 1)")  # fmt: skip
    parser.add_argument("--exit-with-parent", action="store_true",
                        help="end when standard input does")  # fmt: skip
    given = {name: value for name, value in vars(parser.parse_args(argv)).items()
             if value is not None}  # fmt: skip
    for name in ("exact", "lora_modules"):
        if name in given:
            given[name] = tuple(given[name])
    for name in LACKING.get(given.get("flavor", ""), ()):
        if given.get(name):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"argument {option}: --flavor {given['flavor']} has no such thing")
    known = {field.name for field in fields(SimulatorConfig)}
    return SimulatorConfig(**{name: value for name, value in given.items() if name in known})


def _path(text: str) -> str:
    if not text.startswith("/") or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r}: must begin with / and end without")
    return text


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What the simulated model can do, and what it costs."""
    parser.add_argument("--speculative-tokens", type=_within(int, 0, 64), metavar="N",
                        help="tokens drafted per sequence and step (default 0)")  # fmt: skip
    parser.add_argument("--acceptance", type=_within(float, 0, 1), metavar="P",
                        help="chance of a drafted token after an accepted one")  # fmt: skip
    parser.add_argument("--draft-us", type=_within(float, 0), help="time per drafted token")
    parser.add_argument("--lora-modules", nargs="+", metavar="NAME", help="LoRA adapters it serves")
    parser.add_argument("--max-loras", type=_within(int, 1), metavar="N",
                        help="adapters loaded at a time")  # fmt: skip
    parser.add_argument("--lora-load-ms", type=_within(float, 0), help="time to load an adapter")
    parser.add_argument("--image-tokens-per-tile", type=_within(int, 1), metavar="TOKENS",
                        help="prompt tokens per started tile of 512x512 pixels")  # fmt: skip
    parser.add_argument("--max-images", type=_within(int, 0), metavar="N",
                        help="images in one prompt")  # fmt: skip


def _add_wire_arguments(parser: argparse.ArgumentParser) -> None:
    """What its answers look like."""
    parser.add_argument("--no-tool-parser", dest="tool_parser", action="store_false",
                        help="refuse tool_choice auto, as vLLM does without a parser")  # fmt: skip
    parser.add_argument("--reasoning-tokens", type=_within(int, 0), metavar="N",
                        help="first tokens of a chat answer that are reasoning")  # fmt: skip
    parser.add_argument("--keep-alive", action="store_true",
                        help="a comment line between events")  # fmt: skip
    parser.add_argument("--stream-interval", type=_within(int, 1), metavar="N",
                        help="tokens in an event, but for the first")  # fmt: skip


def _within(
    kind: type[int] | type[float], low: float, high: float = math.inf
) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        value = kind(text)
        if not low <= value <= high or not math.isfinite(value):
            limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r}: must be {limits}")
        return value

    parse.__name__ = kind.__name__  # argparse names it where the text is no number
    return parse
