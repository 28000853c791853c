"""What is to be served, and what a backend answers: the plain data between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvswarm.kserve.machine import Machine
from kvswarm.kserve.scaling import Mode, Scaling
from kvswarm.kserve.sources import ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One InferenceService, as a person asks for it."""

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
