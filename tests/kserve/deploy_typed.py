"""Type `kvswarm deploy` and its kin as processes of their own, against an API server of the tests."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.kinds import KINDS

KVSWARM = [sys.executable, "-m", "kvswarm"]
CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 90.0


@dataclass
class Going:
    """A command that runs: its lines so far, and how it ended."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)
    _over: bool = False

    def read(self) -> None:
        """Take its lines until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                self.lines.append(line.rstrip("\n"))
                self._came.notify_all()
        with self._came:
            self._over = True
            self._came.notify_all()

    def wait_for(self, words: str) -> str:
        """The first line with these words; the test fails where it ends without."""
        with self._came:
            found = self._came.wait_for(
                lambda: self._over or any(words in line for line in self.lines), PATIENCE_S
            )
            lines = [line for line in self.lines if words in line]
            assert found, self.err
            assert lines, self.err
            return lines[0]

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return "\n".join(self.lines)

    def end(self) -> tuple[int, str]:
        """Its exit code, and its standard output."""
        with self._came:
            assert self._came.wait_for(lambda: self._over, PATIENCE_S), self.err
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        return self.process.wait(PATIENCE_S), out


@contextlib.contextmanager
def typing(words: str, kubeconfig: Path, folder: Path) -> Iterator[Going]:
    """Start `kvswarm WORDS` in a folder; it is killed where the test leaves it running."""
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [*KVSWARM, *shlex.split(words)],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(CHECKOUT),
                "KUBECONFIG": str(kubeconfig),
                "HOME": home,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        going = Going(process)
        reader = threading.Thread(target=going.read, daemon=True)
        reader.start()
        try:
            yield going
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()


def typed(words: str, kubeconfig: Path, folder: Path) -> tuple[int, str, str]:
    """Run it to its end: exit code, standard output, standard error."""
    with typing(words, kubeconfig, folder) as going:
        code, out = going.end()
    return code, out, going.err


def flags(namespace: str, more: str = "") -> str:
    """What every deployment needs."""
    return f"--model hf://Qwen/Qwen3-8B --namespace {namespace} --service qwen {more}"


def left(cluster: Cluster, namespace: str) -> list[str]:
    """What is in a namespace of what a deployment makes."""
    names = ("InferenceService", "ServingRuntime", "ConfigMap", "Pod", "Deployment")
    found = [each for name in names for each in cluster.list_all(KINDS[name], namespace)[0]]
    return [
        f"{each['kind']}/{each['metadata']['name']}"
        for each in found
        if each["metadata"]["name"] != "kube-root-ca.crt"
    ]


def recorded(folder: Path) -> dict[str, Any]:
    """The one deployment.json below a folder."""
    (path,) = folder.glob("deployments/*/deployment.json")
    plain: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return plain
