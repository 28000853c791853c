"""A deployment while the network, the API server or a person gets in its way."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import ASSETS, DEFINITIONS, make_namespace, wait_for_definition
from deploy_typed import flags, left, recorded, typed, typing
from kserve_manifests import ask, crd
from kube_api_server import ApiServer, Stoppable, stoppable_api_server
from stand_in_kserve import Behaviour, StandIn, cluster_of
from stand_in_network import Front

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.deploying import DeployOptions, deploy, deployed
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.refusals import NotThereError, UnreachableError

pytestmark = pytest.mark.kube
NEVER = Behaviour(load="never")


@pytest.fixture
def kserve(cluster: Cluster, namespace: str) -> Iterator[StandIn]:
    with StandIn(cluster, namespace, NEVER) as playing:
        yield playing


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoppable]:
    """A server of this module's own, which may be killed; it knows no ServingRuntime."""
    if ASSETS is None:
        pytest.skip("KUBEBUILDER_ASSETS is unset")
    with stoppable_api_server(Path(ASSETS), tmp_path_factory.mktemp("own")) as server:
        for plural in ("inferenceservices", "llminferenceservices"):
            assert server.api.ask("POST", DEFINITIONS, crd(plural))[0] == 201
            wait_for_definition(server.api, plural)
        make_namespace(server.api, "llm")
        yield server


def test_a_watch_that_is_cut_goes_on_where_it_was(
    api: ApiServer, admin: Path, namespace: str, kserve: StandIn, tmp_path: Path
) -> None:
    """Load balancers cut long connections; what came meanwhile must not be missed."""
    connections: list[int] = []

    def lead() -> int:
        connections.append(api.port)
        return api.port

    proxy = Front(lead)
    text = admin.read_text().replace(api.url, f"https://127.0.0.1:{proxy.port}")
    through = tmp_path / "through.json"
    through.write_text(text)
    with typing(f"deploy {flags(namespace)}", through, tmp_path) as going:
        going.wait_for("loads the model")
        before = len(connections)
        proxy.cut()
        kserve.behave("qwen", Behaviour())
        code, _ = going.end()
    proxy.close()
    assert code == 0, going.err
    assert len(connections) > before


def test_an_api_server_that_is_restarted_meanwhile_is_waited_for(
    own: Stoppable, tmp_path: Path
) -> None:
    """As in an upgrade of a control plane."""
    admin = own.api.kubeconfig(tmp_path / "admin.json")
    with StandIn(cluster_of(admin), "llm", NEVER) as kserve:
        with typing(f"deploy {flags('llm')}", admin, tmp_path) as going:
            going.wait_for("loads the model")
            own.kill()
            own.start()
            kserve.behave("qwen", Behaviour())
            code, _ = going.end()
        assert code == 0, going.err
        assert typed("teardown --namespace llm --service qwen", admin, tmp_path)[0] == 0


def test_an_api_server_that_stays_away_ends_it_with_what_was_left_behind(
    own: Stoppable, tmp_path: Path
) -> None:
    """Nothing can be removed then, so the command that does it later is told; it does."""
    admin = own.api.kubeconfig(tmp_path / "admin.json")
    cluster = cluster_of(admin)
    with StandIn(cluster, "llm", NEVER):
        options = DeployOptions(patience_s=1.0, context="test")

        def say(line: str) -> None:
            if "loads the model (" in line:
                own.kill()

        with pytest.raises(UnreachableError) as ended:
            deploy(cluster, ask(), options, say)
        own.start()
        left_behind = (
            "Left behind: inferenceservice/qwen in namespace llm. Remove with: kvswarm teardown "
            "--namespace llm --service qwen --context test"
        )
        assert left_behind in str(ended.value)
        words = left_behind.partition("with: kvswarm ")[2]
        code, _, err = typed(words, admin, tmp_path)
        assert code == 0, err
        assert cluster.list_all(KINDS["InferenceService"], "llm")[0] == []
        assert cluster.list_all(KINDS["Pod"], "llm")[0] == []


def test_a_cluster_without_the_kind_says_what_to_install(own: Stoppable, tmp_path: Path) -> None:
    """The definitions of an older KServe, or none."""
    cluster = cluster_of(own.api.kubeconfig(tmp_path / "admin.json"))
    with pytest.raises(NotThereError, match=r"no servingruntimes[\s\S]*Install KServe v0.20"):
        deploy(cluster, ask(backend="tgi"), DeployOptions(), lambda _: None)


@pytest.mark.usefixtures("kserve")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_removes_what_was_made(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path, number: signal.Signals
) -> None:
    """Code 130, no traceback, and an empty namespace."""
    with typing(f"deploy {flags(namespace)} --backend tensorrt-llm", admin, tmp_path) as going:
        going.wait_for("loads the model")
        going.process.send_signal(number)
        code, _ = going.end()
    assert code == 130, going.err
    assert "Traceback" not in going.err
    assert "removed inferenceservice/qwen" in going.err
    assert left(cluster, namespace) == []
    assert recorded(tmp_path)["ended"] == "interrupted"


@pytest.mark.usefixtures("kserve")
def test_an_interrupt_leaves_what_is_to_be_kept(
    cluster: Cluster, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """And says what, and how it is removed."""
    with typing(f"deploy {flags(namespace)} --keep", admin, tmp_path) as going:
        going.wait_for("loads the model")
        going.process.send_signal(signal.SIGINT)
        code, _ = going.end()
    assert code == 130
    assert re.search(r"Left behind: inferenceservice/qwen .* Remove with: kvswarm tear", going.err)
    assert "InferenceService/qwen" in left(cluster, namespace)


@pytest.mark.usefixtures("kserve")
def test_a_second_interrupt_leaves_the_rest_and_says_so(
    api: ApiServer, admin: Path, namespace: str, tmp_path: Path
) -> None:
    """A person who presses twice wants out, also where the cluster holds what is to be removed."""
    path = KINDS["InferenceService"].path(namespace, "qwen")

    def hold(finalizers: list[str]) -> None:
        patch = {"metadata": {"finalizers": finalizers}}
        assert api.ask("PATCH", path, patch, "application/merge-patch+json")[0] == 200

    with typing(f"deploy {flags(namespace)}", admin, tmp_path) as going:
        going.wait_for("loads the model")
        hold(["test.example.com/hold"])
        going.process.send_signal(signal.SIGINT)
        going.wait_for("waiting for the end of")
        going.process.send_signal(signal.SIGINT)
        code, _ = going.end()
    assert code == 130
    assert "interrupted again: what is left stays" in going.err
    assert re.search(r"Left behind: inferenceservice/qwen .* Remove with: kvswarm tear", going.err)
    assert "Traceback" not in going.err
    hold([])


def test_what_is_deployed_for_a_while_is_removed_however_that_ends(
    cluster: Cluster, namespace: str, kserve: StandIn
) -> None:
    """A comparison goes on to the next backend, which needs the GPU."""
    kserve.behave("qwen", Behaviour())
    said: list[str] = []
    decided = ask(namespace=namespace, backend="tgi")
    with deployed(cluster, decided, DeployOptions(), said.append) as deployment:
        assert deployment.url == kserve.url("qwen")
        assert [pod.name for pod in deployment.pods] == kserve.pods("qwen")
        assert deployment.phases["ready_s"] is not None
    assert left(cluster, namespace) == []
    with (
        pytest.raises(ZeroDivisionError),
        deployed(cluster, decided, DeployOptions(), said.append),
    ):
        raise ZeroDivisionError
    assert left(cluster, namespace) == []
    with deployed(cluster, decided, DeployOptions(keep=True), said.append):
        pass
    assert "InferenceService/qwen" in left(cluster, namespace)
