"""One vLLM for all features but speculation: tools, adapters, and usage that tells cached tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, make_adapter, serving

ADAPTERS = ("adapter-1", "adapter-2")
FLAGS = [
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    "--enable-prompt-tokens-details",
    "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8",
]  # fmt: skip


@pytest.fixture(scope="package")
def server(
    vllm_python: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server, with two adapters made on the spot."""
    directory = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(ADAPTERS):
        make_adapter(vllm_python, directory / name, model, seed)
    modules = [f"{name}={directory / name}" for name in ADAPTERS]
    with serving(vllm_python, model, *FLAGS, "--lora-modules", *modules) as running:
        yield running


@pytest.fixture(scope="package")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run directories go; their number gives every run a seed of its own."""
    return tmp_path_factory.mktemp("runs")
