"""Ask for manifests as a person would, with what a test is about changed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from kvswarm.kserve.manifests import Manifests, manifests
from kvswarm.kserve.sources import model_source
from kvswarm.kserve.wanted import Wanted

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def ask(**changes: Any) -> Manifests:
    """The manifests of one service, with some of what was wanted changed."""
    uri = "s3://models/qwen3-8b" if changes.get("backend") == "triton" else "hf://Qwen/Qwen3-8B"
    wanted: dict[str, Any] = {
        "backend": "vllm",
        "service": "qwen",
        "namespace": "llm",
        "source": model_source(uri),
    }
    return manifests(Wanted(**{**wanted, **changes}))


def of_kind(decided: Manifests, kind: str) -> dict[str, Any]:
    """The one document of a kind."""
    (document,) = [each for each in decided.documents if each["kind"] == kind]
    return document


def spec_of(**changes: Any) -> dict[str, Any]:
    """The spec of the LLMInferenceService."""
    spec: dict[str, Any] = of_kind(ask(**{"form": "llm", **changes}), "LLMInferenceService")["spec"]
    return spec


def predictor(**changes: Any) -> dict[str, Any]:
    """The predictor of the InferenceService."""
    spec: dict[str, Any] = of_kind(ask(**changes), "InferenceService")["spec"]["predictor"]
    return spec


def arguments(**changes: Any) -> list[str]:
    """The arguments of the server, wherever they stand."""
    decided = ask(**changes)
    for document in decided.documents:
        if document["kind"] == "ServingRuntime":
            return list(document["spec"]["containers"][0]["args"])
    service = of_kind(decided, "InferenceService")
    return list(service["spec"]["predictor"]["model"].get("args", []))


def crd(plural: str) -> dict[str, Any]:
    """One of KServe's CustomResourceDefinitions."""
    packed = (HERE / "crds" / f"{plural}.json.gz").read_bytes()
    definition: dict[str, Any] = json.loads(gzip.decompress(packed))
    return definition
