"""The keys of older profiles: each finding is right for the version that is to serve them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvswarm.guardrails.check import check_profile
from kvswarm.guardrails.facts import Server
from kvswarm.serving.versions import vllm_version

OLDER = """
extends: standard
vllm_features:
  use_v2_block_manager: true
  speculative_model: "[ngram]"
  num_speculative_tokens: 5
  ngram_prompt_lookup_max: 4
  quantization: awq
  guided_decoding_backend: outlines
"""
FOUND: dict[str, dict[str, set[str]]] = {
    "0.4.2": {},  # all of them are its own, and speculation needs use_v2_block_manager
    "0.24.0": {
        "KVS025": {
            "speculative_model", "num_speculative_tokens", "ngram_prompt_lookup_max",
            "guided_decoding_backend",
        },
        "KVS032": {"use_v2_block_manager"},
    },
    "0.32.0": {
        "KVS025": {
            "speculative_model", "num_speculative_tokens", "ngram_prompt_lookup_max",
            "guided_decoding_backend",
        },
        "KVS032": {"use_v2_block_manager"},
    },
}  # fmt: skip


def found(text: str, version: str, folder: Path) -> dict[str, set[str]]:
    """Keys by the rule that they break."""
    path = folder / "older.yaml"
    path.write_text(text)
    by_rule: dict[str, set[str]] = {}
    for finding in check_profile(str(path), None, Server(version=vllm_version(version))).findings:
        by_rule.setdefault(finding.rule.id, set()).add(finding.key.removeprefix("vllm_features."))
    return by_rule


@pytest.mark.parametrize("version", FOUND)
def test_what_was_renamed_is_a_warning_where_it_was_renamed(version: str, tmp_path: Path) -> None:
    """kvswarm writes the name of today; a person who copies the key would not get far."""
    assert found(OLDER, version, tmp_path) == FOUND[version]


@pytest.mark.parametrize(
    ("version", "rule"),
    [("0.4.2", "KVS024"), ("0.6.4", "KVS027"), ("0.24.0", "KVS023"), ("0.32.0", "KVS023")],
)
def test_multi_step_scheduling_is_early_alone_or_gone(
    version: str, rule: str, tmp_path: Path
) -> None:
    """It came with 0.5.5, never went with speculation, and was gone with 0.10.1."""
    text = f"{OLDER}  num_scheduler_steps: 8\n"
    assert found(text, version, tmp_path)[rule] == {"num_scheduler_steps"}


def test_speculation_without_the_block_manager_is_refused_by_the_first_versions(
    tmp_path: Path,
) -> None:
    """Which later ones have on by themselves."""
    text = OLDER.replace("  use_v2_block_manager: true\n", "")
    assert set(found(text, "0.4.2", tmp_path)) == {"KVS030"}
    assert "KVS030" not in found(text, "0.24.0", tmp_path)
