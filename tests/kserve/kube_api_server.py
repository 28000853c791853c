"""A real Kubernetes API server for the time of a test: etcd and kube-apiserver on free ports."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_WITHIN_S = 60.0
ASK_EVERY_S = 0.2
ANSWER_S = 60.0
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
USERS = {"admin": "system:masters", "operator": "operators", "reader": "readers"}
"""Users and their groups: only the first may do anything, the others as far as a test says."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running server, its folder, and what the tokens of its users end with."""

    port: int
    token: str
    folder: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, *, user: str = "admin", namespace: str = "default") -> Path:
        """Write a kubeconfig for one of `USERS`; the server's certificate is verified."""
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.folder / "certificates/apiserver.crt"),
                    },
                }
            ],
            "users": [{"name": user, "user": {"token": f"{user}-{self.token}"}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": user, "namespace": namespace},
                }
            ],
        }
        path.write_text(json.dumps(text))  # JSON is YAML
        return path

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = JSON
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; the status and the answer, also of a refusal."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._open(method, path, data, kind) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read())

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """Give the events of a watch, as they come, until the server ends it."""
        with self._open("GET", path) as events:
            for line in events:
                yield json.loads(line)

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200 now."""
        try:
            with self._open("GET", path) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _open(self, method: str, path: str, data: bytes | None = None, kind: str = JSON) -> Any:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=data,
            headers={"Authorization": f"Bearer admin-{self.token}", "Content-Type": kind},
        )
        return urllib.request.urlopen(request, context=unverified(), timeout=ANSWER_S)  # noqa: S310 - https


def unverified() -> ssl.SSLContext:
    """The server makes a certificate of its own at its start."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Stoppable:
    """kube-apiserver as a process that a test may kill and start again; etcd goes on."""

    def __init__(self, api: ApiServer, command: list[str]) -> None:
        self.api = api
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        log = self.api.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        wait_until(self.api, "/readyz", self._process, log)

    def kill(self) -> None:
        """End it at once; twice is once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def api_server(assets: Path, folder: Path) -> Iterator[ApiServer]:
    """Start both, wait until it is ready, and stop both."""
    with stoppable_api_server(assets, folder) as server:
        yield server.api


@contextlib.contextmanager
def stoppable_api_server(assets: Path, folder: Path) -> Iterator[Stoppable]:
    """The same, with a server that can be killed and started again meanwhile."""
    client, peer, port = (free_port() for _ in range(3))
    token = secrets.token_hex(16)
    rows = [f'{user}-{token},{user},{user},"{group}"' for user, group in USERS.items()]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    key = folder / "account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    etcd = [
        str(assets / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]
    server = [
        str(assets / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{client}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
    ]
    with process(etcd, folder / "etcd.log"):
        running = Stoppable(ApiServer(port, token, folder), server)
        try:
            running.start()
            yield running
        finally:
            running.kill()


def wait_until(api: ApiServer, path: str, running: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a path to be answered; a server that ends before that fails the test at once."""
    for _ in range(int(READY_WITHIN_S / ASK_EVERY_S)):
        if api.answers(path):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(ASK_EVERY_S)
        if running.returncode is not None:
            break
    raise AssertionError(f"{path} was not answered:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, its output in a file, and end it."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
