"""The flags of `kvswarm run --service`: what lacks another, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvswarm.cli import commands
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
