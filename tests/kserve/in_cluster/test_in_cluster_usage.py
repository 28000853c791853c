"""`kvswarm run --in-cluster` as it is typed: what is refused before a cluster is asked, and --dry-run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "swarm"))
from running import Done, forgiving

from kvswarm.cli import main
from kvswarm.kserve.on_cluster import CONFIG_MAP_BYTES
from kvswarm.profiles.load import load_profile

URL = "--url http://qwen.llm"
WHERE = "--namespace llm --image registry/kvswarm:1"
TypeIn = Callable[..., Done]


@pytest.fixture
def type_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> TypeIn:
    """`kvswarm run WORDS` in a folder of its own, where no kubeconfig is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KVSWARM_HEADERS", raising=False)

    def start(words: str, *more: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["kvswarm", "run", *words.split(), *more])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, out, err)

    return start


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (f"--in-cluster {URL} --image i", "--in-cluster: lacks --namespace"),
        (f"--in-cluster {URL} --namespace n", "--in-cluster: lacks --image"),
        (f"--in-cluster {WHERE}", "The embedded simulator is here alone"),
        (f"--in-cluster {WHERE} --url http://127.0.0.1:8000", "127.0.0.1 is the pod itself"),
        (f"--in-cluster {WHERE} --url http://localhost", "localhost is the pod itself"),
        (f"--in-cluster {WHERE} {URL} --service qwen", "two targets of one run"),
        (f"--in-cluster {WHERE} {URL} --sweep seed=1,2", "--sweep with --in-cluster"),
        (f"--in-cluster {WHERE} {URL} --master", "--master with --in-cluster"),
        (f"--in-cluster {WHERE} --serve true", "--serve with --in-cluster"),
        (f"--in-cluster {WHERE} {URL} --metrics-port 9", "--metrics-port with --in-cluster"),
        (f"--in-cluster {WHERE} {URL} --api-key-env KEY", "--secret-env KEY=SECRET/KEY"),
        (f"--in-cluster {WHERE} {URL} --secret-env KEY=sk-123", "--secret-env KEY=...: is not"),
        (f"--in-cluster {WHERE} {URL} --worker-memory much", "--worker-memory much"),
        (f"--in-cluster {WHERE} {URL} --node-selector pool", "is not KEY=VALUE"),
        (f"--in-cluster {WHERE} {URL} --profile standart", "Did you mean 'standard'?"),
        (f"--in-cluster {WHERE} {URL} --profile ./large.yaml", "--data-claim"),
        (f"--in-cluster {WHERE} {URL} --set prompts=/data/rows.jsonl", "/data/rows.jsonl"),
        ("--workers 2", "--workers: goes with --in-cluster"),
        ("--secret-env A=b/c", "--secret-env: goes with --in-cluster"),
        ("--hand-over 5559", "KVSWARM_HAND_OVER_TOKEN is unset or short"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_cluster_is_asked(
    words: str, told: str, tmp_path: Path, type_in: TypeIn
) -> None:
    """Exit code 2, the flag, the way out; no value that was given by mistake."""
    (tmp_path / "large.yaml").write_text("extends: standard\nprompts: ./large.jsonl\n")
    row = json.dumps({"prompt": "x" * 1000}) + "\n"
    (tmp_path / "large.jsonl").write_text(row * (CONFIG_MAP_BYTES // 1000))
    before = sorted(tmp_path.rglob("*"))
    done = type_in(f"{words} --dry-run" if "--in-cluster" in words else words)
    assert done.code == 2, done.err
    assert told in done.err
    assert "sk-123" not in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_no_cluster_ends_with_4(type_in: TypeIn) -> None:
    """After everything that can be checked without one."""
    done = type_in(f"--in-cluster {WHERE} {URL}")
    assert done.code == 4
    assert "no cluster to talk to" in done.err


def test_a_dry_run_prints_the_manifests_without_secrets_and_asks_no_cluster(
    tmp_path: Path, type_in: TypeIn
) -> None:
    """The profile in them resolves to the one that the flags make here."""
    forgiving(tmp_path)
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    words = f"--in-cluster {WHERE} --url https://qwen.llm --profile ./forgiving.yaml --workers 3"
    more = "--requests 77 --set drain_s=9 --ca-file ca.pem --processes 2 --insecure --dry-run"
    done = type_in(f"{words} {more}", "--header", "X-Tenant: tenant-4711")
    assert done.code == 0, done.err
    assert "tenant-4711" not in done.out
    documents = {
        f"{each['kind']}/{re.sub('^kvswarm-[0-9a-f]{6}', 'run', each['metadata']['name'])}": each
        for each in yaml.safe_load_all(done.out)
    }
    assert set(documents["Secret/run"]["data"].values()) == {"Kioq"}  # "***" in base64
    files = documents["ConfigMap/run"]["data"]
    (tmp_path / "back").mkdir()
    for name, text in files.items():
        (tmp_path / "back" / name).write_text(text)
    profile = load_profile(str(tmp_path / "back" / "profile.yaml"))
    assert (profile.load.requests, profile.load.drain_s) == (77, 9.0)
    assert profile.name == "forgiving"
    (container,) = documents["Job/run-master"]["spec"]["template"]["spec"]["containers"]
    text = " ".join(container["args"])
    assert "--url https://qwen.llm --insecure --ca-file /etc/kvswarm/ca.pem" in text
    assert "--expect-workers 6" in text
    assert "--requests" not in text
    (worker,) = documents["Job/run-workers"]["spec"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["cpu"] == "3"
    assert not (tmp_path / "runs").exists()
