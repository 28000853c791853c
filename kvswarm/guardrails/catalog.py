"""All rules, in the order of their ids.

KVS001 to KVS019 are about the profile and its load, KVS020 to KVS039 about flags of the server,
KVS040 to KVS059 about requests, structured output and tools, KVS060 to KVS069 about speculation,
KVS070 to KVS079 about adapters, KVS080 to KVS099 about CPUs and attention, KVS100 to KVS149 about
memory, GPUs and quantization, KVS150 and more about KServe.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from kvswarm.errors import UsageError
from kvswarm.guardrails.rule import Rule
from kvswarm.guardrails.rules import (
    flags,
    gpu,
    kserve,
    kv_cache,
    load,
    memory,
    profile,
    quantization,
    requests,
    speculation,
)
from kvswarm.profiles.problems import nearest

THEMES: Final = (
    ("The profile", profile.RULES),
    ("The load", load.RULES),
    ("Requests and what serves them", requests.RULES),
    ("Flags of the server", flags.RULES),
    ("Speculative decoding", speculation.RULES),
    ("The KV cache, and CPUs", kv_cache.RULES),
    ("Memory", memory.RULES),
    ("GPUs", gpu.RULES),
    ("Quantization", quantization.RULES),
    ("KServe", kserve.RULES),
)
"""Title and rules of each file of `rules/`."""


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, by id."""
    return tuple(sorted((rule for _, rules in THEMES for rule in rules), key=lambda rule: rule.id))


def rule_of(rule_id: str) -> Rule:
    """Find a rule by its id, in any case. Raises UsageError."""
    ids = {rule.id: rule for rule in all_rules()}
    rule = ids.get(rule_id.upper())
    if rule is None:
        raise UsageError(
            f"{rule_id}: there is no such rule.{nearest(rule_id.upper(), ids)}",
            fix=f"Rules go from {min(ids)} to {max(ids)}; docs/rules.md lists them.",
        )
    return rule
