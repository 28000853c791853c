"""`--exact` and `--truth-log`: the schedule, and a log that tells what was done of it.

The schedule's lower bounds are exact; there is no upper bound but patience, as a busy machine may
be late at any time. How late it is under load is the affair of benchmarks/.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulating import CHAT, COMPLETIONS, PATIENCE_S, request, simulating, text_of, total

MS = 1_000_000
EARLY_NS = 1 * MS
"""It plays what is due within 0.2 ms; the rest is for a clock that is being slewed."""


def truth(path: Path) -> list[dict[str, Any]]:
    """The lines of a truth log."""
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_tokens_come_on_the_schedule_and_the_log_tells_when(tmp_path: Path) -> None:
    """Read, first and last token lie in this order, between our sending and our end of reading."""
    log = tmp_path / "truth"
    bounds_ns = []
    with simulating("--exact", "40", "5", "--truth-log", str(log)) as running:
        for path, stream in product((CHAT, COMPLETIONS), (True, False)):
            before_ns = time.time_ns()
            answer = running.ask(path, f"{path} {stream}", stream=stream, max_tokens=9)
            bounds_ns.append((before_ns, time.time_ns()))
            assert not stream or len(answer.tokens()) == 9
    lines = truth(log)
    assert [line["id"] for line in lines] == [
        f"{path} {stream}" for path, stream in product((CHAT, COMPLETIONS), (True, False))
    ]
    for line, (before_ns, after_ns) in zip(lines, bounds_ns, strict=True):
        assert list(line) == [
            "id",
            "read_ns",
            "first_token_ns",
            "last_token_ns",
            "events",
            "tokens",
            "finish",
            "kind",
            "fault",
            "itl_us",
        ]
        assert (line["tokens"], line["kind"], line["fault"]) == (9, "text", None)
        assert (line["events"], line["finish"]) == (9, "length")
        read_ns, first_ns, last_ns = line["read_ns"], line["first_token_ns"], line["last_token_ns"]
        assert before_ns <= read_ns < first_ns < last_ns <= after_ns
        assert first_ns - read_ns >= 40 * MS - EARLY_NS
        assert last_ns - read_ns >= (40 + 8 * 5) * MS - EARLY_NS
        assert len(line["itl_us"]) == 8
        assert sum(line["itl_us"]) == pytest.approx((last_ns - first_ns) / 1000, abs=4)


def test_every_stream_of_a_crowd_keeps_its_own_schedule(tmp_path: Path) -> None:
    """30 at once are each read, played and logged for themselves."""
    log = tmp_path / "truth"
    with simulating("--exact", "30", "3", "--truth-log", str(log)) as running:
        answers = running.ask_all(30, stream=True, max_tokens=11)
        assert [len(answer.tokens()) for answer in answers] == [11] * 30
        metrics = running.metrics()
    lines = {line["id"]: line for line in truth(log)}
    assert set(lines) == {str(i) for i in range(30)}
    for line in lines.values():
        assert line["first_token_ns"] - line["read_ns"] >= 30 * MS - EARLY_NS
        assert line["last_token_ns"] - line["read_ns"] >= (30 + 10 * 3) * MS - EARLY_NS
    logged_s = sum(line["first_token_ns"] - line["read_ns"] for line in lines.values()) / 1e9
    counted_s = total(metrics, "vllm:time_to_first_token_seconds_sum")
    assert counted_s == pytest.approx(logged_s, abs=1e-6)


def test_the_log_has_all_that_was_answered_before_the_end(tmp_path: Path) -> None:
    """It is written in portions: the last one must not be lost when the process is stopped."""
    log = tmp_path / "truth"
    with simulating("--exact", "1", "1", "--truth-log", str(log)) as running:
        for number in range(20):
            running.ask(request_id=str(number), max_tokens=1 + number % 2)
        assert running.ask(max_tokens=0).status == 400
        running.ask()
    lines = truth(log)
    assert [line["id"] for line in lines] == [*map(str, range(20)), None]
    assert [line["events"] for line in lines] == [1, 2] * 10 + [4]
    assert all(
        (line["first_token_ns"] == line["last_token_ns"]) == (line["events"] == 1) for line in lines
    )


def test_the_engine_logs_the_truth_too(tmp_path: Path) -> None:
    """A step and its decode lie between tokens, and a stop is told from a length."""
    log = tmp_path / "truth"
    with simulating("--step-ms", "4", "--truth-log", str(log)) as running:
        answer = running.ask(request_id="a", stream=True, max_tokens=6)
        assert len(answer.tokens()) == 6
    [line] = truth(log)
    assert (line["id"], line["events"], line["finish"]) == ("a", 6, "length")
    # Steps are of the clock: a token that a busy machine wrote late makes no later one late.
    assert line["last_token_ns"] - line["read_ns"] >= 6 * 4 * MS - EARLY_NS
    assert line["first_token_ns"] - line["read_ns"] >= 4 * MS - EARLY_NS


def test_the_head_of_a_stream_comes_before_its_first_token() -> None:
    """As with vLLM: who takes the first byte for the first token measures nothing."""
    with simulating("--exact", "600000", "1") as running:
        held = [running.hold(max_tokens=2) for _ in range(3)]
        assert [response.status for _, response in held] == [200] * 3
        # A token would come in ten minutes; until then they are running, and nothing is counted.
        running.wait_for(lambda metrics: total(metrics, "vllm:num_requests_running") == 3)
        assert running.value("vllm:generation_tokens_total") == 0
        for connection, response in held:
            response.close()
            connection.close()
        running.wait_for(lambda metrics: total(metrics, "vllm:num_requests_running") == 0)


def test_a_client_that_leaves_ends_its_stream(tmp_path: Path) -> None:
    """It was not answered, so it is no success, and the log has no line."""
    log = tmp_path / "truth"
    with simulating("--exact", "1", "1", "--truth-log", str(log)) as running:
        connection, response = running.hold(max_tokens=8000)
        assert response.readline()
        response.close()
        connection.close()
        running.wait_for(lambda metrics: total(metrics, "vllm:num_requests_running") == 0)
        assert 1 <= running.value("vllm:generation_tokens_total") < 8000
        assert running.value("vllm:request_success_total") == 0
    assert truth(log) == []


def test_exact_times_know_no_end_but_the_limit() -> None:
    """Of 8 requests of 400 tokens the engine would stop most early."""
    with simulating("--exact", "1", "0.001") as running:
        answers = running.ask_all(8, stream=True, max_tokens=400, ignore_eos=False)
        metrics = running.metrics()
    assert [len(answer.tokens()) for answer in answers] == [400] * 8
    expected = {
        "generation_tokens_total": 3200, "prompt_tokens_total": 24, "request_success_total": 8,
        "time_to_first_token_seconds_count": 8, "inter_token_latency_seconds_count": 3200 - 8,
        "e2e_request_latency_seconds_count": 8, "num_requests_running": 0,
        "num_requests_waiting": 0,
    }  # fmt: skip
    assert {name: total(metrics, f"vllm:{name}") for name in expected} == expected


def test_each_event_is_a_chunk_of_its_own() -> None:
    """The transfer coding as it is on the wire: no event is bundled with another or cut."""
    body = request(CHAT, stream=True, max_tokens=6)
    ask = b"POST %b HTTP/1.1\r\nhost: sim\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    with (
        simulating("--exact", "1", "1") as running,
        socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as sock,
        sock.makefile("rb") as wire,
    ):
        sock.sendall(ask % (CHAT.encode(), len(body), body))
        head, _, rest = wire.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head.lower()
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        assert rest[int(size, 16) :][:2] == b"\r\n"
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    assert chunks.pop() == b"data: [DONE]\n\n"
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    events = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert [bool(text_of(event)) for event in events] == [False, *[True] * 6, False]
