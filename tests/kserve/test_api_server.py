"""The manifests against a real API server that knows KServe's definitions, every write a dry run."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import GOLDEN, ask
from kube_api_server import APPLY, ApiServer

pytestmark = pytest.mark.kube
PLURALS = {
    "InferenceService": "inferenceservices",
    "LLMInferenceService": "llminferenceservices",
    "ServingRuntime": "servingruntimes",
    "ConfigMap": "configmaps",
}


def apply(api: ApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """In the namespace `llm`, as `kubectl apply --server-side --dry-run=server` does."""
    group = document["apiVersion"]
    root = "/api/v1" if group == "v1" else f"/apis/{group}"
    metadata = document["metadata"]
    where = f"{root}/namespaces/{metadata['namespace']}/{PLURALS[document['kind']]}"
    asked = "fieldManager=kubectl&dryRun=All"
    return api.ask("PATCH", f"{where}/{metadata['name']}?{asked}", document, APPLY)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_takes_every_manifest_as_it_is(api: ApiServer, path: Path) -> None:
    """And drops nothing of it: what comes back holds all that was sent."""
    for document in yaml.safe_load_all(path.read_text("utf-8")):
        status, answer = apply(api, document)
        assert status == 201, answer
        for part in ("spec", "data"):
            if part in document:
                assert answer[part] == document[part]


def test_the_api_server_drops_a_field_that_kserve_does_not_know(api: ApiServer) -> None:
    """Without a word: so the test above compares what comes back, and can fail."""
    (service,) = copy.deepcopy(ask().documents)
    service["spec"]["predictor"]["model"]["modelFormta"] = {"name": "vLLM"}
    status, answer = apply(api, service)
    assert status == 201, answer
    assert answer["spec"] != service["spec"]


def test_the_api_server_refuses_a_value_that_cannot_be(api: ApiServer) -> None:
    """The definitions are in force, and say which field."""
    (service,) = copy.deepcopy(ask().documents)
    service["spec"]["predictor"]["scaleMetric"] = "requests"
    status, answer = apply(api, service)
    assert status == 422
    assert "spec.predictor.scaleMetric" in answer["message"]
