"""What differs between the servers that a simulator can be, and how vLLM is.

In:  `Serving`, a running simulator.  Out: `Flavor`: its pages, chunks, metrics and errors.
Not: TGI (`tgi.py`), trtllm-serve (`trtllm.py`); the engine's times, which are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kvswarm
from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Engine
from kvswarm.simulator.metrics import Metrics
from kvswarm.simulator.refusal import RequestError
from kvswarm.simulator.wire import Chunks, encode

VERSION: Final = f"kvswarm-{kvswarm.__version__}"
JSON: Final = b"application/json"
PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Serving:
    """A running simulator, as its pages see it."""

    config: SimulatorConfig
    engine: Engine
    metrics: Metrics


Page = Callable[[Serving], tuple[bytes, bytes]]
"""Gives the body and its content type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """One kind of server."""

    pages: Mapping[str, Page]
    """What GET answers, by path."""
    refusal: Callable[[RequestError], tuple[int, bytes]]
    """The status and the body with which it refuses."""
    chunks: type[Chunks] = Chunks
    metrics: type[Metrics] = Metrics
    engine: type[Engine] = Engine


def health(_: Serving) -> tuple[bytes, bytes]:
    """Nothing: the status says it."""
    return b"", JSON


def version(_: Serving) -> tuple[bytes, bytes]:
    """The version, as vLLM and trtllm-serve tell it."""
    return encode({"version": VERSION}), JSON


def prometheus(serving: Serving) -> tuple[bytes, bytes]:
    """The metrics in Prometheus's text format."""
    return serving.metrics.text(serving.engine).encode(), PROMETHEUS


def _models(serving: Serving) -> tuple[bytes, bytes]:
    """The models that are served: the one, and its adapters."""
    config = serving.config
    base: dict[str, Any] = {
        "id": config.model, "object": "model", "root": config.model, "parent": None,
        "max_model_len": config.max_model_len,
    }  # fmt: skip
    adapters = [
        {**base, "id": name, "root": name, "parent": config.model, "max_model_len": None}
        for name in config.lora_modules
    ]
    return encode({"object": "list", "data": [base, *adapters]}), JSON


def _refusal(error: RequestError) -> tuple[int, bytes]:
    return error.status, error.body()


VLLM: Final = Flavor(
    pages={
        "/health": health, "/metrics": prometheus, "/v1/models": _models, "/version": version
    },
    refusal=_refusal,
)  # fmt: skip
