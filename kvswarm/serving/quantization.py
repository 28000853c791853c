"""How a method of quantization is served, what GPU it needs, and how large a model is with it.

In:  a method as profiles name it; the contents of a model's `config.json`.
Out: `Quantization`; bytes of weights and of KV cache; counts of parameters.
Not: reading files or asking servers. Source of each figure: `quantization.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from kvswarm.errors import ProfileError
from kvswarm.serving.problems import nearest
from kvswarm.serving.tables import table
from kvswarm.serving.versions import Version, vllm_version

UNQUANTIZED_BITS: Final = 16

DENSE: Final = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})
EXPERTS: Final = frozenset({"mixtral", "qwen3_moe"})
"""`model_type`s whose parameters are counted exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """One method. A compute capability is `(major, minor)`, as NVIDIA counts: (8, 9) is Ada."""

    method: str
    flag: str | None
    """What `--quantization` takes; None: the checkpoint's own quant_method decides."""
    why: str
    why_since: Version | None
    """`why` holds from this version on; None: in all."""
    bits: int
    bits_per_weight: float
    """With its share of scales and zero points."""
    layout: str
    weight_only_from: tuple[int, int]
    """Least compute capability at which it runs at all, with arithmetic in 16 bits."""
    native_from: tuple[int, int] | None
    """Least compute capability with arithmetic in these bits; None: never."""
    flags: tuple[str, ...]
    """Every value of `--quantization` that means it, in vLLM of any age."""
    checkpoints: tuple[str, ...]
    """`quant_method` in the config.json of such a checkpoint."""
    source: str


@cache
def methods() -> dict[str, Quantization]:
    """Every method by its name."""
    return {
        name: Quantization(
            method=name,
            flag=entry["flag"],
            why=entry["why"],
            why_since=vllm_version(entry["why_since"]) if "why_since" in entry else None,
            bits=entry["bits"],
            bits_per_weight=entry["bits_per_weight"],
            layout=entry["layout"],
            weight_only_from=_capability(entry["weight_only"]),
            native_from=None if entry["native"] is None else _capability(entry["native"]),
            flags=tuple(entry["flags"]),
            checkpoints=tuple(entry["checkpoints"]),
            source=entry["source"],
        )
        for name, entry in table("quantization")["methods"].items()
    }


@cache
def names() -> dict[str, str]:
    """Every spelling of a method, and the method it means."""
    entries = table("quantization")["methods"].items()
    return {spelling: name for name, entry in entries for spelling in (name, *entry["also"])}


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def quantization(method: str) -> Quantization:
    """Look a method up by any of its names. Raises ProfileError: none is called that."""
    name = names().get(method.lower())
    if name is None:
        raise ProfileError(
            f"{method!r} is no method of quantization.{nearest(method, names())}",
            fix=f"Known are {', '.join(methods())}.",
        )
    return methods()[name]


def quantizes_at_start(method: str, version: Version) -> bool:
    """Whether a version of vLLM makes it of a checkpoint in 16 bits; else it takes its own only.

    Raises ProfileError for an unknown method.
    """
    found = quantization(method)
    return found.flag is not None and found.why_since is not None and version < found.why_since


def expected_weights_bytes(
    parameters: int, method: str | None, *, unquantized_parameters: int = 0
) -> int:
    """Bytes of a model's weights; `method` None: 16 bits each.

    `unquantized_parameters` of them stay in 16 bits: quantizers leave embeddings, the output layer
    and norms alone (`unquantized_parameters_of`). Without it the result is a lower bound,
    for an 8B model in 4 bits by a quarter too low. Raises ProfileError for an unknown method.
    """
    bits = UNQUANTIZED_BITS if method is None else quantization(method).bits_per_weight
    quantized = parameters - unquantized_parameters
    return round((quantized * bits + unquantized_parameters * UNQUANTIZED_BITS) / 8)


def kv_bytes_per_token(config: Mapping[str, Any], kv_cache_dtype: str = "auto") -> int:
    """Bytes of KV cache that one token takes, over all layers and GPUs.

    2 x layers x kv_heads x head_dim x bytes of an element; for latent attention (DeepSeek's MLA)
    layers x (kv_lora_rank + qk_rope_head_dim) x bytes. `auto` is the model's own dtype. Layers with
    a sliding window keep no more than the window: for models with those it is an upper bound.
    Raises ProfileError: a key is missing, or the dtype has no fixed size.
    """
    text = _text(config)
    element_bytes = _element_bytes(config, kv_cache_dtype)
    layers = _count(text, "num_hidden_layers")
    if "kv_lora_rank" in text:
        latent = _count(text, "kv_lora_rank") + _count(text, "qk_rope_head_dim")
        return layers * latent * element_bytes
    return 2 * layers * _kv_heads(text) * _head_dim(text) * element_bytes


def parameters_of(config: Mapping[str, Any]) -> int:
    """Count the parameters of a Llama-like model from its config.json, exactly.

    Each layer has four attention matrices, three of the MLP (per expert, and a router, where there
    are experts) and two norms; around them are the embeddings, the output layer unless it is tied
    to them, and a norm. Raises ProfileError for other architectures and for missing keys.
    """
    hidden = _count(config, "hidden_size")
    layers = _count(config, "num_hidden_layers")
    attention = _attention_parameters(config)
    mlps = sum(_mlp_parameters(config, layer) for layer in range(layers))
    return _embedding_parameters(config) + layers * (attention + 2 * hidden) + mlps + hidden


def unquantized_parameters_of(config: Mapping[str, Any]) -> int:
    """Count the parameters that quantizers leave in 16 bits: embeddings, output layer, norms.

    Norms and biases within attention and routers of experts are left out of the count: they are
    less than 0.1 % of a model. Raises ProfileError as `parameters_of` does.
    """
    hidden = _count(config, "hidden_size")
    return _embedding_parameters(config) + (2 * _count(config, "num_hidden_layers") + 1) * hidden


def _embedding_parameters(config: Mapping[str, Any]) -> int:
    matrices = 1 if config.get("tie_word_embeddings", False) else 2
    return matrices * _count(config, "vocab_size") * _count(config, "hidden_size")


def _attention_parameters(config: Mapping[str, Any]) -> int:
    kind = _known_kind(config)
    hidden = _count(config, "hidden_size")
    queries = _count(config, "num_attention_heads") * _head_dim(config)
    keys = _kv_heads(config) * _head_dim(config)
    total = 2 * hidden * queries + 2 * hidden * keys
    if kind == "qwen2":
        total += queries + 2 * keys
    elif config.get("attention_bias", False):
        total += queries + 2 * keys + hidden
    if kind.startswith("qwen3"):
        total += 2 * _head_dim(config)
    return total


def _mlp_parameters(config: Mapping[str, Any], layer: int) -> int:
    hidden = _count(config, "hidden_size")
    kind = _known_kind(config)
    if kind == "mixtral":
        experts = _count(config, "num_local_experts")
        return experts * (3 * hidden * _count(config, "intermediate_size") + hidden)
    if kind == "qwen3_moe":
        named = config.get("mlp_only_layers")
        dense = isinstance(named, list) and layer in named
        given = config.get("decoder_sparse_step") is not None
        every = _count(config, "decoder_sparse_step") if given else 1
        if not dense and (layer + 1) % every == 0:
            experts = _count(config, "num_experts")
            return experts * (3 * hidden * _count(config, "moe_intermediate_size") + hidden)
    width = _count(config, "intermediate_size")
    biases = 2 * width + hidden if config.get("mlp_bias", False) else 0
    return 3 * hidden * width + biases


def _known_kind(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in DENSE | EXPERTS:
        raise ProfileError(
            f"config.json: model_type is {kind!r}, whose parameters kvswarm cannot count",
            fix=f"It counts {', '.join(sorted(DENSE | EXPERTS))}; for others see the model's page.",
        )
    return kind


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the part on the language model: models that see keep it in `text_config`."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProfileError(
            f"config.json: {key} is {value!r}; a count of 1 or more is needed",
            fix="Give the whole config.json of the model, as it lies beside its weights.",
        )
    return value


def _kv_heads(config: Mapping[str, Any]) -> int:
    return _count(
        config,
        "num_attention_heads"
        if config.get("num_key_value_heads") is None
        else "num_key_value_heads",
    )


def _head_dim(config: Mapping[str, Any]) -> int:
    if config.get("head_dim") is not None:
        return _count(config, "head_dim")
    return _count(config, "hidden_size") // _count(config, "num_attention_heads")


def _element_bytes(config: Mapping[str, Any], kv_cache_dtype: str) -> int:
    dtype: object = kv_cache_dtype
    if dtype == "auto":
        # Newer files of transformers say dtype, older ones torch_dtype.
        of_text = _text(config)
        dtypes = (part.get(key) for part in (of_text, config) for key in ("dtype", "torch_dtype"))
        dtype = next((found for found in dtypes if found is not None), None)
    sizes: dict[str, int] = table("quantization")["kv_cache_bytes"]
    if dtype not in sizes:
        where = "config.json has no dtype" if dtype is None else f"kv_cache_dtype is {dtype!r}"
        raise ProfileError(
            f"{where}: the size of an element of the KV cache is not known",
            fix=f"Give kv_cache_dtype as one of {', '.join(sizes)}.",
        )
    return sizes[str(dtype)]
