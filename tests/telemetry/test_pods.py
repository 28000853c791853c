"""A source that lists pods: each is asked while it is there, by a recorder that is a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from endpoints import METRICS, PAGE, Endpoint, endpoint

from kvswarm.stream.target import Target
from kvswarm.telemetry.pages import read_pages
from kvswarm.telemetry.sources import sources_of

LIST = "/secret-4711/pods"


def entry(server: Endpoint, name: str, *, ready: bool = True) -> dict[str, Any]:
    server.paths.setdefault(f"/{name}", (200, METRICS, PAGE))
    shown = f"https://cluster/{name}"
    url = f"{server.url}/{name}"
    return {"name": name, "url": url, "shown": shown, "ready": ready, "insecure": False}


def show(server: Endpoint, *entries: dict[str, Any]) -> None:
    """What the list holds from now on."""
    server.paths[LIST] = (200, "application/json", json.dumps(entries))


class Following:
    """A recorder that follows the list of a server."""

    def __init__(self, path: Path, server: Endpoint) -> None:
        self.path = path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvswarm.telemetry.recorder", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        target = Target.of("http://service.invalid/v1", {"X-Key": "secret-0815"})
        sources = sources_of(target, None, pods_url=f"{server.url}{LIST}")
        asked = [source.to_message() for source in sources]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def until(self, wanted: str) -> list[dict[str, Any]]:
        """What it says up to the first message of a kind."""
        said = []
        for message in self._lines():
            said.append(message)
            if wanted in message:
                return said
        raise AssertionError(said)

    def end(self) -> dict[str, str | None]:
        """Have it end; its notes by source."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        notes = {each["source"]: each["note"] for each in self._lines() if "source" in each}
        assert self._process.wait() == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
        return notes

    def pages_of(self, name: str) -> int:
        """How many there are."""
        pages = list(read_pages(self.path)) if self.path.exists() else []
        return sum(page.source == name for page in pages)


def test_each_pod_of_the_list_is_asked_before_the_load(tmp_path: Path) -> None:
    """One that is ready then served before; people read the pod's own URL, not the way to it."""
    with endpoint() as server:
        show(server, entry(server, "a"), entry(server, "b", ready=False))
        recording = Following(tmp_path / "pages", server)
        said = recording.until("ready")
        assert [each["pod"] for each in said if "pod" in each] == [
            {"name": "a", "url": "https://cluster/a", "late": False},
            {"name": "b", "url": "https://cluster/b", "late": True},
        ]
        assert recording.pages_of("a") == recording.pages_of("b") == 1
        assert recording.end() == {"pods": None, "a": None, "b": None}
        assert recording.pages_of("a") >= 2
        headers = {name.lower() for _, given in server.seen for name in given}
    assert "x-key" not in headers


def test_a_pod_that_comes_is_asked_and_one_that_goes_is_asked_once_more(tmp_path: Path) -> None:
    """Both are told; the last page of one that goes is as late as can be."""
    with endpoint() as server:
        show(server, entry(server, "a"))
        recording = Following(tmp_path / "pages", server)
        recording.until("ready")
        show(server, entry(server, "b"))
        (came,) = recording.until("pod")
        assert came == {"pod": {"name": "b", "url": "https://cluster/b", "late": True}}
        server.until(lambda: recording.pages_of("b") > 0)
        asked = sum(path == "/a" for path, _ in server.seen)
        server.until(lambda: recording.pages_of("b") > 2)
        assert sum(path == "/a" for path, _ in server.seen) == asked
        notes = recording.end()
    assert notes["a"] is not None
    assert notes["a"].startswith("a left the service at ")
    assert notes["b"] is None


def test_a_list_that_is_away_for_a_while_changes_nothing(tmp_path: Path) -> None:
    """Its pods are asked on."""
    with endpoint() as server:
        show(server, entry(server, "a"))
        recording = Following(tmp_path / "pages", server)
        recording.until("ready")
        server.paths[LIST] = (502, "text/plain", "away")
        pages = recording.pages_of("a")
        server.until(lambda: recording.pages_of("a") > pages + 2)
        assert recording.end() == {"pods": None, "a": None}


def test_a_pod_that_comes_in_the_last_second_is_asked(tmp_path: Path) -> None:
    """A service that was woken by a short run has counted all of it by then."""
    with endpoint() as server:
        show(server)
        recording = Following(tmp_path / "pages", server)
        said = recording.until("ready")
        assert {
            "source": "pods",
            "note": "no metrics of the service's pods: no pod of it runs",
        } in said
        show(server, entry(server, "a"))
        assert recording.end() == {"pods": None, "a": None}
        assert recording.pages_of("a") > 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, "text/plain", "nothing"), "status 404"),
        ((502, "text/plain", "away"), "status 502"),
        ((200, "application/json", "no list"), "Expecting value"),
        ((200, "application/json", '[{"name": "a"}]'), "url"),
    ],
)
def test_a_list_that_is_none_is_told(
    tmp_path: Path, answer: tuple[int, str, str], why: str
) -> None:
    """The run has no metrics of pods then."""
    with endpoint() as server:
        server.paths[LIST] = answer
        recording = Following(tmp_path / "pages", server)
        recording.until("ready")
        notes = recording.end()
    assert set(notes) == {"pods"}
    assert notes["pods"] is not None
    assert notes["pods"].startswith("no metrics of the service's pods: ")
    assert why in notes["pods"]
    assert not (tmp_path / "pages").exists()


def test_a_pod_without_metrics_is_told_by_the_url_that_people_know(tmp_path: Path) -> None:
    """The path of the list is a secret, and stays one."""
    with endpoint() as server:
        show(server, entry(server, "a"))
        server.paths["/a"] = (403, "text/plain", "no")
        recording = Following(tmp_path / "pages", server)
        recording.until("ready")
        notes = recording.end()
    assert notes["a"] == "no metrics of a (https://cluster/a): status 403"
