"""Serve the tiny model with real vLLM on a free loopback port, and read the server's own metrics.

In:  the vLLM venv's python and the model's directory.
Out: `Server`: its URL, `metrics()`. It is killed, with its engine, when the context ends.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "tiny"
START_S = 300.0
SAMPLE = re.compile(r"^([\w:]+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Histogram:
    """A Prometheus histogram: counts at or below each edge, sum and count of all values."""

    edges: tuple[float, ...]
    cumulative: tuple[float, ...]
    sum: float
    count: float

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.sum / self.count

    def since(self, before: Histogram) -> Histogram:
        """What came after `before`."""
        assert self.edges == before.edges
        counts = zip(self.cumulative, before.cumulative, strict=True)
        return Histogram(
            self.edges,
            tuple(now - then for now, then in counts),
            self.sum - before.sum,
            self.count - before.count,
        )


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            found = SAMPLE.match(line)
            if found:
                name, labels, value = found.groups()
                self._samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def value(self, name: str) -> float:
        """The sum of a counter over its labels. Raises KeyError: vLLM has no such metric."""
        values = [value for found, _, value in self._samples if found == name]
        if not values:
            raise KeyError(name)
        return sum(values)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """A metric's values by one of its labels. Raises KeyError: vLLM has no such metric."""
        found = {labels[label]: value for each, labels, value in self._samples if each == name}
        if not found:
            raise KeyError(name)
        return found

    def histogram(self, name: str) -> Histogram:
        """A histogram of the one engine. Raises KeyError: vLLM has no such metric."""
        buckets = [
            (float(labels["le"]), value)
            for found, labels, value in self._samples
            if found == f"{name}_bucket"
        ]
        if not buckets:
            raise KeyError(name)
        edges, cumulative = zip(*sorted(buckets), strict=True)
        return Histogram(edges, cumulative, self.value(f"{name}_sum"), self.value(f"{name}_count"))


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    tokenizer: Path
    """The model's directory, for exact prompt lengths."""

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://127.0.0.1:{self.port}"

    def metrics(self) -> Metrics:
        """Read /metrics."""
        return Metrics(self._ask("GET", "/metrics").decode())

    def healthy(self) -> bool:
        """Whether /health answers 200."""
        try:
            self._ask("GET", "/health")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def count_tokens(self, asked: dict[str, Any]) -> int:
        """Ask the server's own /tokenize how many tokens a prompt or messages are."""
        count: int = json.loads(self._ask("POST", "/tokenize", {"model": MODEL, **asked}))["count"]
        return count

    def complete(self, **asked: Any) -> str:
        """Ask for one completion, at once and not as a stream; give its text."""
        answer = json.loads(self._ask("POST", "/v1/completions", asked))
        text: str = answer["choices"][0]["text"]
        return text

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                method,
                path,
                json.dumps(body) if body is not None else None,
                {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"{path}: {response.status} {answer[:200]!r}")
        return answer


def server_cores() -> set[int]:
    """Every core that we may use but the first, which stays free for the client.

    vLLM's processes poll in a loop while they wait for each other. On two shared cores they keep
    the client from running for up to 0.3 s at a time, and kvswarm's verdict is `invalid`.
    """
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[1:] or cores)


def make_model(python: str, directory: Path) -> None:
    """Make the tiny model's files."""
    words = Path(__file__).parents[2] / "kvswarm" / "workload" / "words.txt"
    script = Path(__file__).with_name("tiny_model.py")
    subprocess.run([python, script, directory, words], check=True, timeout=START_S)


def make_adapter(python: str, directory: Path, model: Path, seed: int) -> None:
    """Make a LoRA adapter for the tiny model; another seed makes another one."""
    script = Path(__file__).with_name("tiny_adapter.py")
    subprocess.run([python, script, directory, model, str(seed)], check=True, timeout=START_S)


def serve_command(python: str, directory: Path) -> list[str]:
    """`vllm serve` for the tiny model, but for its port."""
    return [
        python, "-m", "vllm.entrypoints.cli.main", "serve", str(directory),
        "--host", "127.0.0.1", "--served-model-name", MODEL,
        "--load-format", "dummy", "--enforce-eager", "--max-model-len", "2048",
    ]  # fmt: skip


def server_environment() -> dict[str, str]:
    """This environment, and what keeps vLLM small, quiet and at home."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(min(len(server_cores()), 4)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_SLEEP_WHEN_IDLE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def refusals(python: str, questions: list[Any]) -> list[str | None]:
    """What `vllm serve` says to each [model directory, flags], in one process; None: it starts."""
    done = subprocess.run(
        [python, str(Path(__file__).with_name("engine_configs.py"))],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
        env=server_environment(),
        timeout=600,
    )
    said: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return said


@contextlib.contextmanager
def serving(python: str, directory: Path, *flags: str) -> Iterator[Server]:
    """Start `vllm serve`, wait until it is healthy, kill it at the end."""
    port = _free_port()
    log_path = directory.parent / f"vllm-{port}.log"
    command = [*serve_command(python, directory), "--port", str(port), *flags]
    cores = server_cores()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=server_environment(),
            cwd=directory.parent,
            start_new_session=True,
        )
    try:
        # It has started no thread or process of its own yet; those it starts inherit the cores.
        os.sched_setaffinity(process.pid, cores)
        server = Server(port, directory)
        _wait_until_healthy(server, process, log_path)
        yield server
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order where it can, so that it takes its shared memory away; and then whatever is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_S
    while not server.healthy():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-40:])
            raise AssertionError(f"vLLM did not start; the end of its log:\n{tail}")
        time.sleep(0.25)
