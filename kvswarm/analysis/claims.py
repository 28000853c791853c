"""Does the server run what the profile claims? What /v1/models and its metrics say of it.

In:  run.json and server.parquet.  Out: the section `claims` of summary.json, and those whose
contradiction makes the figures those of something else than the profile says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import pyarrow.parquet as pq

from kvswarm.errors import ProfileError
from kvswarm.profiles.model import Profile
from kvswarm.rundir import RunDir, RunInfo
from kvswarm.serving.claims import Claim, ServerEvidence, check_claims

CACHE_CONFIG: Final = "vllm:cache_config_info"
MEANING: Final = frozenset({
    "quantization", "kv_cache_dtype", "speculative", "speculative_config", "speculative_model",
    "enable_prefix_caching", "enable_lora", "lora_modules",
})  # fmt: skip
"""Claims that say what the figures are figures of; others, such as memory, only how much fits."""


def claims_of(run: RunDir, info: RunInfo, profile: Profile) -> tuple[Claim, ...]:
    """Check what a profile, or each part of a mix, claims.

    What is no possible claim is told as one that cannot be checked: the run was measured already.
    """
    cache_config, names = _told(run)
    target = info.target
    evidence = ServerEvidence(
        model_card=target.model_card,
        models=tuple(target.models),
        cache_config=cache_config,
        metric_names=names,
        server_version=target.server_version,
        deployment_flags=tuple(target.service.flags) if target.service is not None else None,
        simulator=target.simulator,
    )
    found: dict[str, Claim] = {}
    for part in profile.parts:
        try:
            claims = check_claims(part.server_features, evidence)
            found.update({claim.key: claim for claim in claims})
        except ProfileError as error:
            sentence = f"{part.name}: cannot be checked: {error.message}"
            found[part.name] = Claim(part.name, "vllm_features", None, "unknown", sentence)
    return tuple(found.values())


def claims_section(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Claims as plain data."""
    return [asdict(claim) for claim in claims]


def contradicted(claims: Sequence[Claim]) -> tuple[str, ...]:
    """Sentences of claims whose contradiction makes the figures those of something else."""
    return tuple(
        f"the server does not run what the profile claims: {claim.sentence}"
        for claim in claims
        if claim.status == "contradicted" and claim.key in MEANING
    )


def _told(run: RunDir) -> tuple[dict[str, str], frozenset[str]]:
    """Labels of the cache's configuration, and every metric's name; nothing without a table."""
    if not run.server.exists():
        return {}, frozenset()
    names = frozenset(pq.read_table(run.server, columns=["name"])["name"].unique().to_pylist())
    if CACHE_CONFIG not in names:
        return {}, names
    labels = pq.read_table(run.server, columns=["labels"], filters=[("name", "==", CACHE_CONFIG)])
    return dict(json.loads(labels["labels"][0].as_py())), names
