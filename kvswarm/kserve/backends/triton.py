"""TensorRT-LLM behind Triton's OpenAI-compatible frontend, by a ServingRuntime of its own.

The frontend speaks to Triton's models by the names that TensorRT-LLM's engine layout has for their
inputs (`text_input`, `max_tokens`, `stream`). It therefore serves a model repository with an engine
(`inflight_batcher_llm`), and neither a checkpoint, nor the LLM API's repository, which has other
names. The engine is built beforehand, for the GPUs and by the TensorRT-LLM of the image; what a
profile's features say has been decided then. KServe's storage must hold two directories:
`model_repository` and `tokenizer`.
Its API is at `/v1`, and Triton's own metrics are a page of the same port: port 8002 is not opened.
Source: python/openai of triton-inference-server/server, and Triton's user guide of 26.09.
"""

from __future__ import annotations

from typing import Final

from kvswarm.errors import UsageError
from kvswarm.kserve.backends.words import OwnServer, Page, Words, Writer, left_out, served_by
from kvswarm.kserve.sources import MODEL_DIRECTORY
from kvswarm.kserve.wanted import RuntimeShape, Served, Wanted
from kvswarm.serving.speculation import Speculation

IMAGE: Final = "nvcr.io/nvidia/tritonserver:26.09-trtllm-python-py3"
FRONTEND: Final = "/opt/tritonserver/python/openai/openai_frontend/main.py"
PORT: Final = 9000
REPOSITORY: Final = f"{MODEL_DIRECTORY}/model_repository"
TOKENIZER: Final = f"{MODEL_DIRECTORY}/tokenizer"
IN_THE_ENGINE: Final = "the engine was built with it or without it"
LAYOUT: Final = (
    "Triton needs an engine: --model must hold `model_repository` (TensorRT-LLM's "
    "inflight_batcher_llm with an engine built for this GPU by the TensorRT-LLM of the image, "
    f"decoupled, and with {TOKENIZER} in its configuration) and `tokenizer`. --backend "
    "tensorrt-llm serves a checkpoint as it is."
)
DIFFERENCES: Final = (
    "Triton's frontend lists every model of the repository: give `kvswarm run --model ensemble`, "
    "or tensorrt_llm_bls. It tells usage where the models have the outputs num_input_tokens and "
    "num_output_tokens; where they do not, output tokens are not known. Its metrics are requests, "
    "queue and GPU, not the KV cache's. The frontend's own work is within the figures."
)


def triton(wanted: Wanted) -> Served:
    """Serve with Triton. Raises UsageError for a checkpoint, ProfileError for features."""
    if wanted.source.scheme == "hf":
        raise UsageError(
            f"--backend triton and --model {wanted.source.uri}: Triton's OpenAI frontend serves a "
            "model repository with a built engine, not a checkpoint",
            fix="Keep `model_repository` and `tokenizer` in a bucket or a volume and name that, "
            "or take --backend tensorrt-llm, which serves the checkpoint.",
        )
    page = Page("Triton", notes=[LAYOUT, DIFFERENCES])
    page.arguments += [FRONTEND, "--model-repository", REPOSITORY, "--tokenizer", TOKENIZER]
    page.arguments += ["--backend", "tensorrtllm", "--host", "0.0.0.0", "--openai-port", str(PORT)]  # noqa: S104 - in a pod
    server = OwnServer(
        model_format="triton-tensorrt-llm",
        image=IMAGE,
        shape=RuntimeShape(
            port=PORT,
            metrics_path="/metrics",
            health_path="/health/ready",
            command=("python3",),
        ),
        words=Words(KEYS, _speculation, why_left_out=IN_THE_ENGINE),
    )
    return served_by(server, wanted, page)


def _parallel(value: int, page: Page) -> None:
    if value > 1:
        # One process serves, and starts one for each further rank of the engine.
        page.environment["TRTLLM_ORCHESTRATOR"] = "1"
        page.notes.append(f"the engine must be one for {value} GPUs.")


def _speculation(_speculation: Speculation, page: Page) -> None:
    left_out("speculative", page, IN_THE_ENGINE)


KEYS: Final[dict[str, Writer]] = {
    "tensor_parallel_size": _parallel,
    "pipeline_parallel_size": _parallel,
}
