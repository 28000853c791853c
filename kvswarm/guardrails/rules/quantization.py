"""Rules about quantization: against the checkpoint, against the GPU, against what vLLM ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.guardrails.rules.memory import LLAMA_8B
from kvswarm.guardrails.sizing import device_of, model_of
from kvswarm.serving.quantization import Quantization, methods, names
from kvswarm.serving.versions import Span, Version

OFFLINE: Final = frozenset({
    "awq", "gptq", "int8", "int4", "compressed-tensors", "awq_marlin", "gptq_marlin", "marlin",
    "modelopt", "modelopt_fp4", "mxfp4", "quark", "aqlm", "squeezellm",
})  # fmt: skip
"""Methods that vLLM does not make by itself: they need a checkpoint that is quantized so."""
FP8_NEEDS_CHECKPOINT: Final = Version(0, 31, 0)
"""From here on fp8 is for FP8 checkpoints; fp8_per_tensor quantizes others at the start."""
PLUGINS: Final = {"bitsandbytes": Version(0, 28, 0), "gguf": Version(0, 24, 0)}
AWQ: Final[dict[str, Any]] = LLAMA_8B | {
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}
}


def _asked(facts: Facts) -> str | None:
    value = facts.value("quantization")
    return None if value is None else str(value).lower()


def _canonical(method: str) -> str:
    return names().get(method, method)


def _known(method: str) -> Quantization | None:
    """Find the method that a value of --quantization means."""
    name = names().get(method)
    if name is not None:
        return methods()[name]
    return next((each for each in methods().values() if method in each.flags), None)


def _not_quantized(facts: Facts) -> Iterator[Found]:
    asked, model = _asked(facts), model_of(facts)
    if asked is None or model is None or model.quant_method is not None:
        return
    needs = _canonical(asked) in OFFLINE
    if asked == "fp8" and facts.server.version >= FP8_NEEDS_CHECKPOINT:
        fix = "Give fp8_per_tensor, which quantizes at the start, or an FP8 checkpoint."
        yield facts.at("quantization", "is fp8, and the checkpoint is not quantized", fix)
    elif needs:
        yield facts.at("quantization", f"is {asked}, and the checkpoint is not quantized")


def _otherwise_quantized(facts: Facts) -> Iterator[Found]:
    asked, model = _asked(facts), model_of(facts)
    if asked is None or model is None or model.quant_method is None:
        return
    stored = model.quant_method
    known = _known(asked)
    if known is None:
        fits = asked == stored
    elif known.flag is None:
        fits = stored in known.checkpoints
    else:
        fits = stored in {asked, *known.flags}
    if not fits:
        what = f"is {asked}, and the checkpoint's quant_method is {stored}"
        yield facts.at("quantization", what)


def _gpu_cannot(facts: Facts) -> Iterator[Found]:
    needs = _capabilities(facts)
    if needs is None:
        return
    known, asked, capability, name = needs
    if capability < known.weight_only_from:
        major, minor = known.weight_only_from
        what = f"is {asked}, which needs compute capability {major}.{minor}; {name} has "
        yield facts.at("quantization", f"{what}{capability[0]}.{capability[1]}")


def _gpu_is_slow(facts: Facts) -> Iterator[Found]:
    needs = _capabilities(facts)
    if needs is None:
        return
    known, asked, capability, name = needs
    native = known.native_from
    if native is not None and known.weight_only_from <= capability < native:
        what = f"is {asked}, and {name} has no arithmetic for it (from {native[0]}.{native[1]} on)"
        yield facts.at("quantization", what)


def _capabilities(
    facts: Facts,
) -> tuple[Quantization, str, tuple[int, int], str] | None:
    device, model = device_of(facts), model_of(facts)
    asked = _asked(facts) or (None if model is None else model.quant_method)
    known = None if asked is None else _known(asked)
    if device is None or device.capability is None or known is None or asked is None:
        return None
    return known, asked, device.capability, device.name


def _plugin(facts: Facts) -> Iterator[Found]:
    asked = _asked(facts)
    since = PLUGINS.get(asked or "")
    if since is not None and facts.server.version >= since:
        yield facts.at("quantization", f"is {asked}, which is a plugin of its own since {since}")


SOURCE: Final = "kvswarm/serving/quantization.yaml, read in vLLM 0.32"
RULES: Final = (
    Rule(
        id="KVS120",
        title="A method that vLLM cannot make has a quantized checkpoint",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_not_quantized,
        reason="vLLM does not start: AWQ, GPTQ and the like are read from a checkpoint, never made "
        'from an unquantized one ("Cannot find the config file for awq").',
        source=SOURCE,
        fix="Serve a checkpoint that is quantized so, or quantize at the start by fp8_per_tensor "
        "(before vLLM 0.31: fp8).",
        bad=Example(profile="vllm_features: {quantization: awq}\n", config=LLAMA_8B),
        good=Example(profile="vllm_features: {quantization: awq}\n", config=AWQ),
    ),
    Rule(
        id="KVS121",
        title="The method is the checkpoint's own",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_otherwise_quantized,
        reason='vLLM does not start: "Quantization method specified in the model config does not '
        'match the quantization method specified in the `quantization` argument".',
        source="vllm/config/model.py, _verify_quantization",
        fix="Leave quantization out: the checkpoint's config.json tells it.",
        bad=Example(profile="vllm_features: {quantization: gptq}\n", config=AWQ),
        good=Example(profile="vllm_features: {quantization: awq}\n", config=AWQ),
    ),
    Rule(
        id="KVS122",
        title="The GPU runs the method",
        severity="error",
        scope="server",
        runtimes=VLLM,
        check=_gpu_cannot,
        reason='vLLM does not start: "The quantization method is not supported for the current '
        'GPU. Minimum capability: ...".',
        source=SOURCE,
        fix="Take a GPU of that capability or newer; GPTQ runs from 6.0 on.",
        bad=Example(profile="vllm_features: {quantization: awq}\n", gpu="V100"),
        good=Example(profile="vllm_features: {quantization: gptq}\n", gpu="V100"),
    ),
    Rule(
        id="KVS123",
        title="The GPU computes in the method's bits",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        check=_gpu_is_slow,
        reason="Weights alone are small then, and the arithmetic stays in 16 bits: memory is "
        "saved, prompts are no faster, and a comparison of methods does not say what it seems to.",
        source=SOURCE,
        fix="Measure FP8 on Ada, Hopper or newer; on Ampere int8 (W8A8) has arithmetic of its own.",
        bad=Example(profile="vllm_features: {quantization: fp8}\n", gpu="A100"),
        good=Example(profile="vllm_features: {quantization: fp8}\n", gpu="H100"),
    ),
    Rule(
        id="KVS124",
        title="A method from a plugin has its plugin",
        severity="warning",
        scope="server",
        runtimes=VLLM,
        versions=Span(Version(0, 24, 0)),
        check=_plugin,
        reason='vLLM\'s own images have no such method any more: "Unknown quantization method".',
        source="kvswarm/serving/vllm_keys.yaml",
        fix="Serve an image with the plugin installed, or another quantization.",
        bad=Example(profile="vllm_features: {quantization: bitsandbytes}\n"),
        good=Example(profile="vllm_features: {quantization: fp8_per_tensor}\n"),
    ),
)
