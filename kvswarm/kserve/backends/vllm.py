"""vLLM inside KServe's Hugging Face runtime (`kserve-huggingfaceserver`).

Its image has vLLM 0.24.0. Its OpenAI API is at `/openai/v1`. It understands vLLM's flags beside
its own: `--model_name` is the name that requests ask for, and `--backend=vllm` ends an image
without vLLM at its start. Where vLLM does not know a model, the runtime serves it with Transformers
all the same, and it passes over flags that it does not know: a run's claims tell what serves.
Source: huggingfaceserver/__main__.py of kserve/kserve.
"""

from __future__ import annotations

from typing import Final

from kvswarm.kserve.wanted import Served, Wanted
from kvswarm.serving.flags import spelled, vllm_flags

VLLM_VERSION: Final = "0.24.0"
NAME_KEY: Final = "served_model_name"
"""vLLM's own key for what is `--model_name` here."""


def vllm(wanted: Wanted) -> Served:
    """Serve with the Hugging Face runtime. Raises ProfileError for features that cannot be."""
    features = {k: v for k, v in wanted.features.items() if spelled(k) != NAME_KEY}
    names = [v for k, v in wanted.features.items() if spelled(k) == NAME_KEY and v is not None]
    name = names[0] if names else wanted.service
    flags = vllm_flags(features, wanted.vllm_version or VLLM_VERSION)
    notes = list(flags.notes)
    if wanted.machine.gpus and wanted.image is None and not wanted.machine.is_known:
        notes.append(
            f"KServe may not know {wanted.machine.gpu_resource} as a GPU, and choose its image for "
            "CPUs: --image says which it is to be."
        )
    return Served(
        model_format="huggingface",
        arguments=(f"--model_name={name}", "--backend=vllm", *flags.arguments),
        environment=flags.environment,
        image=wanted.image,
        notes=tuple(notes),
        left_out=flags.left_out,
    )
