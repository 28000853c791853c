"""The YAML tables beside the code, read once."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def table(name: str) -> dict[str, Any]:
    """Read `kvswarm/serving/NAME.yaml`. The result is shared: do not change it."""
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text("utf-8")
    contents: dict[str, Any] = yaml.safe_load(text)
    return contents
