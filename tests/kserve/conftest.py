"""A real API server with KServe's definitions for the tests that need one, and a namespace for each."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import crd
from kube_api_server import ApiServer, api_server
from stand_in_kserve import StandIn, cluster_of

from kvswarm.kserve.cluster import Cluster

ASSETS = os.environ.get("KUBEBUILDER_ASSETS")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PLURALS = (
    "inferenceservices",
    "servingruntimes",
    "clusterservingruntimes",
    "llminferenceservices",
)
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with KServe's definitions and the namespace `llm`."""
    if ASSETS is None:
        pytest.skip(
            "KUBEBUILDER_ASSETS is unset: it names a directory with kube-apiserver and etcd"
        )
    with api_server(Path(ASSETS), tmp_path_factory.mktemp("kube")) as running:
        define_kserve(running)
        yield running


def define_kserve(api: ApiServer) -> None:
    """KServe's definitions and the namespace `llm`."""
    for plural in PLURALS:
        status, answer = api.ask("POST", DEFINITIONS, crd(plural))
        assert status == 201, answer["message"][:3000]
    for plural in PLURALS:
        wait_for_definition(api, plural)
    make_namespace(api, "llm")


@pytest.fixture
def namespace(api: ApiServer) -> str:
    """A namespace of the test's own. Nothing tidies it up: the server ends with the tests."""
    return make_namespace(api, f"test-{next(NUMBERS)}")


@pytest.fixture
def admin(api: ApiServer, tmp_path: Path) -> Path:
    """A kubeconfig of the admin."""
    return api.kubeconfig(tmp_path / "admin.json")


@pytest.fixture
def cluster(admin: Path) -> Cluster:
    """As the admin."""
    return cluster_of(admin)


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    """KServe's part in the namespace, played."""
    with StandIn(cluster, namespace) as playing:
        yield playing


def make_namespace(api: ApiServer, name: str) -> str:
    """Make it, and give its name."""
    status, answer = api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert status == 201, answer["message"][:3000]
    return name


def wait_for_definition(api: ApiServer, plural: str) -> None:
    """Watch the definition until it is established: the server then serves its resources."""
    watched = f"{DEFINITIONS}?watch=1&timeoutSeconds=30&fieldSelector=metadata.name={plural}.serving.kserve.io"
    for event in api.watch(watched):
        conditions = event["object"].get("status", {}).get("conditions") or []
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return
    raise AssertionError(f"{plural} was not established")
