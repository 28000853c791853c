"""Which features of serving a run had, and what is usually claimed of them.

In:  run.json and the summary of a run.  Out: names of features, as in impact.yaml.

What the server itself told counts first (its cache configuration, its counters of drafts); then the
profile, and the flags of the server that a run started or found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import msgspec
import yaml

from kvswarm.rundir import RunInfo

QUANTIZATIONS: Final = {
    "awq": "awq", "awq_marlin": "awq", "autoawq": "awq", "gptq": "gptq", "gptq_marlin": "gptq",
    "fp8": "fp8", "modelopt": "fp8", "fbgemm_fp8": "fp8", "int8": "int8", "w8a8": "int8",
    "int4": "int4", "w4a16": "int4",
}  # fmt: skip
"""Names of methods in flags and profiles, and which row of the table each is."""
QUANTIZATION_FLAG: Final = re.compile(r"(?:--quantization|-q)[ =]+([\w-]+)")
LORA: Final = "lora"
OF_WORKLOAD: Final = {
    "structured_output": ("structured_output",),
    "tool_calling": ("tool_calling",),
    LORA: ("adapters",),
}
"""Features of requests, and the parts of a profile in which their runs differ of necessity."""
WITHIN: Final = {
    "constrained": "structured_output",
    "shared prefix": "prefix_caching",
    "prefix hit": "prefix_caching",
}
"""Variants within one run whose effect against their own reference is that of a feature."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is usually said: a figure's change lies between two shares of the baseline's."""

    figure: str
    low_share: float
    high_share: float
    claim: str
    source: str


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    claims: list[Claim]


@lru_cache(maxsize=1)
def features() -> dict[str, Feature]:
    """All features that claims are known of, by their key."""
    text = resources.files("kvswarm.analysis").joinpath("impact.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text)["features"], dict[str, Feature])


def features_of(info: RunInfo, summary: Mapping[str, Any]) -> set[str]:
    """Keys of the features that a run had."""
    profile = info.profile
    server_features = profile.get("vllm_features") or {}
    flags = " ".join([*info.argv, *(info.target.service.flags if info.target.service else [])])
    server = summary.get("server") or {}
    found = {key for key, names in OF_WORKLOAD.items() if any(profile.get(n) for n in names)}
    drafts = (server.get("speculation") or {}).get("drafts")
    if drafts or profile.get("speculative") or "--speculative-config" in flags:
        found.add("speculation")
    asked = QUANTIZATION_FLAG.search(flags)
    method = server_features.get("quantization") or (asked[1] if asked else None)
    if method is not None and (key := QUANTIZATIONS.get(str(method).lower().replace("-", "_"))):
        found.add(key)
    cached = (server.get("kv_cache") or {}).get("enable_prefix_caching")
    told = server_features.get("enable_prefix_caching") if cached is None else cached
    if str(told).lower() == "true":
        found.add("prefix_caching")
    return found
