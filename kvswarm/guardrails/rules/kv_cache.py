"""Rules about the numbers of the KV cache, and about what a server on a CPU has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.serving.gpus import find_gpu

OF_CPU: Final = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
FP8: Final = frozenset({"fp8", "fp8_e4m3"})
FLASH: Final = "FLASH_ATTN"
HOPPER: Final = (9, 0)
GPU_KEYS: Final = ("gpu_memory_utilization", "kv_cache_memory_bytes")


def _flash_with_e5m2(facts: Facts) -> Iterator[Found]:
    dtype = facts.value("kv_cache_dtype")
    if dtype == "fp8_e5m2" and _uses_flash(facts):
        yield facts.at("kv_cache_dtype", f"is {dtype}, and attention_backend {FLASH}")


def _flash_before_hopper(facts: Facts) -> Iterator[Found]:
    gpu = None if facts.server.gpu is None else find_gpu(facts.server.gpu)
    if gpu is None or gpu.capability is None or not _uses_flash(facts):
        return
    dtype = facts.value("kv_cache_dtype")
    if dtype in FP8 and gpu.capability < HOPPER:
        what = f"is {dtype}, and attention_backend {FLASH} on {gpu.name}"
        yield facts.at("kv_cache_dtype", what)


def _uses_flash(facts: Facts) -> bool:
    return str(facts.value("attention_backend")).upper() == FLASH


def _of_cpu(facts: Facts) -> Iterator[Found]:
    dtype = facts.value("kv_cache_dtype")
    if facts.on_cpu and dtype is not None and dtype not in OF_CPU:
        yield facts.at("kv_cache_dtype", f"is {dtype}, which the CPU's attention has not")


def _without_use_on_cpu(facts: Facts) -> Iterator[Found]:
    if not facts.on_cpu:
        return
    for key in GPU_KEYS:
        if facts.value(key) is not None:
            yield facts.at(key, "says how much of a GPU is taken, and this is a CPU")


RULES: Final = (
    Rule(
        id="KVS080",
        title="FlashAttention has e4m3",
        severity="error",
        scope="server",
        check=_flash_with_e5m2,
        runtimes=VLLM,
        reason="vLLM does not start: no attention backend takes what is asked for.",
        source="vllm/v1/attention/backends/flash_attn.py of 0.32.0",
        fix="Take fp8_e4m3, or leave attention_backend to vLLM.",
        bad=Example(
            profile="vllm_features: {kv_cache_dtype: fp8_e5m2, attention_backend: FLASH_ATTN}\n"
        ),
        good=Example(
            profile="vllm_features: {kv_cache_dtype: fp8_e4m3, attention_backend: FLASH_ATTN}\n"
        ),
    ),
    Rule(
        id="KVS081",
        title="FlashAttention has FP8 from Hopper on",
        severity="error",
        scope="server",
        check=_flash_before_hopper,
        runtimes=VLLM,
        reason="vLLM does not start: FlashAttention reads a KV cache of FP8 from capability 9.0 "
        "on.",
        source="vllm/v1/attention/backends/flash_attn.py of 0.32.0",
        fix="Leave attention_backend to vLLM, which takes one that can.",
        bad=Example(
            profile="vllm_features: {kv_cache_dtype: fp8, attention_backend: FLASH_ATTN}\n",
            gpu="A100-80GB",
        ),
        good=Example(
            profile="vllm_features: {kv_cache_dtype: fp8, attention_backend: FLASH_ATTN}\n",
            gpu="H100",
        ),
    ),
    Rule(
        id="KVS090",
        title="A CPU has the KV cache's numbers",
        severity="error",
        scope="server",
        check=_of_cpu,
        runtimes=VLLM,
        reason="vLLM does not start: the attention of CPUs takes auto, fp8, fp8_e4m3 and fp8_e5m2.",
        source="vllm/v1/attention/backends/cpu_attn.py of 0.32.0",
        fix="Leave kv_cache_dtype out.",
        bad=Example(profile="vllm_features: {kv_cache_dtype: nvfp4}\n", gpu="cpu"),
        good=Example(profile="vllm_features: {kv_cache_dtype: fp8}\n", gpu="cpu"),
    ),
    Rule(
        id="KVS091",
        title="A CPU's memory is asked for as such",
        severity="warning",
        scope="server",
        check=_without_use_on_cpu,
        runtimes=VLLM,
        reason="The KV cache of a server on a CPU has the size of VLLM_CPU_KVCACHE_SPACE.",
        source="seen with 0.32.0",
        fix="Give vllm_features.vllm_cpu_kvcache_space, in GiB.",
        bad=Example(profile="vllm_features: {gpu_memory_utilization: 0.9}\n", gpu="cpu"),
        good=Example(profile="vllm_features: {vllm_cpu_kvcache_space: 4}\n", gpu="cpu"),
    ),
)
