"""How much of a GPU's memory a model's weights and KV cache take.

In:  `Architecture`, and how the model is spread and stored.
Out: `Parameters`, bytes of weights, `KvCache`.

Formulas. Weights: parameters x bits / 8. KV cache of one token in one layer: 2 x kv_heads x
head_dim x bytes of an element, or with latent attention (MLA) one vector for all heads. Tensor
parallelism of t gives each GPU 1/t of the weights and of the KV heads, but at least one head, and
the whole latent vector; pipeline parallelism of p gives it 1/p of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvswarm.errors import ProfileError
from kvswarm.serving.architecture import (
    FULL,
    WINDOW,
    Architecture,
    Experts,
    text_part,
    weight_bits_of,
)
from kvswarm.serving.quantization import names, parameters_of, quantization
from kvswarm.serving.tables import table

UNQUANTIZED_BITS: Final = 16
DTYPE_BITS: Final = {"float32": 32, "float": 32, "float16": 16, "half": 16, "bfloat16": 16}
SCALE_SHARE: Final = 1 / 32
"""Of a 4-bit weight's size: the 16-bit scale of each group of 128. A smaller share with 8 bits."""
EXPERTS_ONLY: Final = "mxfp4"
"""The method that leaves everything but the experts alone."""
MLP_MATRICES: Final = 3
"""Gate, up and down: the gated MLP of every model family since Llama."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Counts of parameters. All are of the language model alone."""

    total: int
    active: int
    """Those that one token passes through: of the experts, the chosen and the shared ones."""
    embedding: int
    """The input embedding: looked up, not multiplied by."""
    output: int
    """The output layer, tied to the embedding or not: multiplied by once per token made."""
    routed_experts: int
    """Those of all experts that a router chooses among."""
    is_exact: bool
    """False: an estimate from the shape, for an architecture that is not counted exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Over how many GPUs one model is spread."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """What the past takes on each GPU. A sequence of n tokens takes `bytes_of(n)`."""

    full_bytes_per_token: int
    """Over the layers that keep every token."""
    window_bytes_per_token: int
    """Over the layers that keep a window of them."""
    window_tokens: int

    @property
    def bytes_per_token(self) -> int:
        """While a sequence is shorter than the window."""
        return self.full_bytes_per_token + self.window_bytes_per_token

    def bytes_of(self, tokens: int) -> int:
        """Bytes of one sequence of so many tokens."""
        kept = min(tokens, self.window_tokens)
        return self.full_bytes_per_token * tokens + self.window_bytes_per_token * kept


def count_parameters(architecture: Architecture, config: Mapping[str, Any]) -> Parameters | None:
    """Count a model's parameters: exactly where its family is known, else from its shape.

    None: config.json lacks what counting needs. Layers without attention are counted as if they had
    it, which is right within some percent.
    """
    a = architecture
    if not (a.layers and a.hidden_size and a.heads and a.head_dim and a.vocabulary):
        return None
    embedding = a.vocabulary * a.hidden_size
    routed = _routed(a.experts, a.hidden_size)
    total = _exact(config)
    is_exact = total is not None
    if total is None:
        total = _estimated(a, text_part(config), embedding, routed)
        if total is None:
            return None
    idle = 0 if a.experts is None else routed * (a.experts.count - a.experts.chosen)
    return Parameters(
        total=total,
        active=total - (idle // a.experts.count if a.experts else 0),
        embedding=embedding,
        output=embedding,
        routed_experts=routed,
        is_exact=is_exact,
    )


def _exact(config: Mapping[str, Any]) -> int | None:
    try:
        return parameters_of(text_part(config))
    except ProfileError:
        return None


def _routed(experts: Experts | None, hidden: int) -> int:
    if experts is None:
        return 0
    return experts.layers * experts.count * MLP_MATRICES * hidden * experts.width


def _estimated(a: Architecture, text: Mapping[str, Any], embedding: int, routed: int) -> int | None:
    hidden, layers = a.hidden_size or 0, a.layers or 0
    dense_layers, shared = layers, 0
    if a.experts is not None:
        dense_layers -= a.experts.layers
        router_and_shared = a.experts.count + MLP_MATRICES * a.experts.shared * a.experts.width
        shared = a.experts.layers * hidden * router_and_shared
    if dense_layers and a.mlp_width is None:
        return None
    dense = dense_layers * MLP_MATRICES * hidden * (a.mlp_width or 0)
    attention = layers * (_latent_attention(a, text) or _attention(a))
    matrices = embedding if a.tied_embeddings else 2 * embedding
    return matrices + attention + dense + shared + routed


def _attention(a: Architecture) -> int:
    heads, kv_heads = a.heads or 0, a.kv_heads or 0
    return (2 * heads + 2 * kv_heads) * (a.head_dim or 0) * (a.hidden_size or 0)


def _latent_attention(a: Architecture, text: Mapping[str, Any]) -> int | None:
    """Count the matrices of MLA: queries through their own latent, keys and values from one."""
    if a.latent_width is None:
        return None
    hidden, heads = a.hidden_size or 0, a.heads or 0
    keys = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    sizes = [text.get(key) for key in keys]
    if not all(isinstance(size, int) for size in sizes):
        return None
    rank, nope, rope, value = (int(str(size)) for size in sizes)
    query_rank = text.get("q_lora_rank")
    queries = heads * (nope + rope)
    if isinstance(query_rank, int) and query_rank > 0:
        query = hidden * query_rank + query_rank * queries
    else:
        query = hidden * queries
    return query + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def weights_bytes(
    architecture: Architecture, parameters: Parameters, method: str | None
) -> int | None:
    """Bytes of all weights as the server holds them.

    `method`: what the server is asked to quantize by, None: as the checkpoint is. Embeddings and
    the output layer stay in 16 bits; in mxfp4 (gpt-oss) all but the experts. None: the method's
    bits are not known.
    """
    bits = _weight_bits(architecture, method)
    if bits is None:
        return None
    matrices = 1 if architecture.tied_embeddings else 2
    kept = min(matrices * parameters.embedding, parameters.total)
    if architecture.quant_method == EXPERTS_ONLY:
        kept = parameters.total - parameters.routed_experts
    kept_bits = max(bits, UNQUANTIZED_BITS)
    return round(((parameters.total - kept) * bits + kept * kept_bits) / 8)


def _weight_bits(architecture: Architecture, method: str | None) -> float | None:
    if architecture.quant_method is None and method is None:
        dtype = architecture.dtype or "bfloat16"
        # vLLM loads a checkpoint in 32 bits as 16 bits (dtype auto).
        return min(DTYPE_BITS.get(dtype, UNQUANTIZED_BITS), UNQUANTIZED_BITS)
    for name in (architecture.quant_method, method):
        if name in _BITS_OF_FLAGS:
            return _BITS_OF_FLAGS[name]
    stored = weight_bits_of(architecture)
    if stored is not None:
        return stored * (1 + SCALE_SHARE)
    for name in (architecture.quant_method, method):
        if name is not None and name.lower() in names():
            return quantization(name).bits_per_weight
    return None


_BITS_OF_FLAGS: Final[Mapping[str | None, float]] = {
    "fp8_per_tensor": 8, "fp8_per_block": 8.0078125, "fp8_per_channel": 8.0078125,
    "fbgemm_fp8": 8.0078125, "modelopt": 8.0078125, "experts_int8": 8.0078125, "mxfp8": 8.25,
    "int8_per_channel_weight_only": 8.0078125, "awq_marlin": 4.15625, "gptq_marlin": 4.15625,
    "mxfp4": 4.25, "modelopt_fp4": 4.5, "nvfp4": 4.5, "bitsandbytes": 4.5,
}  # fmt: skip
"""Bits of a weight with its scales, for values of --quantization not in `quantization.yaml`."""


def kv_element_bytes(architecture: Architecture, kv_cache_dtype: str) -> float | None:
    """Bytes of one element of the KV cache; `auto` is the model's own dtype. None: not known."""
    dtype = (architecture.dtype or "bfloat16") if kv_cache_dtype == "auto" else kv_cache_dtype
    sizes: Mapping[str, float] = table("quantization")["kv_cache_bytes"]
    if kv_cache_dtype == "auto" and dtype in {"float32", "float"}:
        return sizes["float16"]
    return sizes.get(dtype)


def kv_cache(
    architecture: Architecture, spread: Spread, kv_cache_dtype: str = "auto"
) -> KvCache | None:
    """Say what the past takes on each GPU; None: config.json does not tell enough.

    Layers with a fixed state instead (Mamba, linear attention) are left out: their state does not
    grow with the tokens.
    """
    a = architecture
    element = kv_element_bytes(a, kv_cache_dtype)
    if element is None or not a.layers:
        return None
    if a.latent_width is not None:
        width: float = a.latent_width
    elif a.kv_heads and a.head_dim:
        width = 2 * max(a.kv_heads // spread.tensor, 1) * a.head_dim
    else:
        return None
    per_layer = width * element
    share = math.ceil(a.layers / spread.pipeline) / a.layers
    return KvCache(
        full_bytes_per_token=round(a.layer_kinds.count(FULL) * share * per_layer),
        window_bytes_per_token=round(a.layer_kinds.count(WINDOW) * share * per_layer),
        window_tokens=a.window_tokens or 0,
    )
