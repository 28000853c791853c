"""The manifests of a run on the cluster: as they were read and approved, and as an API server has them.

Renew them after a wanted change, and read the difference:
    KVSWARM_RENEW=1 python -m pytest tests/kserve/test_on_cluster.py && git diff tests/kserve/golden
"""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from cluster_runs import MIDDLE, NEW, OLD, PLAIN, RUNS, made
from kserve_manifests import GOLDEN
from kube_api_server import APPLY, ApiServer

from kvswarm.errors import UsageError
from kvswarm.kserve.kinds import kind_of
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.on_cluster import ClusterRun, documents

FOLDER = GOLDEN / "runs"


def pod(run: ClusterRun, part: str, **changes: Any) -> dict[str, Any]:
    """The pod of a part."""
    spec: dict[str, Any] = made(run, **changes)["Job", part]["spec"]["template"]["spec"]
    return spec


def apply(api: ApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """As `kubectl apply --server-side --dry-run=server` does."""
    metadata = document["metadata"]
    path = kind_of(document).path(metadata["namespace"], metadata["name"])
    return api.ask("PATCH", f"{path}?fieldManager=kubectl&dryRun=All", document, APPLY)


@pytest.mark.parametrize("version", [OLD, MIDDLE, NEW], ids=lambda v: f"{v[0]}.{v[1]}")
@pytest.mark.parametrize("name", RUNS)
def test_what_is_made_is_what_was_read_and_approved(name: str, version: tuple[int, int]) -> None:
    """A change of these is a change of who may reach what; renewing is told above."""
    text = Manifests(
        documents=tuple(documents(replace(RUNS[name], version=version))), notes=()
    ).to_yaml()
    path = FOLDER / f"{name}-{version[0]}.{version[1]}.yaml"
    if "KVSWARM_RENEW" in os.environ:
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), "renew: see the top of this file"


@pytest.mark.kube
@pytest.mark.parametrize("name", RUNS)
def test_an_api_server_takes_every_manifest_and_drops_nothing(api: ApiServer, name: str) -> None:
    """What comes back holds all that was sent."""
    for document in documents(replace(RUNS[name], version=OLD)):
        status, answer = apply(api, document)
        assert status == 201, answer
        for part in set(document) - {"metadata"}:
            assert holds(answer[part], document[part]), (part, answer[part])


@pytest.mark.kube
def test_an_api_server_refuses_the_fields_of_a_newer_one(api: ApiServer) -> None:
    """Which is why they are left out by its version."""
    for document in (made(PLAIN, version=MIDDLE)["Job", "workers"],):
        status, answer = apply(api, document)
        assert status != 201
        assert "completionMode" in answer["message"]


def holds(there: Any, sent: Any) -> bool:
    """Whether an answer has all of what was sent; a server fills in more. 1.20 drops a TTL."""
    if isinstance(sent, dict):
        return all(
            key == "ttlSecondsAfterFinished" or (key in there and holds(there[key], value))
            for key, value in sent.items()
        )
    if isinstance(sent, list):
        return len(there) == len(sent) and all(map(holds, there, sent))
    return bool(there == sent)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("part", ["master", "workers"])
def test_pods_meet_the_restricted_policy_and_are_never_throttled(
    run: ClusterRun, part: str
) -> None:
    """No root, no privileges, nothing to write to but volumes; requests equal limits."""
    spec = pod(run, part)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    shares = container["resources"]
    assert shares["limits"] == shares["requests"]
    assert shares["limits"]["cpu"].isdecimal()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_only_a_master_that_asks_the_api_server_has_a_token_for_it() -> None:
    """And may only read what it measures."""
    assert not pod(PLAIN, "master")["automountServiceAccountToken"]
    assert ("Role", "") not in made(PLAIN)
    with_service = made(RUNS["service"])
    assert pod(RUNS["service"], "master")["automountServiceAccountToken"]
    assert not pod(RUNS["service"], "workers")["automountServiceAccountToken"]
    verbs = {verb for rule in with_service["Role", ""]["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
    own = made(RUNS["service"], account="measuring")
    assert ("Role", "") not in own
    assert own["Job", "master"]["spec"]["template"]["spec"]["serviceAccountName"] == "measuring"


def test_only_workers_reach_the_masters_port_and_nobody_reaches_a_worker() -> None:
    """Nothing on that port asks who is there; the other one asks for the token."""
    objects = made(PLAIN)
    workers = objects["Job", "workers"]["spec"]["template"]["metadata"]["labels"]
    master = objects["NetworkPolicy", "master"]["spec"]
    (gate, open_to_all) = master["ingress"]
    assert gate["from"] == [{"podSelector": {"matchLabels": workers}}]
    assert [port["port"] for port in gate["ports"]] == [5557]
    assert [port["port"] for port in open_to_all["ports"]] == [5559]
    assert objects["NetworkPolicy", "workers"]["spec"].get("ingress") is None
    no_hand_over = made(PLAIN, places=replace(PLAIN.places, hand_over_port=None))
    assert no_hand_over["NetworkPolicy", "master"]["spec"]["ingress"] == [gate]


def test_a_lost_worker_is_not_replaced_and_takes_no_other_along() -> None:
    """A Job that has failed ends its pods: the limit is each index's own, where there is that."""
    new = made(PLAIN, version=NEW)["Job", "workers"]["spec"]
    assert (new["completionMode"], new["backoffLimitPerIndex"]) == ("Indexed", 0)
    assert "backoffLimit" not in new
    middle = made(PLAIN, version=MIDDLE)["Job", "workers"]["spec"]
    assert (middle["completionMode"], middle["backoffLimit"]) == ("Indexed", 4)
    old = made(PLAIN, version=OLD)["Job", "workers"]["spec"]
    assert "completionMode" not in old
    assert made(PLAIN)["Job", "master"]["spec"]["backoffLimit"] == 0


def test_the_master_waits_for_every_process() -> None:
    """A worker's pod with three processes is three workers."""
    (container,) = pod(RUNS["everything"], "master")["containers"]
    place = container["args"].index("--expect-workers")
    assert container["args"][place + 1] == "12"
    (worker,) = pod(RUNS["everything"], "workers")["containers"]
    assert worker["args"][-2:] == ["--processes", "3"]


def test_nothing_of_a_secret_is_in_a_job() -> None:
    """Only names of Secrets and their keys."""
    run = RUNS["everything"]
    text = yaml.safe_dump([made(run)["Job", part] for part in ("master", "workers")])
    for value in run.secret.values():
        assert value not in text


def test_more_than_a_config_map_holds_is_refused_with_the_way_out() -> None:
    """The largest file is named, and the claim that can hold it."""
    files = {**PLAIN.files, "rows.jsonl": b"x" * (1 << 20)}
    with pytest.raises(UsageError, match=r"largest rows\.jsonl[\s\S]*--data-claim"):
        documents(replace(PLAIN, files=files))
    fits = {"rows.jsonl": b"x" * ((1 << 20) - len("rows.jsonl"))}
    assert documents(replace(PLAIN, files=fits))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Run_1"}, "run Run_1: is no name"),
        ({"worker_share": replace(PLAIN.worker_share, memory="much")}, "--worker-memory much"),
        ({"master_share": replace(PLAIN.master_share, memory="2 GB")}, "--master-memory 2 GB"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_before(changes: dict[str, Any], told: str) -> None:
    """With the flag that says it."""
    with pytest.raises(UsageError, match=told):
        documents(replace(copy.copy(PLAIN), **changes))
