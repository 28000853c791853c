"""What a model is, as its config.json says: layers, heads, experts, windows, quantization.

In:  the contents of config.json.
Out: `Architecture`; None in a field: the file does not say.
Not: weights (`memory.py`), files (`model_files.py`).

Models that see or hear keep their language model in `text_config`; that part counts here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

FULL: Final = "full"
WINDOW: Final = "window"
STATE: Final = "state"
"""Kinds of layers by what they keep of the past: all tokens, a window of them, or a fixed state."""

_KINDS: Final[Mapping[str, str]] = {
    "full_attention": FULL, "attention": FULL, "global": FULL, "hybrid": FULL, "*": FULL,
    "sliding_attention": WINDOW, "chunked_attention": WINDOW, "sliding": WINDOW, "local": WINDOW,
    "linear_attention": STATE, "mamba": STATE, "mamba2": STATE, "recurrent": STATE, "conv": STATE,
    "short_conv": STATE, "M": STATE, "-": STATE, "E": STATE,
}  # fmt: skip
"""Spellings in `layer_types`, `layers_block_type` and `hybrid_override_pattern`."""

_LENGTHS: Final = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip

GEMMA_2_PERIOD: Final = 2
"""Every second layer of Gemma 2 has full attention; its config.json does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts. `shared` take part for every token, besides the chosen ones."""

    count: int
    chosen: int
    shared: int
    width: int
    """Of the MLP in one expert."""
    layers: int
    """How many layers have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model's shape. `head_dim` is of one head; widths are numbers of elements."""

    name: str | None
    """The class that transformers loads, such as LlamaForCausalLM."""
    model_type: str | None
    layers: int | None
    hidden_size: int | None
    mlp_width: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    latent_width: int | None
    """Of the one vector per token and layer that latent attention (MLA) keeps; None: it is not."""
    vocabulary: int | None
    max_positions: int | None
    """Longest sequence that the model was made for, with its rope scaling."""
    dtype: str | None
    experts: Experts | None
    window_tokens: int | None
    layer_kinds: tuple[str, ...]
    """`full`, `window` or `state`, by layer."""
    quantization: Mapping[str, Any] | None
    """`quantization_config` as it stands."""
    tied_embeddings: bool

    @property
    def quant_method(self) -> str | None:
        """How the checkpoint is quantized; None: it is not."""
        method = (self.quantization or {}).get("quant_method")
        return None if method is None else str(method).lower()


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the part of config.json on the language model."""
    for key in ("text_config", "llm_config", "language_config"):
        part = config.get(key)
        if isinstance(part, Mapping):
            return part
    thinker = config.get("thinker_config")
    return text_part(thinker) if isinstance(thinker, Mapping) else config


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Read config.json; what is missing or no number is None."""
    text = text_part(config)
    layers = _count(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _count(text, "num_attention_heads", "n_head", "num_heads")
    hidden = _count(text, "hidden_size", "n_embd", "d_model")
    names = config.get("architectures")
    quantization = config.get("quantization_config", text.get("quantization_config"))
    head_dim = _count(text, "head_dim", "kv_channels")
    if head_dim is None and hidden and heads:
        head_dim = hidden // heads
    kinds, window = _layers(text, layers or 0)
    return Architecture(
        name=str(names[0]) if isinstance(names, list) and names else None,
        model_type=_word(text, "model_type") or _word(config, "model_type"),
        layers=layers,
        hidden_size=hidden,
        mlp_width=_count(text, "intermediate_size", "ffn_dim", "n_inner"),
        heads=heads,
        kv_heads=_count(text, "num_key_value_heads", "multi_query_group_num", "num_kv_heads")
        or heads,
        head_dim=head_dim,
        latent_width=_latent_width(text),
        vocabulary=_count(text, "vocab_size"),
        max_positions=_max_positions(text),
        dtype=_dtype(text) or _dtype(config),
        experts=_experts(text, layers or 0),
        window_tokens=window,
        layer_kinds=kinds,
        quantization=quantization if isinstance(quantization, Mapping) else None,
        tied_embeddings=bool(
            text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        ),
    )


def weight_bits_of(architecture: Architecture) -> int | None:
    """Bits of a quantized weight, as the checkpoint says; None: not quantized, or not said."""
    quantization = architecture.quantization
    if quantization is None:
        return None
    for key in ("bits", "w_bit", "weight_bits", "num_bits"):
        bits = _count(quantization, key)
        if bits is not None:
            return bits
    groups = quantization.get("config_groups")
    if isinstance(groups, Mapping):
        weights = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
        found = [_count(each, "num_bits") for each in weights if isinstance(each, Mapping)]
        return next((bits for bits in found if bits is not None), None)
    return {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "nvfp4": 4}.get(architecture.quant_method or "")


def _count(config: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _word(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) else None


def _dtype(config: Mapping[str, Any]) -> str | None:
    # Newer files of transformers say dtype, older ones torch_dtype.
    return _word(config, "dtype") or _word(config, "torch_dtype")


def _latent_width(text: Mapping[str, Any]) -> int | None:
    rank, rope = _count(text, "kv_lora_rank"), _count(text, "qk_rope_head_dim")
    return None if rank is None else rank + (rope or 0)


def _max_positions(text: Mapping[str, Any]) -> int | None:
    """Derive the longest sequence as vLLM does: the smallest of the lengths, scaled where due.

    Only linear and dynamic scaling multiply; for yarn the file's length has the factor in it
    already, or older versions of vLLM put it there (vllm/config/model.py).
    """
    lengths = [length for key in _LENGTHS if (length := _count(text, key))]
    longest = _count(text, "model_max_length") or min(lengths, default=None)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if longest is None or not isinstance(scaling, Mapping):
        return longest
    factor = scaling.get("factor")
    if not _is_number(factor) or "gemma3" in str(text.get("model_type")):
        return longest
    kind = scaling.get("rope_type", scaling.get("type"))
    # A tuple, not a set: the file may hold anything here, a list too, which no set can look up.
    if kind in ("linear", "dynamic"):
        return int(longest * float(str(factor)))
    original = _count(scaling, "original_max_position_embeddings")
    if kind == "yarn" and original:
        return max(longest, int(original * float(str(factor))))
    return longest


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _layers(text: Mapping[str, Any], layers: int) -> tuple[tuple[str, ...], int | None]:
    """Tell the kind of each layer, and the window of those that have one."""
    window = _count(text, "sliding_window", "attention_chunk_size")
    if text.get("use_sliding_window") is False:
        window = None
    listed = _listed(text)
    if listed is not None and len(listed) == layers:
        kinds = tuple(_KINDS.get(each, FULL) for each in listed)
        return (kinds, window) if window else (_widened(kinds), None)
    full_each = _count(text, "full_attention_interval", "attn_layer_period")
    if full_each:
        offset = text.get("attn_layer_offset", full_each - 1)
        kinds = tuple(FULL if at % full_each == offset else STATE for at in range(layers))
        return kinds, None
    if window is None:
        return (FULL,) * layers, None
    period = _count(text, "sliding_window_pattern")
    if period is None and text.get("model_type") == "gemma2":
        period = GEMMA_2_PERIOD
    if period is None:
        return (WINDOW,) * layers, window
    return tuple(WINDOW if (at + 1) % period else FULL for at in range(layers)), window


def _listed(text: Mapping[str, Any]) -> Sequence[str] | None:
    for key in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        listed = text.get(key)
        if isinstance(listed, str) or (
            isinstance(listed, list) and all(isinstance(each, str) for each in listed)
        ):
            return listed
    return None


def _widened(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Take layers with a window of no known length as full ones: an upper bound."""
    return tuple(FULL if kind == WINDOW else kind for kind in kinds)


def _experts(text: Mapping[str, Any], layers: int) -> Experts | None:
    count = _count(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if count is None or count == 1:
        return None
    width = _count(text, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    step = _count(text, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    dense_first = _count(text, "first_k_dense_replace") or 0
    dense_named = text.get("mlp_only_layers")
    dense = dense_named if isinstance(dense_named, list) else []
    sparse = [at for at in range(dense_first, layers) if (at + 1) % step == 0 and at not in dense]
    shared = _count(text, "n_shared_experts", "num_shared_experts") or 0
    shared_width = _count(text, "shared_expert_intermediate_size")
    if not shared and shared_width and width:
        shared = max(shared_width // width, 1)
    chosen = _count(
        text, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts"
    )
    return Experts(
        count=count,
        # A file that does not say how many are chosen may mean all of them.
        chosen=min(chosen or count, count),
        shared=shared,
        width=width or 0,
        layers=len(sparse),
    )
