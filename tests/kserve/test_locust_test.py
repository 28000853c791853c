"""`kvswarm kserve locusttest`: what the official operator would make of it runs, and ends in figures."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kvswarm.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from running import LOCUST, Run, forgiving, free_port, going, simulator, until

FOLDER = "/home/locust"
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
RESOURCES = {"type": "object", "properties": {"requests": TEXTS, "limits": TEXTS}}
PART = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"labels": TEXTS, "annotations": TEXTS, "resources": RESOURCES},
}
NAMED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
}
SPEC = {
    "type": "object",
    "additionalProperties": False,
    "required": ["workers"],
    "properties": {
        "image": {"type": "string"},
        "imagePullSecrets": {"type": "array", "items": NAMED},
        "workers": {"type": "integer", "minimum": 1},
        "args": {"type": "string"},
        "master": PART,
        "worker": PART,
        "locustfile": {
            "type": "object",
            "additionalProperties": False,
            "required": ["configMap"],
            "properties": {"configMap": NAMED},
        },
    },
}
"""Of the operator's definition (locust.io/v1), what is used of it, closed to other fields."""


def printed(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """ConfigMap, LocustTest, and what a person is told."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    rest = "--namespace llm --image registry/kvswarm-locust:1"
    monkeypatch.setattr(
        sys, "argv", ["kvswarm", "kserve", "locusttest", *f"{words} {rest}".split()]
    )
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capfd.readouterr()
    assert left.value.code == 0, err
    config_map, test = yaml.safe_load_all(out)
    return config_map, test, err


def test_the_operators_definition_has_every_field(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what it cannot do is told."""
    config_map, test, told = printed(
        "--url http://qwen --workers 3 --image-pull-secret registry", monkeypatch, capfd
    )
    jsonschema.Draft202012Validator(SPEC).validate(test["spec"])
    assert (test["apiVersion"], test["kind"]) == ("locust.io/v1", "LocustTest")
    assert test["spec"]["locustfile"]["configMap"]["name"] == config_map["metadata"]["name"]
    assert 'ENTRYPOINT ["locust"]' in told
    assert "no secrets" in told


def test_what_the_operator_starts_makes_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--master ARGS` and `--worker --master-host M ARGS`, with the ConfigMap at /home/locust."""
    monkeypatch.chdir(tmp_path)
    forgiving(tmp_path)
    with simulator("--exact", "10", "1") as url:
        words = f"--url {url} --workers 2 --profile ./forgiving.yaml --requests 30"
        config_map, test, _ = printed(words, monkeypatch, capfd)
        mounted = tmp_path / "mounted"
        mounted.mkdir()
        for name, text in config_map["data"].items():
            (mounted / name).write_text(text)
        args = shlex.split(test["spec"]["args"].replace(FOLDER, str(mounted)))
        place = args.index("0.0.0.0")  # noqa: S104 - for this test this machine alone
        args[place] = "127.0.0.1"
        port, web_port = str(free_port()), str(free_port())
        master = ["--master", "--master-bind-port", port, "--web-port", web_port, *args]
        worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, *args]
        logs = [tmp_path / name for name in ("master", "one", "two")]
        for each in logs:
            each.mkdir()
        with (
            going(*LOCUST, *master, cwd=tmp_path, logs=logs[0]) as started,
            going(*LOCUST, *worker, cwd=tmp_path, logs=logs[1]),
            going(*LOCUST, *worker, cwd=tmp_path, logs=logs[2]),
        ):

            def ended() -> bool:
                assert started.process.poll() is None, started.err
                return bool(list(tmp_path.glob("runs/*/summary.json")))

            until(ended, "the run has its figures")
    (path,) = tmp_path.glob("runs/*")
    run = Run(path)
    assert run.summary["requests"]["ok"] == 30
    assert len(run.info["workers"]) == 2
    assert json.loads((path / "run.json").read_text())["profile"]["name"] == "forgiving"
