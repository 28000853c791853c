"""Runs on a cluster as plain data: one for each thing that their manifests can say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvswarm.kserve.on_cluster import (
    HEADERS_KEY,
    TOKEN_KEY,
    ClusterRun,
    Places,
    SecretVariable,
    documents,
)
from kvswarm.kserve.run_pods import Pods, Share

OLD, MIDDLE, NEW = (1, 20), (1, 26), (1, 34)
PLAIN = ClusterRun(
    name="kvswarm-3f2a91",
    namespace="llm",
    arguments=("--profile", "/etc/kvswarm/profile.yaml", "--url", "http://qwen-predictor.llm"),
    pods=Pods(image="registry.example.com/kvswarm:1"),
    workers=4,
    places=Places(hand_over_port=5559),
    files={"profile.yaml": b"extends: standard\n"},
    secret={TOKEN_KEY: "0123456789abcdef"},
    directory="20260101T120000Z-standard-3f2a91",
)
RUNS = {
    "plain": PLAIN,
    "service": replace(
        PLAIN,
        arguments=(
            "--profile",
            "/etc/kvswarm/profile.yaml",
            "--namespace",
            "llm",
            "--service",
            "q",
        ),
        pods=Pods(image="registry.example.com/kvswarm:1", service="q", pull_secrets=("registry",)),
    ),
    "everything": replace(
        PLAIN,
        pods=Pods(
            image="registry.example.com/kvswarm:1",
            node_selector={"pool": "load"},
            tolerations=({"key": "load", "operator": "Exists"},),
            away_from_gpus=True,
        ),
        processes=3,
        worker_share=Share(cpus=4, memory="4Gi"),
        master_share=Share(cpus=3),
        places=Places(results_claim="runs", data_claim="data", port=6000, hand_over_port=6001),
        files={**PLAIN.files, "ca.pem": b"-----BEGIN", "rows.bin": b"\xff\xfe"},
        variables=(SecretVariable(variable="LLM_KEY", secret="keys", key="llm"),),  # noqa: S106
        secret={**PLAIN.secret, HEADERS_KEY: '{"X-Tenant": "blue"}'},
        account="measuring",
        deadline_s=7200,
        kept_s=600,
    ),
}

BASE = ClusterRun(
    name="kvswarm",
    namespace="kvswarm",
    arguments=("--profile", "/etc/kvswarm/profile.yaml", "--url", "http://server.example"),
    pods=Pods(image="kvswarm"),
    workers=2,
    places=Places(results_claim="kvswarm-runs"),
    files={"profile.yaml": b"extends: standard\n"},
    kept_s=86_400,
    version=NEW,
)
"""What deploy/kustomize/base/run.yaml is."""
EXAMPLE = replace(
    BASE,
    namespace="llm",
    arguments=(*BASE.arguments[:-1], "http://qwen-predictor.llm.svc.cluster.local"),
    pods=Pods(image="registry.example.com/kvswarm:0.1"),
    workers=4,
    files={"profile.yaml": b"extends: standard\nrequests: 2000\nconcurrency: 64\n"},
)
"""What deploy/kustomize/overlays/example makes of it."""


def made(run: ClusterRun, **changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The documents of a run with some of it changed, by kind and name without the run's."""
    changed = replace(run, **changes)
    return {
        (each["kind"], each["metadata"]["name"].removeprefix(changed.name).lstrip("-")): each
        for each in documents(changed)
    }
