"""`kvswarm run --hand-over`: the results wait for who has the token, and for nobody else."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
from running import KVSWARM, Going, forgiving, free_port, going, simulator, until

from kvswarm.archive import sha256_of, unpack
from kvswarm.kserve.handing import TOKEN_HEADER

TOKEN = "0123456789abcdef0123"  # noqa: S105 - of a test


@contextlib.contextmanager
def started(tmp_path: Path, url: str, port: int, more: str = "") -> Iterator[Going]:
    """A run whose results are handed over."""
    profile = forgiving(tmp_path, more)
    words = ("--profile", profile, "--url", url, "--out", "run", "--hand-over", str(port))
    env = {"KVSWARM_HAND_OVER_TOKEN": TOKEN}
    with going(*KVSWARM, "run", *words, cwd=tmp_path, env=env) as process:
        yield process


def ask(
    port: int, method: str, path: str, token: str = TOKEN, start_bytes: int | None = None
) -> tuple[int, bytes]:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {TOKEN_HEADER: token}
    if start_bytes is not None:
        headers["Range"] = f"bytes={start_bytes}-"
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def phase(port: int) -> str:
    """What the run says of itself; empty where nothing listens."""
    try:
        return str(json.loads(ask(port, "GET", "/state")[1])["phase"])
    except OSError:
        return ""


def test_results_are_given_whole_or_from_a_byte_on_until_they_were_taken(tmp_path: Path) -> None:
    """Then the process ends with the run's exit code, its table printed nowhere."""
    port = free_port()
    with simulator("--exact", "10", "1") as url, started(tmp_path, url, port) as process:
        until(lambda: phase(port) == "ended", "the run has ended")
        state = json.loads(ask(port, "GET", "/state")[1])
        assert (state["exit_code"], state["error"]) == (0, None)
        assert ask(port, "GET", "/archive", token="1" * 20)[0] == 403
        assert ask(port, "POST", "/taken", token="")[0] == 403
        status, whole = ask(port, "GET", "/archive")
        assert (status, len(whole)) == (200, state["archive_bytes"])
        assert ask(port, "GET", "/archive", start_bytes=1000) == (206, whole[1000:])
        assert ask(port, "GET", "/archive", start_bytes=len(whole)) == (206, b"")
        assert ask(port, "GET", "/archive", start_bytes=len(whole) + 1)[0] == 416
        assert ask(port, "GET", "/other")[0] == 404
        assert process.process.poll() is None
        assert ask(port, "POST", "/taken")[0] == 200
        done = process.end()
    assert done.code == 0, done.err
    assert done.out == ""
    assert TOKEN not in done.err
    (tmp_path / "archive").write_bytes(whole)
    assert sha256_of(tmp_path / "archive") == state["archive_sha256"]
    unpack(tmp_path / "archive", tmp_path / "back")
    for path in (tmp_path / "run").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
        assert TOKEN.encode() not in path.read_bytes()


def test_stop_ends_the_run_in_order(tmp_path: Path) -> None:
    """As Ctrl-C does; the results of what was measured are given."""
    port = free_port()
    with (
        simulator("--exact", "10", "5") as url,
        started(tmp_path, url, port, "requests: 5000") as process,
    ):
        until(lambda: phase(port) == "running", "the run goes on")
        assert ask(port, "GET", "/archive")[0] == 404
        assert ask(port, "POST", "/stop", token="2" * 20)[0] == 403
        assert ask(port, "POST", "/stop")[0] == 202
        until(lambda: phase(port) == "ended", "the run has ended")
        state = json.loads(ask(port, "GET", "/state")[1])
        assert ask(port, "POST", "/taken")[0] == 200
        assert process.end().code == 130
    assert state["exit_code"] == 130
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"] == "interrupted"


def test_why_there_was_no_run_is_handed_over_too(tmp_path: Path) -> None:
    """Whoever waits far away learns it in the same words."""
    port = free_port()
    with started(tmp_path, "http://127.0.0.1:9", port) as process:
        until(lambda: phase(port) == "ended", "it has ended")
        state = json.loads(ask(port, "GET", "/state")[1])
        assert (state["exit_code"], state["archive_bytes"]) == (4, None)
        assert "http://127.0.0.1:9" in state["error"]
        done = process.end(signal.SIGTERM)  # who does not want to wait
    assert done.code == 4
    assert state["error"] in done.err
