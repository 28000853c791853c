"""What a profile wants its server to be: features, flags, and how much memory that takes.

In:  a profile, and where it matters a model's name or directory.
Out: plain data for `--serve`, for `kvswarm profiles NAME --flags`, and for whoever starts a server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from kvswarm.errors import ProfileError, UsageError
from kvswarm.profiles.model import Profile
from kvswarm.serving.drafts import choose_draft
from kvswarm.serving.flags import flags_as_text, vllm_flags
from kvswarm.serving.quantization import (
    expected_weights_bytes,
    kv_bytes_per_token,
    names,
    parameters_of,
    quantization,
    unquantized_parameters_of,
)

UNQUANTIZED_BYTES: Final = 2
"""Of a weight in 16 bits."""


def server_features(profile: Profile) -> dict[str, Any]:
    """Give `vllm_features` with `speculative` in it; of a mix, those of its parts together.

    Raises ProfileError where two parts want one server to be different things.
    """
    features: dict[str, Any] = {}
    for each in (profile, *(part.profile for part in profile.mix)):
        for key, value in each.server_features.items():
            if features.setdefault(key, value) != value:
                raise ProfileError(
                    f"{profile.name}: its parts want one server with {key} {features[key]!r} and "
                    f"with {value!r}",
                    fix="Say which, for all parts: --set "
                    f"{key if key == 'speculative' else f'vllm_features.{key}'}=VALUE.",
                )
    return features


def draft_of(model: str) -> dict[str, Any]:
    """What `speculative: auto` means for a model, by its name or directory. Raises ProfileError."""
    return choose_draft(model, config_of(Path(model))).config()


def config_of(directory: Path) -> dict[str, Any] | None:
    """The config.json of a model that lies here; None where there is none that can be read."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def flag_lines(profile: Profile, version: str, model: str | None) -> list[str]:
    """Describe the server for a profile: its flags in a version of vLLM, notes, and memory.

    `model`: its name, or its directory, whose config.json says how large it is. Raises
    ProfileError; UsageError where `speculative: auto` has no model to choose for.
    """
    features = server_features(profile)
    if features.get("speculative") == "auto":
        if model is None:
            raise UsageError(
                f"{profile.name}: speculative is auto, which depends on the model",
                fix="Name it with --model.",
            )
        features["speculative"] = draft_of(model)
    flags = vllm_flags(features, version)
    environment = "".join(f"{name}={value} " for name, value in flags.environment.items())
    words = f"{environment}vllm serve {model or 'MODEL'} {flags_as_text(flags)}".rstrip()
    notes = [f"# {note}" for note in flags.notes]
    config = None if model is None else config_of(Path(model))
    return [words, *notes, *_quantization_lines(features, config)]


def _quantization_lines(features: dict[str, Any], config: dict[str, Any] | None) -> list[str]:
    """What the quantization needs, and the memory of a model whose config.json is here."""
    name = names().get(str(features.get("quantization", "")).lower())
    lines = []
    if name is not None:
        method = quantization(name)
        native = method.native_from
        needs = f"compute capability {_dotted(method.weight_only_from)} or newer"
        if native is not None and native != method.weight_only_from:
            needs += f", {_dotted(native)} for arithmetic in {method.bits} bits"
        lines.append(f"# {name}: {method.bits_per_weight:.2f} bits a weight; a GPU of {needs}.")
    if config is None:
        return lines
    parameters = parameters_of(config)
    plain_bytes = parameters * UNQUANTIZED_BYTES
    sizes = f"{plain_bytes / 1e9:.3g} GB in 16 bits"
    if name is not None:
        kept = unquantized_parameters_of(config)
        weights_bytes = expected_weights_bytes(parameters, name, unquantized_parameters=kept)
        share = weights_bytes / plain_bytes
        sizes = f"{weights_bytes / 1e9:.3g} GB with {name} ({share:.0%} of {sizes})"
    token_bytes = kv_bytes_per_token(config, str(features.get("kv_cache_dtype", "auto")))
    lines.append(
        f"# Expected: {parameters / 1e6:,.1f} million parameters, weights of {sizes}, "
        f"{token_bytes / 1e3:.3g} kB of KV cache a token."
    )
    return lines


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
