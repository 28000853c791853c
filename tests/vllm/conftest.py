"""The vLLM that `make test-vllm` installs, and the tiny model that it serves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serving import make_model

PYTHON_VARIABLE = "KVSWARM_VLLM_PYTHON"


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The python of the vLLM venv; skips where there is none."""
    python = os.environ.get(PYTHON_VARIABLE)
    if not python:
        pytest.skip(f"{PYTHON_VARIABLE} is not set: `make test-vllm` installs vLLM and runs these")
    return python


@pytest.fixture(scope="session")
def model(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the tiny model."""
    directory = tmp_path_factory.mktemp("vllm") / "tiny"
    make_model(vllm_python, directory)
    return directory
