"""The manifests against a real API server that knows KServe's definitions, every write a dry run."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import GOLDEN, ask, crd
from kube_api_server import APPLY, ApiServer, api_server

ASSETS = os.environ.get("KUBEBUILDER_ASSETS")
pytestmark = [
    pytest.mark.kube,
    pytest.mark.skipif(
        ASSETS is None,
        reason="KUBEBUILDER_ASSETS is unset: it names a directory with kube-apiserver and etcd",
    ),
]
PLURALS = {
    "InferenceService": "inferenceservices",
    "ServingRuntime": "servingruntimes",
    "ConfigMap": "configmaps",
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with KServe's definitions, and the namespace of the manifests."""
    assert ASSETS is not None
    with api_server(Path(ASSETS), tmp_path_factory.mktemp("kube")) as running:
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for plural in ("inferenceservices", "servingruntimes"):
            status, answer = running.ask("POST", definitions, crd(plural))
            assert status == 201, answer
            wait_for_definition(running, plural)
        status, answer = running.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "llm"}})
        assert status == 201, answer
        yield running


def wait_for_definition(api: ApiServer, plural: str) -> None:
    """Watch the definition until it is established: the server then serves its resources."""
    watched = (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        f"?watch=1&timeoutSeconds=30&fieldSelector=metadata.name={plural}.serving.kserve.io"
    )
    for event in api.watch(watched):
        conditions = event["object"].get("status", {}).get("conditions") or []
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return
    raise AssertionError(f"{plural} was not established")


def apply(api: ApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Apply as `kubectl apply --server-side --dry-run=server` does."""
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
