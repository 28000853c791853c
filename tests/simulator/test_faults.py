"""Every fault that fails a request, as plain HTTP shows it; others: test_content_faults.py."""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kvswarm.simulator.config import STREAM_FAULTS

sys.path.insert(0, str(Path(__file__).parent))
from simulating import CHAT, COMPLETIONS, FAST, Answer, request, simulating, text_of, total

EXACT = ("--exact", "1", "1")
MODES = {"exact": EXACT, "engine": FAST}
OF_A_STREAM = [
    "error_event", "malformed", "no_done", "no_finish", "empty", "content-type", "gzip",
]  # fmt: skip
OF_A_CONNECTION = ["cut", "stall"]
STATUSES = ["status-400", "status-429", "status-500", "status-503"]


def test_every_fault_is_tested_here() -> None:
    """A new one needs a test."""
    assert sorted(STREAM_FAULTS) == sorted([*OF_A_STREAM, *OF_A_CONNECTION, *STATUSES])


def read_events(answer: Answer) -> tuple[list[str], list[Any], bool]:
    """Events that are no JSON, those that are, and whether `[DONE]` was the last."""
    data = answer.data()
    done = data[-1:] == ["[DONE]"]
    broken, chunks = [], []
    for event in data[: len(data) - done]:
        try:
            chunks.append(json.loads(event))
        except json.JSONDecodeError:
            broken.append(event)
    return broken, chunks, done


@pytest.mark.parametrize("fault", OF_A_STREAM)
def test_a_stream_goes_wrong_as_told(fault: str) -> None:
    """Each is wrong in one thing, and right in all else; an answer in one body is spared."""
    with simulating(*FAST, "--fault", fault) as running:
        for path in (CHAT, COMPLETIONS):
            options = {"include_usage": True}
            answer = running.ask(path, stream=True, max_tokens=8, stream_options=options)
            check_stream(fault, answer)
        streamed = running.metrics()
        for path in (CHAT, COMPLETIONS):
            assert running.ask(path, max_tokens=8).json()["usage"]["completion_tokens"] == 8
        metrics = running.metrics()
    answered = fault not in {"error_event", "empty"}
    assert total(streamed, "vllm:request_success_total") == 2 * answered
    assert total(metrics, "vllm:request_success_total") == 2 * answered + 2
    assert total(metrics, "vllm:num_requests_running") == 0
    assert total(metrics, "vllm:kv_cache_usage_perc") == 0


def check_stream(fault: str, answer: Answer) -> None:
    """Assert all of what a stream of 8 tokens with usage is, or is not, with this fault."""
    broken, chunks, done = read_events(answer)
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    chunks = [chunk for chunk in chunks if "error" not in chunk]
    tokens = [chunk for chunk in chunks if text_of(chunk)]
    reasons = {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]}
    usages = [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk]
    assert answer.status == 200
    assert len(tokens) == {"error_event": 3, "empty": 0}.get(fault, 8)
    assert len(broken) == (fault == "malformed")
    assert done == (fault != "no_done")
    ends = {"no_finish": None, "error_event": None, "empty": "stop"}
    assert reasons - {None} == {ends.get(fault, "length")} - {None}
    assert usages == {"error_event": [], "empty": [0]}.get(fault, [8])
    kind = "text/html" if fault == "content-type" else "text/event-stream"
    assert answer.headers.get_content_type() == kind
    assert answer.headers["content-encoding"] == ("gzip" if fault == "gzip" else None)
    expected = [(500, "InternalServerError")] if fault == "error_event" else []
    assert [(error["code"], error["type"]) for error in errors] == expected


def test_a_malformed_event_comes_between_the_third_token_and_the_fourth() -> None:
    """A client that gives up there, or skips it, is told apart by its count."""
    with simulating(*EXACT, "--fault", "malformed") as running:
        data = running.ask(COMPLETIONS, stream=True, max_tokens=5).data()
    whole = [event.startswith('{"id"') for event in data]
    assert whole == [True] * 3 + [False] + [True] * 3 + [False]
    assert data[-1] == "[DONE]"


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_cut_comes_after_three_tokens(options: tuple[str, ...], tmp_path: Path) -> None:
    """Without an end of the coding; where there is no stream, without any answer."""
    log = tmp_path / "truth"
    with simulating(*options, "--fault", "cut", "--truth-log", str(log)) as running:
        connection, response = running.hold(max_tokens=8)
        assert response.status == 200
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            response.read()
        connection.close()
        with pytest.raises(ConnectionError):
            running.ask(max_tokens=8)
        running.wait_for(lambda metrics: total(metrics, "vllm:num_requests_running") == 0)
        metrics = running.metrics()
    assert total(metrics, "vllm:generation_tokens_total") == 6
    assert total(metrics, "vllm:request_success_total") == 0
    assert log.read_text() == ""


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_stall_is_silence_after_three_tokens_until_the_client_leaves(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """The connection stays open; the engine goes on with others."""
    log = tmp_path / "truth"
    with simulating(*options, "--fault", "stall", "--truth-log", str(log)) as running:
        connection, response = running.hold(max_tokens=8)
        lines = [response.readline() for _ in range(2 * 4)]
        assert [text_of(json.loads(line[6:])) != "" for line in lines[::2]] == [False, *[True] * 3]
        assert connection.sock is not None
        connection.sock.settimeout(0.2)  # 8 tokens would take some 10 ms
        with pytest.raises(TimeoutError):
            response.readline()
        assert running.value("vllm:kv_cache_usage_perc") == 0
        response.close()
        connection.close()
        running.wait_for(lambda metrics: total(metrics, "vllm:num_requests_running") == 0)
        assert running.value("vllm:generation_tokens_total") == 3
    assert log.read_text() == ""


@pytest.mark.parametrize("fault", STATUSES)
def test_a_status_refuses_whatever_was_asked(fault: str) -> None:
    """In the shape of vLLM's errors; a rate limit says when to come back."""
    status = int(fault.removeprefix("status-"))
    with simulating(*EXACT, "--fault", fault) as running:
        for answer in (running.ask(stream=True), running.ask(), running.ask(model="other")):
            assert answer.status == status
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] == status
            assert answer.headers["retry-after"] == ("2" if status == 429 else None)
        assert running.get("/health").status == running.get("/v1/models").status == 200
        assert running.value("vllm:generation_tokens_total") == 0


def test_the_share_of_requests_that_fail_is_drawn_by_the_seed() -> None:
    """So a run with faults can be repeated too."""

    def failed(*options: str) -> list[bool]:
        with simulating(*EXACT, "--fault", "status-503", *options) as running:
            connection = running.connect()
            told = []
            for _ in range(60):
                connection.request("POST", CHAT, request(CHAT, max_tokens=1))
                response = connection.getresponse()
                response.read()
                told.append(response.status == 503)
                assert response.status in {200, 503}
            connection.close()
        return told

    some = failed("--fault-share", "0.4", "--seed", "3")
    assert 10 < sum(some) < 40
    assert some == failed("--fault-share", "0.4", "--seed", "3")
    assert some != failed("--fault-share", "0.4", "--seed", "4")
    assert sum(failed("--fault-share", "0")) == 0


@pytest.mark.parametrize("fault", OF_A_STREAM)
def test_the_log_tells_of_faults_of_the_stream(fault: str, tmp_path: Path) -> None:
    """Where they were made: not in one body, and not before their place in the stream."""
    log = tmp_path / "truth"
    with simulating(*FAST, "--fault", fault, "--truth-log", str(log)) as running:
        running.ask(request_id="stream", stream=True, max_tokens=8)
        running.ask(request_id="body", max_tokens=8)
        running.ask(request_id="short", stream=True, max_tokens=2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = {line["id"]: line["fault"] for line in lines}
    late = fault in {"malformed", "error_event"}
    assert told == {"stream": fault, "body": None, "short": None if late else fault}
