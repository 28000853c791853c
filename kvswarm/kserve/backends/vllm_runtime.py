"""vLLM's own server inside KServe's newer vLLM runtime (`kserve-vllmserver`).

The runtime gives `--port`, `--model` and `--served-model-name`; what is here comes after them. Its
OpenAI API is at `/v1`. The runtime runs the image `vllm/vllm-openai:latest`, so the image is named
here, with its version: flags and server belong together, and a measurement can be repeated.
"""

from __future__ import annotations

from typing import Final

from kvswarm.kserve.wanted import Served, Wanted
from kvswarm.serving.flags import vllm_flags
from kvswarm.serving.versions import NEWEST, vllm_version

IMAGE: Final = "vllm/vllm-openai"


def vllm_runtime(wanted: Wanted) -> Served:
    """Serve with the vLLM runtime. Raises ProfileError for features that cannot be."""
    version = str(vllm_version(wanted.vllm_version or str(NEWEST)))
    flags = vllm_flags(wanted.features, version)
    notes = list(flags.notes)
    image = wanted.image
    if image is None and wanted.machine.gpus != 0:
        image = f"{IMAGE}:v{version}"
    elif image is None:
        notes.append(
            "the runtime chooses its own image for CPUs, whose version is not known here: "
            "--image pins one, --vllm-version says which flags it takes."
        )
    return Served(
        model_format="vLLM",
        arguments=flags.arguments,
        environment=flags.environment,
        image=image,
        notes=tuple(notes),
        left_out=flags.left_out,
    )
