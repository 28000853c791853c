"""Rules about what GPUs can do together, and what one kind of them cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.guardrails.rules.memory import LLAMA_8B
from kvswarm.guardrails.sizing import device_of, model_of, spread

BF16_SINCE: Final = (8, 0)
MIG_RESOURCE: Final = "nvidia.com/mig-"


def _uneven_heads(facts: Facts) -> Iterator[Found]:
    model, tensor = model_of(facts), spread(facts).tensor
    if model is not None and model.heads and model.heads % tensor:
        what = f"is {tensor}, and the model has {model.heads} attention heads"
        yield facts.at("tensor_parallel_size", what)


def _copied_heads(facts: Facts) -> Iterator[Found]:
    model, tensor = model_of(facts), spread(facts).tensor
    if model is None or not model.kv_heads or not model.heads or model.heads % tensor:
        return
    if model.latent_width is None and tensor > model.kv_heads:
        what = f"is {tensor}, and the model has {model.kv_heads} KV heads"
        yield facts.at("tensor_parallel_size", what)


def _spread_over_slices(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    resource = "" if deployment is None else deployment.gpu_resource
    if not (facts.server.mig or resource.startswith(MIG_RESOURCE)):
        return
    wanted = spread(facts)
    if wanted.tensor > 1:
        yield facts.at("tensor_parallel_size", f"is {wanted.tensor}, over MIG slices")
    elif wanted.pipeline > 1:
        yield facts.at("pipeline_parallel_size", f"is {wanted.pipeline}, over MIG slices")
    elif deployment is not None and (deployment.gpus or 1) > 1:
        yield Found(path=("--gpus",), what=f"is {deployment.gpus}, of {resource}")


def _no_bfloat16(facts: Facts) -> Iterator[Found]:
    device = device_of(facts)
    if device is None or device.capability is None or device.capability >= BF16_SINCE:
        return
    if facts.value("dtype") == "bfloat16":
        major, minor = device.capability
        what = f"is bfloat16, and {device.name} has compute capability {major}.{minor}"
        yield facts.at("dtype", what)


RULES: Final = (
    Rule(
        id="KVS110",
        title="Attention heads divide by the tensor parallelism",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_uneven_heads,
        reason='vLLM does not start: "Total number of attention heads must be divisible by tensor '
        'parallel size".',
        source="vllm/config/model.py, verify_with_parallel_config",
        fix="Take a divisor of the heads: 1, 2, 4 or 8 for nearly all models.",
        bad=Example(profile="vllm_features: {tensor_parallel_size: 3}\n", config=LLAMA_8B),
        good=Example(profile="vllm_features: {tensor_parallel_size: 4}\n", config=LLAMA_8B),
    ),
    Rule(
        id="KVS111",
        title="Each GPU has KV heads of its own",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        check=_copied_heads,
        reason="With more GPUs than KV heads each head is kept more than once: the KV cache holds "
        "no more tokens than with as many GPUs as heads.",
        source="kvswarm/serving/memory.py",
        fix="Take no more GPUs than KV heads, and data or pipeline parallelism for the rest.",
        bad=Example(profile="vllm_features: {tensor_parallel_size: 16}\n", config=LLAMA_8B),
        good=Example(profile="vllm_features: {tensor_parallel_size: 8}\n", config=LLAMA_8B),
    ),
    Rule(
        id="KVS112",
        title="One model runs on one MIG slice",
        severity="error",
        scope="server",
        check=_spread_over_slices,
        reason="MIG slices have no way to each other: NCCL finds one GPU for several ranks, and "
        "the server does not start.",
        source="https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (no peer-to-peer)",
        fix="Take one larger slice, or whole GPUs; for more throughput more replicas.",
        bad=Example(
            profile="vllm_features: {tensor_parallel_size: 2}\n", gpu="H100", mig="3g.40gb"
        ),
        good=Example(profile="vllm_features: {max_num_seqs: 64}\n", gpu="H100", mig="3g.40gb"),
    ),
    Rule(
        id="KVS113",
        title="bfloat16 is for GPUs that have it",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_no_bfloat16,
        reason='vLLM does not start: "Bfloat16 is only supported on GPUs with compute capability '
        'of at least 8.0".',
        source="vllm/platforms/cuda.py, check_if_supports_dtype",
        fix="Give dtype float16, or leave it out: vLLM takes float16 there by itself.",
        bad=Example(profile="vllm_features: {dtype: bfloat16}\n", gpu="T4"),
        good=Example(profile="vllm_features: {dtype: float16}\n", gpu="T4"),
    ),
)
