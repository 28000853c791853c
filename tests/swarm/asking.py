"""Ask Locust's web UI over HTTP, as a browser or a script does."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
from running import CHECKOUT, LOCUST, Going, free_port, going, until

LOCUSTFILE = CHECKOUT / "locustfiles" / "standard.py"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Web:
    """A web UI that is up."""

    address: str
    locust: Going
    folder: Path

    def ask(
        self, path: str, form: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """GET, or POST a form; whatever the status, the answer is given."""
        data = None if form is None else form.encode()
        request = urllib.request.Request(self.address + path, data, dict(headers or {}))  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def start(self, form: str) -> Answer:
        """Send the start form."""
        return self.ask("/swarm", form)

    @property
    def live(self) -> dict[str, Any]:
        """/llm/live.json, all of it."""
        live: dict[str, Any] = self.ask("/llm/live.json").json
        return live

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of the tab, by the name of their figure."""
        (table,) = self.ask("/stats/requests").json["extended_stats"]
        return {row["figure"]: row for row in table["data"]}

    def ended(self, runs: int = 1) -> list[dict[str, Any]]:
        """Wait until so many runs have ended; give them, the newest first."""

        def is_over() -> bool:
            told = self.ask("/llm/runs").json["runs"]
            return len(told) >= runs and all(run["over"] for run in told)

        until(is_over, f"{runs} runs have ended")
        known: list[dict[str, Any]] = self.ask("/llm/runs").json["runs"]
        return known


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a login."""
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {packed}"}


@contextlib.contextmanager
def web_ui(
    folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> Iterator[Web]:
    """Locust with its web UI on a free port."""
    port = free_port()
    command = (*LOCUST, "-f", LOCUSTFILE, "--web-port", str(port), *arguments)
    with going(*command, cwd=folder, env=env) as locust:

        def listens() -> bool:  # a master listens for its workers, too
            assert locust.process.poll() is None, locust.err
            sockets = psutil.Process(locust.process.pid).net_connections("tcp")
            return port in {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}

        until(listens, "the web UI is up")
        yield Web(f"http://127.0.0.1:{port}", locust, folder)
