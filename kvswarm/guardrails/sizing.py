"""What the facts say of sizes: the device, the model's shape, and the estimate of both.

None wherever a fact is missing: rules about sizes are silent then, for they must not guess.
"""

from __future__ import annotations

from typing import Any

from kvswarm.errors import UsageError
from kvswarm.guardrails.facts import Facts
from kvswarm.profiles.model import Lengths, Profile
from kvswarm.serving.architecture import Architecture, architecture_of
from kvswarm.serving.estimate import Asked, Estimate, Workload, estimate, spread_of
from kvswarm.serving.gpus import Device, device_named
from kvswarm.serving.memory import Spread


def device_of(facts: Facts) -> Device | None:
    """The GPU or slice that one shard runs on; None: not said, not known, or a CPU."""
    if facts.server.gpu is None or facts.on_cpu:
        return None
    try:
        return device_named(facts.server.gpu, facts.server.mig)
    except UsageError:
        return None


def model_of(facts: Facts) -> Architecture | None:
    """The model's shape; None: its config.json is not known."""
    return None if facts.server.config is None else architecture_of(facts.server.config)


def sized_features(facts: Facts) -> dict[str, Any]:
    """The features that have a value of their kind."""
    return {key: value for key in facts.features if (value := facts.value(key)) is not None}


def spread(facts: Facts) -> Spread:
    """Over how many GPUs one copy of the model is spread."""
    return spread_of(sized_features(facts))


def estimate_of(facts: Facts) -> Estimate | None:
    """The estimate for the facts; None: model or GPU is not known, or vLLM does not serve."""
    device = device_of(facts)
    if device is None or facts.server.config is None or facts.server.runtime != "vllm":
        return None
    asked = Asked(
        config=facts.server.config,
        device=device,
        features=sized_features(facts),
        version=facts.server.version,
        stored_weights_bytes=facts.server.weights_bytes,
    )
    return estimate(asked, workload_of(facts))


def workload_of(facts: Facts) -> Workload:
    """What the profile sends at a time; of a mix, its longest part."""
    profiles = [written.profile for written in facts.written.senders]
    longest = max(profiles, key=lambda profile: sum(_lengths(profile)))
    prompt_tokens, output_tokens = _lengths(longest)
    return Workload(
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        sequences=facts.peak_users or None,
    )


def _lengths(profile: Profile) -> tuple[int, int]:
    turns = profile.conversation.turns if profile.conversation else 1
    prompt = profile.prompt
    sent = _mean(prompt.input_tokens) + prompt.shared_prefix_tokens
    return round(sent * (1 + turns) / 2), round(_mean(prompt.output_tokens))


def _mean(lengths: Lengths) -> float:
    if lengths.kind == "values" and lengths.values:
        return sum(lengths.values) / len(lengths.values)
    if lengths.kind == "uniform":
        return (lengths.min_tokens + lengths.max_tokens) / 2
    return lengths.mean_tokens or lengths.max_tokens
