"""The recorder as a process of its own, against a real simulator; and the file that it writes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.simulator.launch import start_simulator
from kvswarm.telemetry.pages import append_page, read_pages
from kvswarm.telemetry.recorder import metrics_path


def record(url: str, path: Path) -> subprocess.Popen[str]:
    """Start the recorder and tell it what to ask."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kvswarm.telemetry.recorder", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    asked = {"url": url, "headers": {"X-Key": "secret-4711"}, "ca_file": None, "insecure": False}
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return process


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
    path = tmp_path / "server.pages"
    with start_simulator(("--exact", "5", "1")) as simulator:
        ask(simulator.url)
        process = record(f"{simulator.url}/v1", path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            ask(simulator.url)
        process.communicate()
    pages = list(read_pages(path))
    assert process.returncode == 0
    assert len(pages) >= 2
    assert [time_ns for time_ns, _ in pages] == sorted(time_ns for time_ns, _ in pages)
    tokens = [
        float(line.split()[-1])
        for _, text in (pages[0], pages[-1])
        for line in text.decode().splitlines()
        if line.startswith("vllm:generation_tokens_total{")
    ]
    assert tokens == [5.0, 20.0]
    assert b"secret-4711" not in path.read_bytes()


@pytest.mark.parametrize("path", ["/nowhere/v1", "/metrics"])
def test_a_server_without_metrics_is_told_of_once_and_leaves_no_file(
    path: str, tmp_path: Path
) -> None:
    """Many servers have none; that is no failure of the run."""
    with start_simulator(("--exact", "5", "1")) as simulator:
        process = record(f"{simulator.url}{path}", tmp_path / "server.pages")
        out, _ = process.communicate()
    assert out == "no /metrics: status 404\n"
    assert process.returncode == 0
    assert not (tmp_path / "server.pages").exists()


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/v1", "/metrics"),
        ("/openai/v1", "/metrics"),
        ("", "/metrics"),
        ("/tenant/v1", "/tenant/metrics"),
        ("/api", "/api/metrics"),
    ],
)
def test_metrics_hang_where_the_api_does(base: str, path: str) -> None:
    """Beside its version, not below it."""
    assert metrics_path(base) == path


@given(
    pages=st.lists(st.tuples(st.integers(0, 2**62), st.binary(max_size=200)), max_size=5),
    cut=st.integers(0, 400),
)
def test_pages_are_read_back_up_to_where_the_file_was_cut(
    tmp_path_factory: pytest.TempPathFactory, pages: list[tuple[int, bytes]], cut: int
) -> None:
    """`kill -9` may come in the middle of a write."""
    file = io.BytesIO()
    ends = []
    for time_ns, text in pages:
        append_page(file, time_ns, text)
        ends.append(file.tell())
    path = tmp_path_factory.mktemp("pages") / "server.pages"
    path.write_bytes(file.getvalue())
    assert list(read_pages(path)) == pages
    path.write_bytes(file.getvalue()[:cut])
    assert list(read_pages(path)) == [
        page for page, end in zip(pages, ends, strict=True) if end <= cut
    ]
