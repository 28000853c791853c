"""The recorder as a process of its own, against real servers; and the file that it writes."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.simulator.launch import start_simulator
from kvswarm.stream.target import Target
from kvswarm.telemetry.pages import Page, append_page, read_pages
from kvswarm.telemetry.sources import sources_of

sys.path.insert(0, str(Path(__file__).parent))
from endpoints import METRICS, PAGE, endpoint


class Recording:
    """A recorder that goes on."""

    def __init__(self, path: Path, url: str, given: str | None = None) -> None:
        self.path = path
        target = Target.of(url, {"X-Key": "secret-4711"})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kvswarm.telemetry.recorder", str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        asked = [source.to_message() for source in sources_of(target, given)]
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def until_ready(self) -> dict[str, str]:
        """The notes that it has before the load may start."""
        notes: dict[str, str] = {}
        for message in self.messages():
            if message == {"ready": True}:
                return notes
            notes[message["source"]] = message["note"]
        raise AssertionError("it never was ready")

    def end(self) -> dict[str, str]:
        """Have it end; its last notes, where there are some."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        notes = {m["source"]: m["note"] for m in self.messages()}
        assert self._process.wait() == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
        return {source: note for source, note in notes.items() if note is not None}

    def pages(self, source: str | None = None) -> list[Page]:
        """Pages so far, of one source or all."""
        pages = list(read_pages(self.path)) if self.path.exists() else []
        return [page for page in pages if source in {None, page.source}]


def ask(url: str) -> None:
    """One request, not streamed."""
    body = json.dumps({"model": "sim", "prompt": "a b c", "max_tokens": 5, "ignore_eos": True})
    request = urllib.request.Request(  # noqa: S310 - http
        f"{url}/v1/completions", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http
        response.read()


def test_the_first_page_is_from_before_and_the_last_from_after(tmp_path: Path) -> None:
    """What was counted between them is what was asked between them."""
    with start_simulator(("--exact", "5", "1")) as simulator:
        ask(simulator.url)
        recording = Recording(tmp_path / "server.pages", f"{simulator.url}/v1")
        assert recording.until_ready() == {}
        for _ in range(3):
            ask(simulator.url)
        assert recording.end() == {}
    pages = recording.pages()
    assert len(pages) >= 2
    assert {page.source for page in pages} == {simulator.url.removeprefix("http://")}
    moments = [moment for page in pages for moment in (page.asked_ns, page.time_ns)]
    assert moments == sorted(moments)
    tokens = [
        float(line.split()[-1])
        for page in (pages[0], pages[-1])
        for line in page.text.decode().splitlines()
        if line.startswith("vllm:generation_tokens_total{")
    ]
    assert tokens == [5.0, 20.0]
    assert b"secret-4711" not in recording.path.read_bytes()


@pytest.mark.parametrize("path", ["/nowhere/v1", "/metrics"])
def test_a_target_without_metrics_is_told_of_once_and_leaves_no_file(
    path: str, tmp_path: Path
) -> None:
    """Many servers have none; that is no failure of the run."""
    with endpoint() as server:
        recording = Recording(tmp_path / "server.pages", f"{server.url}{path}")
        note = f"no metrics of {server.address} ({server.url}{path.removesuffix('/v1')}/metrics): status 404"
        assert recording.until_ready() == {server.address: note}
        asked = len(server.seen)
        assert recording.end() == {server.address: note}
        assert len(server.seen) == asked == 2
    assert not recording.path.exists()


def test_trtllm_serve_is_asked_where_it_has_prometheus_text(tmp_path: Path) -> None:
    """Its /metrics is JSON, which is empty once it was read: it is not asked for again."""
    with endpoint() as server:
        server.paths["/metrics"] = (200, "application/json", '[{"iter": 1}]')
        server.paths["/prometheus/metrics"] = (200, METRICS, PAGE)
        recording = Recording(tmp_path / "server.pages", f"{server.url}/v1")
        assert recording.until_ready() == {}
        assert recording.end() == {}
        assert [page.text.decode() for page in recording.pages()] == [PAGE] * 2
        assert [path for path, _ in server.seen] == ["/metrics"] + ["/prometheus/metrics"] * 2


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ((500, METRICS, PAGE), "status 500"),
        ((404, "text/plain", "no"), "status 404"),
        ((200, "application/json", "{}"), "application/json, which is not Prometheus's text format"),
        ((200, "text/html", "<html>up 1</html>"), "text/html, which is not Prometheus's text format"),
        ((200, METRICS, ""), "text/plain, which is not Prometheus's text format"),
    ],
    ids=["500", "404", "json", "html", "empty"],
)  # fmt: skip
def test_what_is_no_page_of_metrics_is_named_and_others_go_on(
    answer: tuple[int, str, str], note: str, tmp_path: Path
) -> None:
    """A wrong URL among several must be found by its name."""
    with endpoint() as server, endpoint() as wrong:
        wrong.paths["/metrics"] = answer
        recording = Recording(
            tmp_path / "server.pages", f"{server.url}/v1", f"replica-b={wrong.url}/metrics"
        )
        whole = f"no metrics of replica-b ({wrong.url}/metrics): {note}"
        assert recording.until_ready() == {"replica-b": whole}
        assert recording.end() == {"replica-b": whole}
    assert len(recording.pages(server.address)) == 2
    assert recording.pages("replica-b") == []


def test_an_endpoint_that_nobody_serves_is_named(tmp_path: Path) -> None:
    """A port that is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with endpoint() as server:
        recording = Recording(
            tmp_path / "server.pages", f"{server.url}/v1", f"gpu=http://127.0.0.1:{port}/metrics"
        )
        assert "Connection refused" in recording.until_ready()["gpu"]
        assert "Connection refused" in recording.end()["gpu"]
    assert len(recording.pages(server.address)) == 2


def test_a_source_that_hangs_delays_no_other(tmp_path: Path) -> None:
    """The recorder asks each apart from the others, and waits for none longer than for a page."""
    with endpoint() as server, endpoint() as slow:
        slow.paths["/metrics"] = slow.hang
        recording = Recording(
            tmp_path / "server.pages", f"{server.url}/v1", f"slow={slow.url}/metrics"
        )
        server.until(lambda: len(recording.pages(server.address)) >= 3)
        assert recording.pages("slow") == []
        assert "no metrics of slow" in recording.until_ready()["slow"]
        assert "no metrics of slow" in recording.end()["slow"]
    assert len(recording.pages(server.address)) >= 4


def test_a_source_that_drips_is_given_up(tmp_path: Path) -> None:
    """Each byte comes in time, the page never does."""
    with endpoint() as server, endpoint() as dripping:

        def drip(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            while not dripping.released.wait(0.2):
                request.wfile.write(b"#\n")

        dripping.paths["/metrics"] = drip
        recording = Recording(
            tmp_path / "server.pages", f"{server.url}/v1", f"drip={dripping.url}/metrics"
        )
        recording.until_ready()
        dripping.until(lambda: len(dripping.seen) >= 2)  # it is asked again: so it was given up
        note = recording.end()["drip"]
    assert "no metrics of drip" in note
    assert "no whole page in 5 s" in note


def test_a_source_that_dies_keeps_its_pages_and_is_named(tmp_path: Path) -> None:
    """A replica may crash under the load."""
    with endpoint() as server:
        with endpoint() as dying:
            recording = Recording(
                tmp_path / "server.pages", f"{server.url}/v1", f"b={dying.url}/metrics"
            )
            assert recording.until_ready() == {}
            server.until(lambda: len(recording.pages("b")) >= 2)
        missed = len(recording.pages(server.address)) + 1
        server.until(lambda: len(recording.pages(server.address)) > missed)
        notes = recording.end()
    assert notes.keys() == {"b"}
    assert notes["b"].startswith(f"metrics of b ({dying.url}/metrics): ")
    assert "pages missing, last: " in notes["b"]
    assert len(recording.pages("b")) >= 2


def test_a_source_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    """A server that is still starting answers 503 at first."""
    with endpoint() as server:
        server.paths["/metrics"] = (503, "text/plain", "starting")
        recording = Recording(tmp_path / "server.pages", f"{server.url}/v1")
        assert "status 503" in recording.until_ready()[server.address]
        server.paths["/metrics"] = (200, METRICS, PAGE)
        server.until(lambda: len(recording.pages()) >= 1)
        note = recording.end()[server.address]
    assert "pages missing, last: status 503" in note


def test_a_page_is_stamped_when_it_was_asked_for_and_when_it_was_read(tmp_path: Path) -> None:
    """What it tells is of a moment between the two."""
    answered_ns: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        answered_ns.append(time.time_ns())
        request.send_response(200)
        request.end_headers()
        request.wfile.write(PAGE.encode())

    with endpoint() as server:
        server.paths["/metrics"] = answer
        recording = Recording(tmp_path / "server.pages", f"{server.url}/v1")
        recording.until_ready()
        recording.end()
    pages = recording.pages()
    assert len(pages) == len(answered_ns) >= 2
    for page, moment_ns in zip(pages, answered_ns, strict=True):
        assert page.asked_ns < moment_ns < page.time_ns


def test_the_headers_of_the_run_go_to_the_targets_origin_only(tmp_path: Path) -> None:
    """They hold its key; an exporter on another port is somebody else."""
    with endpoint() as server, endpoint() as other:
        server.paths["/more"] = (200, METRICS, PAGE)
        recording = Recording(
            tmp_path / "server.pages",
            f"{server.url}/v1",
            f"{server.url}/metrics,more={server.url}/more,other={other.url}/metrics",
        )
        assert recording.until_ready() == {}
        recording.end()
    assert {path for path, _ in server.seen} == {"/metrics", "/more"}
    assert all(headers["X-Key"] == "secret-4711" for _, headers in server.seen)
    assert other.seen
    assert all("secret-4711" not in str(headers) for _, headers in other.seen)


some_pages = st.builds(
    Page,
    source=st.text(max_size=9),
    asked_ns=st.integers(0, 2**62),
    time_ns=st.integers(0, 2**62),
    text=st.binary(max_size=200),
)


@given(pages=st.lists(some_pages, max_size=5), cut=st.integers(0, 500))
def test_pages_are_read_back_up_to_where_the_file_was_cut(
    tmp_path_factory: pytest.TempPathFactory, pages: list[Page], cut: int
) -> None:
    """`kill -9` may come in the middle of a write."""
    file = io.BytesIO()
    ends = []
    for page in pages:
        append_page(file, page)
        ends.append(file.tell())
    path = tmp_path_factory.mktemp("pages") / "server.pages"
    path.write_bytes(file.getvalue())
    assert list(read_pages(path)) == pages
    path.write_bytes(file.getvalue()[:cut])
    assert list(read_pages(path)) == [
        page for page, end in zip(pages, ends, strict=True) if end <= cut
    ]
