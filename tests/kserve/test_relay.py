"""The relay of a service's pods: real pods of a real API server, whose proxy leads to simulators."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "telemetry"))
from endpoints import METRICS, PAGE, Endpoint
from kube_api_server import free_port
from measured_service import (
    LLM_SERVICE,
    SERVICE,
    inference_service,
    llm_service,
    wait_for_pods,
    wait_until_ready,
)
from stand_in_kserve import StandIn
from stand_in_network import machine_address
from stand_in_pods import World

from kvswarm.errors import UsageError
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.pods import pods_of
from kvswarm.kserve.refusals import NotThereError
from kvswarm.kserve.relay import Relay, Scraped
from kvswarm.kserve.scaling import Scaling
from kvswarm.kserve.services import find_service
from kvswarm.stream.target import Target
from kvswarm.telemetry.recorder import fetch
from kvswarm.telemetry.sources import Source

pytestmark = pytest.mark.kube
SELECTOR = "serving.kserve.io/inferenceservice=qwen,component=predictor"


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    """A controller of the namespace, and a service of two pods."""
    with StandIn(cluster, namespace) as running:
        for document in inference_service(namespace, scaling=Scaling(min_replicas=2)):
            cluster.apply(document)
        wait_until_ready(cluster, SERVICE, namespace, "qwen")
        wait_for_pods(running, "qwen", 2)
        yield running


def get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_each_pod_has_a_page_of_its_own(cluster: Cluster, kserve: StandIn, namespace: str) -> None:
    """And nothing else has: no other path of a pod, no pod of another service."""
    scraped = Scraped(cluster=cluster, namespace=namespace, selector=SELECTOR, inside=False)
    cluster.apply(llm_service(namespace))
    wait_until_ready(cluster, LLM_SERVICE, namespace, "llama")
    with Relay(scraped, ()) as relay:
        status, body = get(relay.url)
        assert status == 200
        entries = json.loads(body)
        assert sorted(each["name"] for each in entries) == sorted(kserve.pods("qwen"))
        for each in entries:
            assert each["ready"] is True
            assert each["shown"].startswith(f"{cluster.server}/api/v1/namespaces/{namespace}/pods/")
            assert each["shown"].endswith("/proxy/metrics")
            status, page = get(each["url"])
            assert status == 200
            assert b"vllm:num_requests_running" in page
        root = relay.url.rpartition("/")[0]
        assert get(f"{relay.url}/{kserve.pods('llama')[0]}")[0] == 404
        assert get(f"{entries[0]['url']}/v1/models")[0] == 404
        assert get(f"{root}x/pods")[0] == 404
        guessed = f"{root.rpartition('/')[0]}/guessed/pods"
        assert get(guessed)[0] == 404
        assert get(f"{guessed}/{entries[0]['name']}")[0] == 404
        assert get(f"{root.rpartition('/')[0]}/pods")[0] == 404
    with pytest.raises(ConnectionRefusedError):
        get(relay.url)


def test_a_pod_that_speaks_tls_is_asked_so(cluster: Cluster, namespace: str) -> None:
    """As those of an LLMInferenceService do, with certificates that nobody could check."""
    with secure_page() as port:
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "llama-1",
                "namespace": namespace,
                "labels": {"app.kubernetes.io/name": "llama", "kserve.io/component": "workload"},
            },
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "vllm",
                        "ports": [{"containerPort": port}],
                        "readinessProbe": {
                            "httpGet": {"scheme": "HTTPS", "path": "/health", "port": port}
                        },
                    }
                ]
            },
        }
        cluster.create(document)
        started = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        container = {"name": "main", "state": started, "ready": True, "restartCount": 0}
        container |= {"image": "vllm", "imageID": ""}
        World(cluster=cluster, namespace=namespace, node="").set_status(
            KINDS["Pod"],
            "llama-1",
            {
                "phase": "Running",
                "podIP": machine_address(),
                "podIPs": [{"ip": machine_address()}],
                "containerStatuses": [container],
            },
        )
        for inside in (False, True):
            scraped = Scraped(
                cluster=cluster,
                namespace=namespace,
                selector="app.kubernetes.io/name=llama,kserve.io/component=workload",
                inside=inside,
            )
            with Relay(scraped, ()) as relay:
                (entry,) = json.loads(get(relay.url)[1])
                source = Source.of_pod(entry)
                assert fetch(source.target, source.paths[0]) == PAGE.encode()


@contextlib.contextmanager
def secure_page() -> Iterator[int]:
    """A page of metrics over TLS; give its port."""
    with Endpoint("0.0.0.0") as server:  # noqa: S104 - as a pod
        server.paths["/metrics"] = (200, METRICS, PAGE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("pod.invalid").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_list_stays_as_it_was_while_the_api_server_is_away(
    cluster: Cluster, kserve: StandIn, namespace: str
) -> None:
    """And pages are missing, which is no word on their pods."""
    pods = pods_of(cluster, namespace, SELECTOR)
    away = cluster_at(free_port())
    scraped = Scraped(cluster=away, namespace=namespace, selector=SELECTOR, inside=False)
    with Relay(scraped, pods) as relay:
        entries = json.loads(get(relay.url)[1])
        assert sorted(each["name"] for each in entries) == sorted(kserve.pods("qwen"))
        with pytest.raises(http.client.HTTPException, match=r"status 502: .* cannot be reached"):
            fetch(Target.of(entries[0]["url"]), urlsplit(entries[0]["url"]).path)


def cluster_at(port: int) -> Cluster:
    from kubernetes import client  # noqa: PLC0415 - a third of a second

    settings = client.Configuration(host=f"http://127.0.0.1:{port}")
    return Cluster(client.ApiClient(settings))


def test_inside_the_cluster_the_list_names_the_pods_own_addresses(
    cluster: Cluster, kserve: StandIn, namespace: str
) -> None:
    """They answer there."""
    assert kserve.pods("qwen")
    scraped = Scraped(cluster=cluster, namespace=namespace, selector=SELECTOR, inside=True)
    with Relay(scraped, ()) as relay:
        entries = json.loads(get(relay.url)[1])
    assert len(entries) == 2
    for each in entries:
        assert each["url"] == each["shown"]
        assert b"vllm:num_requests_running" in get(each["url"])[1]


def test_a_service_is_found_with_all_that_its_pods_tell(
    cluster: Cluster, kserve: StandIn, namespace: str
) -> None:
    """Runtime, image, model, flags, pods."""
    found = find_service(cluster, namespace, "qwen")
    assert found.ready
    assert found.serving.backend == "vllm"
    assert found.serving.words == ("--model_name=qwen", "--backend=vllm")
    assert found.model == "qwen"
    assert found.mode == "Standard"
    assert found.pods is not None
    assert sorted(pod.name for pod in found.pods) == sorted(kserve.pods("qwen"))
    assert all(pod.ready and pod.running and pod.node for pod in found.pods)


def test_a_service_that_sleeps_is_known_by_its_runtime(cluster: Cluster, namespace: str) -> None:
    """No pod tells what it would run."""
    scaling = Scaling(autoscaler="kpa", min_replicas=0)
    for document in inference_service(
        namespace, backend="tensorrt-llm", mode="knative", scaling=scaling
    ):
        cluster.apply(document)
    found = find_service(cluster, namespace, "qwen")
    assert found.asleep
    assert found.serving.backend == "tensorrt-llm"
    assert found.model == "models"
    assert found.serving.version == "1.2.1"


def test_a_service_that_is_not_there_is_told_with_the_nearest(
    cluster: Cluster, namespace: str
) -> None:
    """Of both kinds; in a namespace without any, that."""
    with pytest.raises(NotThereError, match="--namespace nowhere: there is none of that name"):
        find_service(cluster, "nowhere", "qwen")
    with pytest.raises(NotThereError, match="no service of KServe") as caught:
        find_service(cluster, namespace, "qwen")
    assert caught.value.fix.startswith("It has none")
    cluster.apply(llm_service(namespace, "qwen"))
    cluster.apply(inference_service(namespace)[0])
    with pytest.raises(UsageError, match="an InferenceService and an LLMInferenceService"):
        find_service(cluster, namespace, "qwen")
    assert find_service(cluster, namespace, "qwen", "LLMInferenceService").model == (
        "meta-llama/Llama-3.1-8B"
    )
    with pytest.raises(NotThereError) as caught:
        find_service(cluster, namespace, "quen", "LLMInferenceService")
    assert caught.value.fix == "Did you mean 'qwen'? It has: qwen."
