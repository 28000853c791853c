"""Finding the API behind a URL, before any load: over real HTTP."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kvswarm.errors import TargetError
from kvswarm.stream.target import Target
from kvswarm.swarm.preflight import find_target

TIMEOUT_S = 10.0
MODELS = b'{"data": [{"id": "m"}]}'


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the paths it was given, and 404 to all others."""

    server: Paths

    def do_GET(self) -> None:
        """A list of models, or nothing."""
        known = self.server.paths.get(f"GET {self.path}", 404)
        self._answer(known, MODELS if known == 200 else b"")

    def do_POST(self) -> None:
        """A status, whatever was sent."""
        self._answer(self.server.paths.get(f"POST {self.path}", 404), b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Paths(http.server.ThreadingHTTPServer):
    """A server of these paths."""

    daemon_threads = True

    def __init__(self, paths: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths = paths
        self.asked: list[str] = []


@contextmanager
def serving(**paths: int) -> Iterator[Paths]:
    """Serve; keys are method and path, `_` between them."""
    with Paths({key.replace("_", " ", 1): status for key, status in paths.items()}) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def found(server: Paths, path: str, model: str | None = None, endpoint: str = "chat") -> str:
    """The base URL that is found, without its host."""
    host = f"http://127.0.0.1:{server.server_port}"
    target = Target.of(f"{host}{path}")
    return find_target(target, model, endpoint, TIMEOUT_S).base_url.removeprefix(host)


@pytest.mark.parametrize(
    ("path", "listed", "base"),
    [
        ("", "/v1/models", "/v1"),
        ("/", "/openai/v1/models", "/openai/v1"),
        ("/v1", "/v1/models", "/v1"),
        ("/v1/chat/completions", "/v1/models", "/v1"),
        ("/openai/v1/completions", "/openai/v1/models", "/openai/v1"),
        ("/v1/models", "/v1/models", "/v1"),
        ("/tenant", "/tenant/v1/models", "/tenant/v1"),
    ],
)
def test_a_url_may_be_the_root_the_base_or_an_endpoint(path: str, listed: str, base: str) -> None:
    """People paste what they have at hand."""
    with serving(**{f"GET_{listed}": 200}) as server:
        assert found(server, path) == base


def test_a_server_without_models_is_taken_where_its_endpoint_is() -> None:
    """A refusal of an empty request shows that it is there, and costs no generation."""
    with serving(**{"POST_/openai/v1/chat/completions": 422}) as server:
        assert found(server, "", model="m") == "/openai/v1"


def test_a_path_where_nothing_is_ends_before_any_load() -> None:
    """Each request would fail with 404: a run of failures, and exit code 1 for a typing mistake."""
    with (
        serving(**{"POST_/v1/chat/completions": 400}) as server,
        pytest.raises(TargetError, match="/wrong/v1/chat/completions: 404"),
    ):
        found(server, "/wrong", model="m")


def test_an_endpoint_that_the_server_lacks_is_named() -> None:
    """TGI, say, may have chat only."""
    with (
        serving(**{"POST_/v1/chat/completions": 400}) as server,
        pytest.raises(TargetError, match="has no completions endpoint"),
    ):
        found(server, "", model="m", endpoint="completions")


def test_a_server_that_wants_a_key_says_so() -> None:
    """Not that nothing is there."""
    with (
        serving(**{"POST_/v1/chat/completions": 401}) as server,
        pytest.raises(TargetError, match="refused with status 401"),
    ):
        found(server, "", model="m")
