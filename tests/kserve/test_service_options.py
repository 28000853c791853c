"""The flags of `kvswarm run --service`: what lacks another, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvswarm.cli import commands
from kvswarm.commands.service import is_inside
from kvswarm.errors import UsageError

SERVICE = ("--namespace", "llm", "--service", "qwen")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--namespace", "llm"), "--namespace: there is no --service that it is of"),
        (("--context", "staging"), "--context: there is no --service that it is of"),
        (("--token-from-kubeconfig",), "--token-from-kubeconfig: there is no --service"),
        (("--service", "qwen"), "--service qwen: in which namespace?"),
        ((*SERVICE, "--url", "http://127.0.0.1:8000"), "--service with --url: two targets"),
        ((*SERVICE, "--serve", "vllm serve x"), "--service with --serve: two targets"),
        (
            (*SERVICE, "--token-from-kubeconfig", "--api-key-env", "HOME"),
            "--token-from-kubeconfig with --api-key-env: two tokens",
        ),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments: tuple[str, ...], told: str) -> None:
    """Before any cluster is asked."""
    with pytest.raises(UsageError, match=told):
        commands.main(["run", *arguments], standalone_mode=False)


def test_a_dry_run_asks_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which service would be measured."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    arguments = ["run", *SERVICE, "--gateway", "https://203.0.113.7", "--dry-run"]
    assert commands.main(arguments, standalone_mode=False) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["target"] == "service qwen in namespace llm"


@pytest.mark.parametrize(
    ("server", "inside"),
    [
        ("https://10.96.0.1:443", True),
        ("https://kubernetes.default.svc", True),
        ("https://kubernetes.default.svc.cluster.local:443", True),
        ("https://203.0.113.7:6443", False),
        ("https://kubernetes.example.com", False),
    ],
)
def test_a_pod_is_inside_the_cluster_whose_api_server_is_its_own(
    *, server: str, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have a kubeconfig for another; outside a pod there is none of its own."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert not is_inside(server)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert is_inside(server) is inside
