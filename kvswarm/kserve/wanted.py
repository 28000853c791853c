"""What is to be served, and what a backend answers: the plain data between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvswarm.kserve.machine import Machine
from kvswarm.kserve.scaling import Mode, Scaling
from kvswarm.kserve.sources import ModelSource

Form = Literal["isvc", "llm"]
"""InferenceService, or LLMInferenceService."""
Router = Literal["none", "route", "scheduler"]
"""What leads to an LLMInferenceService: nothing, a route, or a route that goes by a scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A part of the traffic for something new. `model` and `image`: what is new about it."""

    traffic_percent: int
    model: ModelSource | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmOptions:
    """What an LLMInferenceService has and an InferenceService has not."""

    router: Router = "route"
    gateway: str | None = None
    """`name`, or `namespace/name`, of a Gateway. None: the one that KServe is configured with."""
    prefill_replicas: int = 0
    """Replicas that only read prompts, beside those that write answers. 0: all do both."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapters to load: name to URI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One service, as a person asks for it."""

    backend: str
    service: str
    namespace: str
    source: ModelSource
    features: Mapping[str, Any] = field(default_factory=dict)
    """As `vllm_features`, with `speculative` in it, whatever the backend is."""
    adapters: tuple[str, ...] = ()
    """Adapters that the profile's requests name."""
    timeout_s: float = 1800.0
    """Longest that a request of the profile may take."""
    mode: Mode = "standard"
    machine: Machine = field(default_factory=Machine)
    scaling: Scaling = field(default_factory=Scaling)
    image: str | None = None
    """Takes the place of the backend's own."""
    vllm_version: str | None = None
    """None: that of the backend's image."""
    form: Form = "isvc"
    nodes: int = 1
    """Nodes that one replica is spread over; `machine` is then a node's share of it."""
    canary: Canary | None = None
    llm: LlmOptions = field(default_factory=LlmOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How a backend serves it. Arguments and environment are the container's."""

    model_format: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    """None: the one that the cluster's own runtime names."""
    runtime: RuntimeShape | None = None
    """None: KServe has a runtime for `model_format`."""
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Features that the backend has no words for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeShape:
    """What a ServingRuntime of one's own needs beside its arguments."""

    port: int
    metrics_path: str
    health_path: str = "/health"
    command: tuple[str, ...] = ()
    """Empty: the image's own."""
    config_file: str | None = None
    """Text of a file that the arguments name as `CONFIG_PATH`; it becomes a ConfigMap."""


CONFIG_DIRECTORY = "/etc/kvswarm"
CONFIG_NAME = "server.yaml"
CONFIG_PATH = f"{CONFIG_DIRECTORY}/{CONFIG_NAME}"
