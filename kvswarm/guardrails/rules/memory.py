"""Rules about memory: whether weights, KV cache and sequences fit, by the estimate.

An error is certain: it would hold with no reserve at all for activations and graphs. What depends
on the reserve, which is an estimate, is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.guardrails.sizing import estimate_of, model_of
from kvswarm.serving.estimate import Estimate
from kvswarm.serving.gpus import GIB

MOST_UTILIZATION: Final = 0.98
"""Above, there is no room for the CUDA context, which is there before vLLM looks."""
UNSURE_SHARE: Final = 0.1
"""Of the weights, where parameters are estimated from the model's shape."""
LLAMA_8B: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}  # fmt: skip
"""The shape of Llama-3.1-8B, for examples."""


def _used(figures: Estimate) -> float:
    return figures.memory_bytes_per_gpu * figures.gpu_memory_utilization


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _sure_weights(figures: Estimate) -> float | None:
    """Bytes of weights per GPU that there are for certain."""
    weights = figures.weights_bytes_per_gpu
    if weights is None or figures.parameters_are_exact:
        return weights
    return weights * (1 - UNSURE_SHARE)


def _weights_fit(figures: Estimate) -> bool:
    weights = _sure_weights(figures)
    return weights is None or weights < _used(figures)


def _at(facts: Facts, key: str, what: str) -> Found:
    """Make a finding at a feature, or where it would stand."""
    if key in facts.features:
        return facts.at(key, what)
    return Found(path=("vllm_features",), what=what)


def _too_large(facts: Facts) -> Iterator[Found]:
    figures = estimate_of(facts)
    if figures is None or figures.weights_bytes_per_gpu is None or _weights_fit(figures):
        return
    what = (
        f"asks {figures.gpus} x {figures.device} to hold {_gib(figures.weights_bytes_per_gpu)} of "
        f"weights each, and {_gib(_used(figures))} may be used"
    )
    yield _at(facts, "tensor_parallel_size", what)


def _needed(figures: Estimate) -> int | None:
    """Bytes of KV cache of one longest sequence, where there is a question of room."""
    if figures.weights_bytes_per_gpu is None or not _weights_fit(figures):
        return None
    return figures.kv_bytes_of_longest_per_gpu


def _length(facts: Facts, figures: Estimate) -> str:
    if facts.value("max_model_len") is not None:
        return f"is {figures.max_model_len}"
    return f"has no max_model_len, which is then the model's {figures.max_model_len}"


def _longest_never_fits(facts: Facts) -> Iterator[Found]:
    figures = estimate_of(facts)
    needed = None if figures is None else _needed(figures)
    if figures is None or needed is None:
        return
    room = _used(figures) - (_sure_weights(figures) or 0)
    if needed > room:
        what = (
            f"{_length(facts, figures)}: one such sequence takes {_gib(needed)} of KV cache per "
            f"GPU, and at most {_gib(room)} are left beside the weights"
        )
        yield _at(facts, "max_model_len", what)


def _longest_hardly_fits(facts: Facts) -> Iterator[Found]:
    figures = estimate_of(facts)
    needed = None if figures is None else _needed(figures)
    if figures is None or needed is None or figures.kv_cache_bytes_per_gpu is None:
        return
    room = _used(figures) - (_sure_weights(figures) or 0)
    if figures.kv_cache_bytes_per_gpu < needed <= room:
        what = (
            f"{_length(facts, figures)}: one such sequence takes {_gib(needed)} of KV cache per "
            f"GPU, and about {_gib(max(figures.kv_cache_bytes_per_gpu, 0))} are left for it"
        )
        yield _at(facts, "max_model_len", what)


def _too_many(facts: Facts) -> Iterator[Found]:
    figures = estimate_of(facts)
    fit = None if figures is None else figures.sequences_at_workload
    if figures is None or fit is None or fit < 1:
        return
    most = min(fit, figures.max_num_seqs)
    if facts.peak_users > most:
        limit = "max_num_seqs" if figures.max_num_seqs < fit else "KV cache"
        what = f"is {facts.peak_users}, and about {most:.0f} of its sequences run at a time"
        yield Found(path=("concurrency",), what=f"{what} ({limit})")


def _no_room_for_the_context(facts: Facts) -> Iterator[Found]:
    utilization = facts.value("gpu_memory_utilization")
    if utilization is not None and utilization > MOST_UTILIZATION and not facts.on_cpu:
        yield facts.at("gpu_memory_utilization", f"is {utilization:g}")


def _longer_than_the_model(facts: Facts) -> Iterator[Found]:
    asked, model = facts.value("max_model_len"), model_of(facts)
    if asked is None or model is None or model.max_positions is None:
        return
    overrides = facts.value("hf_overrides") or facts.value("rope_scaling")
    if asked > model.max_positions and not overrides:
        what = f"is {asked}, and the model was made for {model.max_positions}"
        yield _at(facts, "max_model_len", what)


RULES: Final = (
    Rule(
        id="KVS100",
        title="The weights fit into the GPU",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_too_large,
        reason='The server ends with CUDA out of memory while it loads the weights, or with "No '
        'available memory for the cache blocks" after it.',
        source="vllm/v1/core/kv_cache_utils.py; kvswarm/serving/memory.py",
        fix="Take more GPUs (tensor_parallel_size), a larger one, or a quantized checkpoint.",
        bad=Example(profile="vllm_features: {max_model_len: 4096}\n", config=LLAMA_8B, gpu="T4"),
        good=Example(
            profile="concurrency: 4\nvllm_features: {max_model_len: 4096}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
    ),
    Rule(
        id="KVS101",
        title="The KV cache holds one sequence of max_model_len",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_longest_never_fits,
        reason="vLLM does not start: \"To serve at least one request with the model's max seq len, "
        'KV cache is needed, which is larger than the available KV cache memory".',
        source="vllm/v1/core/kv_cache_utils.py",
        fix="Give max_model_len what the profile needs, or kv_cache_dtype fp8, or more memory.",
        bad=Example(
            profile="concurrency: 4\nvllm_features: {max_model_len: 131072}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
        good=Example(
            profile="concurrency: 4\nvllm_features: {max_model_len: 16384}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
    ),
    Rule(
        id="KVS102",
        title="The KV cache holds max_model_len with room to spare",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        check=_longest_hardly_fits,
        reason="Activations and CUDA graphs take some of the memory that is left beside the "
        "weights; by the estimate too little stays for one sequence, and vLLM would not start.",
        source="kvswarm/serving/estimate.py",
        fix="Give max_model_len what the profile needs, or fewer max_num_batched_tokens.",
        bad=Example(
            profile="concurrency: 4\nvllm_features: {max_model_len: 40000}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
        good=Example(
            profile="concurrency: 4\nvllm_features: {max_model_len: 24000}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
    ),
    Rule(
        id="KVS103",
        title="The sequences of all users fit at a time",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        check=_too_many,
        reason="What does not fit waits in the server's queue, or is preempted and computed again: "
        "TTFT is then the time in the queue.",
        source="kvswarm/serving/estimate.py; vllm:num_requests_waiting, vllm:num_preemptions",
        fix="Send fewer at a time, give the KV cache more room (kv_cache_dtype fp8, more GPUs), or "
        "mean to measure the queue.",
        bad=Example(
            profile="concurrency: 200\nrequests: 2000\nvllm_features: {max_model_len: 4096}\n",
            config=LLAMA_8B,
            gpu="L4",
        ),
        good=Example(
            profile="concurrency: 200\nrequests: 2000\nvllm_features: {max_model_len: 4096}\n",
            config=LLAMA_8B,
            gpu="H100",
        ),
    ),
    Rule(
        id="KVS104",
        title="gpu_memory_utilization leaves room for CUDA itself",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        check=_no_room_for_the_context,
        reason='The CUDA context takes some hundred MiB before vLLM looks: "Free memory on device '
        'on startup is less than desired GPU memory utilization".',
        source="vllm/v1/worker/utils.py",
        fix="Give 0.95 or less.",
        bad=Example(profile="vllm_features: {gpu_memory_utilization: 1.0}\n"),
        good=Example(profile="vllm_features: {gpu_memory_utilization: 0.95}\n"),
    ),
    Rule(
        id="KVS105",
        title="max_model_len is no longer than the model's",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_longer_than_the_model,
        reason='vLLM does not start: "User-specified max_model_len is greater than the derived '
        'max_model_len".',
        source="vllm/config/model.py, _get_and_verify_max_len",
        fix="Give at most what the model's config.json says, or scale its positions by "
        "hf_overrides.",
        bad=Example(profile="vllm_features: {max_model_len: 200000}\n", config=LLAMA_8B),
        good=Example(profile="vllm_features: {max_model_len: 131072}\n", config=LLAMA_8B),
    ),
)
