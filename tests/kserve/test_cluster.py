"""Requests and watches of a real API server, and what it says no with."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from kube_api_server import ApiServer, free_port

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS, kind_of
from kvswarm.kserve.refusals import (
    ClusterError,
    ConflictError,
    NotAllowedError,
    NotThereError,
    RefusedError,
    UnreachableError,
)
from kvswarm.kserve.watching import Change, Watched, Watching

pytestmark = pytest.mark.kube
CONFIG_MAP = KINDS["ConfigMap"]
SECONDS = 20.0


@pytest.fixture
def cluster(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """As the admin."""
    return connect(api, tmp_path, monkeypatch)


def connect(
    api: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch, user: str = "admin"
) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder / f"{user}.json", user=user)))
    return Cluster.connect()


def config_map(namespace: str, name: str, **data: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"of": "test"}},
        "data": data,
    }


def apply_until_refused(cluster: Cluster, namespace: str) -> None:
    """Make one after the other: the API server hears of a quota a moment later."""
    give_up_s = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < give_up_s:
        cluster.apply(config_map(namespace, f"a{number}"))
        number += 1


def apply_as_another(api: ApiServer, namespace: str, name: str, **data: str) -> None:
    status, answer = api.ask(
        "PATCH",
        f"{CONFIG_MAP.path(namespace, name)}?fieldManager=helm&force=true",
        config_map(namespace, name, **data),
        "application/apply-patch+yaml",
    )
    assert status in {200, 201}, answer


def test_what_is_applied_is_there_until_it_is_deleted(cluster: Cluster, namespace: str) -> None:
    """Apply makes and changes; delete says whether there was anything."""
    assert cluster.get(CONFIG_MAP, namespace, "a") is None
    cluster.apply(config_map(namespace, "a", key="1"))
    cluster.apply(config_map(namespace, "a", key="2"))
    found = cluster.get(CONFIG_MAP, namespace, "a")
    assert found is not None
    assert found["data"] == {"key": "2"}
    assert cluster.delete(CONFIG_MAP, namespace, "a")
    assert not cluster.delete(CONFIG_MAP, namespace, "a")


def test_a_dry_run_keeps_nothing(cluster: Cluster, namespace: str) -> None:
    """The API server judges it all the same."""
    assert cluster.apply(config_map(namespace, "a", key="1"), dry_run=True)["data"] == {"key": "1"}
    assert cluster.get(CONFIG_MAP, namespace, "a") is None


def test_fields_of_another_manager_are_taken_over_only_by_force(
    api: ApiServer, cluster: Cluster, namespace: str
) -> None:
    """A conflict names the manager, the field, and both ways out."""
    apply_as_another(api, namespace, "a", key="helm's")
    with pytest.raises(ConflictError, match=r'"helm"[\s\S]*\.data\.key[\s\S]*--force'):
        cluster.apply(config_map(namespace, "a", key="ours"))
    assert (
        cluster.apply(config_map(namespace, "a", key="ours"), force=True)["data"]["key"] == "ours"
    )


def test_a_lacking_right_is_named_as_a_rule_of_a_role(
    api: ApiServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verb, resource, namespace: what an administrator has to add."""
    restricted = connect(api, tmp_path, monkeypatch, user="operator")
    with pytest.raises(NotAllowedError, match="this user may not patch configmap/a in namespace"):
        restricted.apply(config_map(namespace, "a"))
    with pytest.raises(NotAllowedError, match=r"resources: \['pods/log'\], verbs: \['get'\]"):
        restricted.logs(namespace, "pod", "container")


def test_a_namespace_or_a_kind_that_is_not_there_is_told(cluster: Cluster, namespace: str) -> None:
    """Not as an object that could not be found."""
    with pytest.raises(NotThereError, match="--namespace nowhere: there is none of that name"):
        cluster.apply(config_map("nowhere", "a"))
    from kvswarm.kserve.kinds import Kind  # noqa: PLC0415

    unknown = Kind("InferenceGraph", "serving.kserve.io/v1alpha1", "inferencegraphs")
    with pytest.raises(NotThereError, match="this cluster has no inferencegraphs"):
        cluster.get(unknown, namespace, "a")


def test_a_quota_that_is_exceeded_is_no_lacking_right(
    api: ApiServer, cluster: Cluster, namespace: str
) -> None:
    """The API server answers 403 to both."""
    with pytest.raises(RefusedError, match=r"metadata\.name: Invalid value"):
        cluster.apply(config_map(namespace, "No_Such_Name"))
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"configmaps": "0"}}}
    status, answer = api.ask("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    assert status == 201, answer
    hard = {"status": {"hard": {"configmaps": "0"}, "used": {"configmaps": "0"}}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/few/status"
    status, answer = api.ask("PATCH", path, hard, "application/merge-patch+json")
    assert status == 200, answer
    with pytest.raises(RefusedError, match=r"exceeded quota[\s\S]*kubectl describe quota"):
        apply_until_refused(cluster, namespace)


def test_an_api_server_that_is_not_there_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its URL, and without half an hour of retries."""
    away = ApiServer(free_port(), "token", tmp_path)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates/apiserver.crt").write_text("")
    path = away.kubeconfig(tmp_path / "config")
    path.write_text(path.read_text().replace("certificate-authority", "unused"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(UnreachableError, match=f"the API server {away.url} cannot be reached"):
        Cluster.connect().get(CONFIG_MAP, "default", "a")


def test_no_kubeconfig_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to set."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no cluster to talk to[\s\S]*KUBECONFIG"):
        Cluster.connect()


def test_an_unknown_context_is_one_message(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the context."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    with pytest.raises(ClusterError, match="staging"):
        Cluster.connect("staging")


def test_the_version_is_two_numbers(cluster: Cluster) -> None:
    """`minor` may have a plus sign."""
    assert cluster.version() >= (1, 19)


def test_kinds_know_their_paths() -> None:
    """Of the core and of a group."""
    assert CONFIG_MAP.path("llm", "a") == "/api/v1/namespaces/llm/configmaps/a"
    assert (
        kind_of({"apiVersion": "batch/v1", "kind": "Job"}).path("llm")
        == "/apis/batch/v1/namespaces/llm/jobs"
    )


def gather(watching: Watching, count: int) -> list[tuple[str, bool]]:
    changes: list[Change] = []
    while len(changes) < count:
        change = watching.next(SECONDS)
        assert change is not None, changes
        changes.append(change)
    return [(change.name, change.deleted) for change in changes]


def test_a_watch_tells_what_is_there_and_what_becomes_of_it(
    cluster: Cluster, namespace: str
) -> None:
    """The newest state of each object, in order; objects of other labels are not told."""
    cluster.apply(config_map(namespace, "a"))
    other = config_map(namespace, "other")
    other["metadata"]["labels"] = {}  # type: ignore[index]
    cluster.apply(other)
    watched = Watched(kind=CONFIG_MAP, namespace=namespace, labels="of=test")
    with Watching(cluster, [watched]) as watching:
        assert gather(watching, 1) == [("a", False)]
        cluster.apply(config_map(namespace, "b"))
        cluster.apply(config_map(namespace, "b", key="1"))
        cluster.delete(CONFIG_MAP, namespace, "a")
        assert gather(watching, 3) == [("b", False), ("b", False), ("a", True)]
        assert watching.next(0.2) is None


def test_a_watch_ends_with_the_right_that_it_lacks(
    api: ApiServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves no thread behind."""
    restricted = connect(api, tmp_path, monkeypatch, user="operator")
    before = threading.active_count()
    watched = Watched(kind=CONFIG_MAP, namespace=namespace)
    with (
        Watching(restricted, [watched]) as watching,
        pytest.raises(NotAllowedError, match="may not list configmaps"),
    ):
        watching.next(SECONDS)
    assert threading.active_count() == before


def test_a_watch_that_is_left_ends_its_thread(cluster: Cluster, namespace: str) -> None:
    """Also while it waits for a line."""
    before = set(threading.enumerate())
    with Watching(cluster, [Watched(kind=CONFIG_MAP, namespace=namespace)]) as watching:
        cluster.apply(config_map(namespace, "a"))
        gather(watching, 1)
        (thread,) = set(threading.enumerate()) - before
    thread.join(SECONDS)
    assert not thread.is_alive()
