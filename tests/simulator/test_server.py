"""`kvswarm simulate` as a client sees it: vLLM's routes, bodies, streams, errors and metrics."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from simulating import (
    CHAT,
    COMPLETIONS,
    FAST,
    Server,
    parse_metrics,
    request,
    simulating,
    text_of,
    total,
)  # fmt: skip

ROOT = Path(__file__).parents[2]
VLLM = (ROOT / "tests/fixtures/metrics_ngram.prom").read_text()
BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One small, quick simulator for the tests that need no special one."""
    with simulating(*FAST, "--max-model-len", "256", "--max-num-seqs", "8") as running:
        yield running


def test_a_chat_stream_is_a_role_tokens_a_finish_reason_and_done(server: Server) -> None:
    """The role-only chunk and the finish bear no token; nothing tells usage unasked."""
    answer = server.ask(stream=True, max_tokens=5)
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/event-stream")
    chunks = answer.chunks()
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [list(delta) for delta in deltas[1:]] == [["content"]] * 5 + [[]]
    assert all(delta["content"] for delta in deltas[1:-1])
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * 6 + ["length"]
    heads = {(c["id"], c["object"], c["model"]) for c in chunks}
    assert len(heads) == 1
    assert heads.pop()[1:] == ("chat.completion.chunk", "sim")
    assert not any("usage" in chunk or "token_ids" in chunk["choices"][0] for chunk in chunks)


def test_a_completions_stream_has_no_role_chunk(server: Server) -> None:
    """Its first event is its first token."""
    chunks = server.ask(COMPLETIONS, stream=True, max_tokens=5).chunks()
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert all(texts[:5])
    assert texts[5:] == [""]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


@BOTH
def test_usage_counts_words_in_and_tokens_out(path: str, server: Server) -> None:
    """Where it is asked for, it comes once, in a last chunk without choices."""
    answer = server.ask(
        path, prompt="six words,  in \n all here", stream=True, max_tokens=7,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *chunks, last = answer.chunks()
    assert len(answer.tokens()) == 7
    assert not any("usage" in chunk for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


@BOTH
def test_continuous_usage_counts_up_with_the_tokens(path: str, server: Server) -> None:
    """vLLM's continuous_usage_stats: the role chunk has seen no token yet."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = server.ask(path, stream=True, max_tokens=3, stream_options=options).chunks()
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [0] * (path == CHAT) + [1, 2, 3, 3, 3]


@BOTH
def test_token_ids_come_with_the_tokens_where_asked_for(path: str, server: Server) -> None:
    """Every token event is one token, and says so."""
    chunks = server.ask(path, stream=True, max_tokens=6, return_token_ids=True).chunks()
    with_ids = [chunk for chunk in chunks if "token_ids" in chunk["choices"][0]]
    assert [len(chunk["choices"][0]["token_ids"]) for chunk in with_ids] == [1] * 6
    assert all(text_of(chunk) for chunk in with_ids)


@BOTH
def test_without_stream_the_answer_is_one_body(path: str, server: Server) -> None:
    """With usage, and the text where the API has it."""
    body = server.ask(path, max_tokens=9).json()
    [choice] = body["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] if path == CHAT else choice["text"]
    assert body["object"] == ("chat.completion" if path == CHAT else "text_completion")
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 9)


@pytest.mark.parametrize(
    ("path", "values", "tokens"),
    [
        (CHAT, {"max_tokens": 1}, 1),
        (CHAT, {"max_tokens": 20}, 20),
        (CHAT, {"max_tokens": 20, "max_completion_tokens": 3}, 3),
        (CHAT, {"max_tokens": None}, 256 - 3),
        (COMPLETIONS, {"max_tokens": None}, 16),
        (COMPLETIONS, {"max_tokens": 256 - 3}, 256 - 3),
    ],
)
def test_a_stream_stops_at_its_limit(
    path: str, values: dict[str, Any], tokens: int, server: Server
) -> None:
    """As in vLLM, chat may fill the context by default, and completions give 16."""
    answer = server.ask(path, stream=True, **values)
    assert len(answer.tokens()) == tokens
    assert answer.chunks()[-1]["choices"][0]["finish_reason"] == "length"


def test_a_text_may_come_in_parts(server: Server) -> None:
    """OpenAI's list of content parts counts as its text."""
    parts = [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}]
    messages = [{"role": "system", "content": "zero"}, {"role": "user", "content": parts}]
    assert server.ask(messages=messages).json()["usage"]["prompt_tokens"] == 4


def test_the_seed_gives_the_texts_and_the_ends() -> None:
    """The n-th request of a server gets the same answer again, streamed or not."""

    def answers(seed: str, *, stream: bool, ignore_eos: bool = False) -> list[tuple[str, str]]:
        asked = {"stream": stream, "max_tokens": 120, "ignore_eos": ignore_eos}
        with simulating("--seed", seed, "--step-ms", "0.1", "--decode-us", "1") as running:
            told = [running.ask(COMPLETIONS, **asked) for _ in range(6)]
        if stream:
            ends = [answer.chunks()[-1]["choices"][0]["finish_reason"] for answer in told]
            return list(zip(["".join(answer.tokens()) for answer in told], ends, strict=True))
        choices = [answer.json()["choices"][0] for answer in told]
        return [(choice["text"], choice["finish_reason"]) for choice in choices]

    streamed = answers("7", stream=True)
    assert streamed == answers("7", stream=False)
    assert {reason for _, reason in streamed} == {"stop", "length"}
    whole = answers("7", stream=True, ignore_eos=True)
    assert {reason for _, reason in whole} == {"length"}
    assert all(long.startswith(text) for (text, _), (long, _) in zip(streamed, whole, strict=True))
    other = answers("8", stream=True, ignore_eos=True)
    assert {text for text, _ in other}.isdisjoint(text for text, _ in whole)


def test_models_health_and_version(server: Server) -> None:
    """What a client looks at before it starts."""
    models = server.get("/v1/models").json()
    assert models["object"] == "list"
    assert models["data"] == [
        {"id": "sim", "object": "model", "root": "sim", "parent": None, "max_model_len": 256}
    ]
    health = server.get("/health")
    assert (health.status, health.body) == (200, b"")
    assert server.get("/version").json()["version"].startswith("kvswarm-")


def test_a_connection_serves_one_request_after_another(server: Server) -> None:
    """Streams end without the connection."""
    connection = server.connect()
    for tokens in (1, 5, 2):
        connection.request("POST", CHAT, request(CHAT, stream=True, max_tokens=tokens))
        body = connection.getresponse().read().decode()
        assert body.count('"content":') == tokens + 1
    assert connection.sock is not None
    connection.close()


BAD: dict[str, tuple[str, dict[str, Any] | bytes, str]] = {
    "no JSON": (CHAT, b'{"model": ', "JSON decode error"),
    "no UTF-8": (CHAT, b'{"model": "\xff"}', "JSON decode error"),
    "no object": (CHAT, b"[]", "JSON object"),
    "no messages": (CHAT, b'{"model": "sim"}', "messages"),
    "empty messages": (CHAT, {"messages": []}, "messages"),
    "no message": (CHAT, {"messages": ["hello"]}, "messages"),
    "no prompt": (COMPLETIONS, {"prompt": 5}, "prompt"),
    "no tokens": (CHAT, {"max_tokens": 0}, "max_tokens"),
    "no tokens, new name": (CHAT, {"max_completion_tokens": 0}, "max_tokens"),
    "text for a number": (CHAT, {"max_tokens": "5"}, "max_tokens"),
    "true for a number": (CHAT, {"max_tokens": True}, "max_tokens"),
    "too long": (CHAT, {"prompt": "w " * 250, "max_tokens": 7}, "maximum context length is 256"),
    "n": (CHAT, {"n": 2}, "n=1"),
    "options alone": (CHAT, {"stream_options": {"include_usage": True}}, "stream=True"),
    "odd options": (CHAT, {"stream": True, "stream_options": "x"}, "stream_options"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_400_in_the_shape_of_vllm(name: str, server: Server) -> None:
    """An error is plain JSON, also where a stream was asked for, and says what was wrong."""
    path, values, said = BAD[name]
    body = values if isinstance(values, bytes) else request(path, **{"stream": True} | values)
    if name == "options alone":
        body = request(path, **values)
    answer = server.call("POST", path, body)
    assert answer.status == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert said in error["message"]
    assert server.ask().status == 200


def test_a_model_it_does_not_serve_is_404_and_named(server: Server) -> None:
    """Kinder than a 400: the fix is in the message."""
    answer = server.ask(model="other", stream=True)
    assert answer.status == 404
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("NotFoundError", 404)
    assert "`other`" in error["message"]
    assert server.ask(model=None).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/v1/nothing", 404, "Not Found"),
        ("GET", "/", 404, "Not Found"),
        ("POST", "/v1" + CHAT, 404, "Not Found"),
        ("POST", "/health", 405, "Method Not Allowed"),
        ("GET", CHAT, 405, "Method Not Allowed"),
    ],
)
def test_an_unknown_route_is_no_route(
    method: str, path: str, status: int, detail: str, server: Server
) -> None:
    """The web framework's own errors have a shape of their own, as vLLM's have."""
    answer = server.call(method, path)
    assert (answer.status, answer.json()) == (status, {"detail": detail})


def test_the_api_may_hang_below_a_path() -> None:
    """As KServe's Hugging Face runtime, whose health and metrics stay at the root."""
    with simulating(*FAST, "--base-path", "/openai") as server:
        assert server.get("/openai/v1/models").status == 200
        assert server.ask("/openai/v1/completions", prompt="a", max_tokens=2).status == 200
        assert server.get("/metrics").status == 200
        assert server.get("/v1/models").status == 404
        assert server.ask("/v1/completions", prompt="a", max_tokens=2).status == 404


def test_what_can_never_fit_the_cache_is_refused() -> None:
    """It would wait for ever."""
    with simulating(*FAST, "--num-kv-blocks", "4", "--block-size", "16") as running:
        assert "KV cache" in running.ask(max_tokens=62).json()["error"]["message"]
        assert len(running.ask(stream=True, max_tokens=61).tokens()) == 61


def test_metrics_have_the_names_types_and_labels_of_vllm(server: Server) -> None:
    """Against a page of a real vLLM 0.32; what scrapes that reads this."""
    text = server.get("/metrics").body.decode()
    kinds = dict(re.findall(r"# TYPE (\S+) (\S+)", text))
    assert len(kinds) == 16
    assert kinds.items() <= dict(re.findall(r"# TYPE (\S+) (\S+)", VLLM)).items()
    real = [line for line in VLLM.splitlines() if line.startswith("vllm:")]
    edges = {re.sub(r'model_name="[^"]*"', "", line.rpartition(" ")[0]) for line in real}
    keys = {
        name: {k for k, _ in labels} for (name, labels) in parse_metrics("\n".join(real) + "\n")
    }
    for name, labels in parse_metrics(text):
        assert {key for key, _ in labels} <= keys[name], name
        if name.endswith("_bucket"):
            edge = f'le="{dict(labels)["le"]}"'
            assert any(edge in known for known in edges if known.startswith(name)), (name, edge)


def test_metrics_count_what_was_served() -> None:
    """Streamed or not; failures and what was refused count nowhere."""
    with simulating(*FAST) as running:
        for stream, tokens in ((True, 5), (False, 8), (True, 1)):
            assert running.ask(stream=stream, max_tokens=tokens).status == 200
        assert running.ask(max_tokens=0).status == 400
        eos = [running.ask(ignore_eos=False, max_tokens=900).json() for _ in range(3)]
        metrics = running.metrics()
    generated = 14 + sum(body["usage"]["completion_tokens"] for body in eos)
    stopped = sum(body["choices"][0]["finish_reason"] == "stop" for body in eos)
    assert stopped > 0
    expected = {
        "prompt_tokens_total": 18, "generation_tokens_total": generated,
        "num_requests_running": 0, "num_requests_waiting": 0, "kv_cache_usage_perc": 0,
        "num_preemptions_total": 0, "prefix_cache_queries_total": 18, "prefix_cache_hits_total": 0,
        "time_to_first_token_seconds_count": 6, "e2e_request_latency_seconds_count": 6,
        "request_queue_time_seconds_count": 6, "inter_token_latency_seconds_count": generated - 6,
        "request_prefill_time_seconds_count": 6, "request_decode_time_seconds_count": 6,
        "cache_config_info": 1,
    }  # fmt: skip
    assert {name: total(metrics, f"vllm:{name}") for name in expected} == expected
    success = "vllm:request_success_total"
    assert total(metrics, success, finished_reason="stop") == stopped
    assert total(metrics, success, finished_reason="length") == 6 - stopped
    assert total(metrics, "vllm:cache_config_info", num_gpu_blocks="8192", block_size="16") == 1
    first_s, whole_s, gaps_s, queue_s, prefill_s, decode_s = (
        total(metrics, f"vllm:{name}_seconds_sum")
        for name in (
            "time_to_first_token", "e2e_request_latency", "inter_token_latency",
            "request_queue_time", "request_prefill_time", "request_decode_time",
        )
    )  # fmt: skip
    assert first_s >= 6 * (0.0005 - 0.0002)
    assert first_s + gaps_s == pytest.approx(whole_s, rel=1e-6)
    assert queue_s + prefill_s == pytest.approx(first_s, rel=1e-6)
    assert decode_s == pytest.approx(gaps_s, rel=1e-6)


def test_the_buckets_of_a_histogram_add_up(server: Server) -> None:
    """Cumulative, and the last holds all."""
    server.ask()
    metrics = server.metrics()
    for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency"):
        full = f"vllm:{name}_seconds"
        buckets = sorted(
            (float(dict(labels)["le"]), value)
            for (found, labels), value in metrics.items()
            if found == f"{full}_bucket"
        )
        counts = [count for _, count in buckets]
        assert counts == sorted(counts)
        assert buckets[-1] == (float("inf"), total(metrics, f"{full}_count"))
        assert counts[-1] > 0


def test_a_prompt_that_was_seen_is_cached_and_says_so() -> None:
    """In the usage of the request, and in the server's counters."""
    prompt = " ".join(f"word{i}" for i in range(40))
    for options, cached in (((), 32), (("--no-prefix-caching",), 0)):
        with simulating(*FAST, "--block-size", "16", *options) as running:
            answers = [running.ask(prompt=prompt).json()["usage"] for _ in range(2)]
            metrics = running.metrics()
        told = [usage["prompt_tokens_details"]["cached_tokens"] for usage in answers]
        assert told == [0, cached]
        caching = {"enable_prefix_caching": str(not options), "cache_dtype": "auto"}
        assert total(metrics, "vllm:cache_config_info", **caching) == 1
        assert total(metrics, "vllm:prefix_cache_queries_total") == 80
        assert total(metrics, "vllm:prefix_cache_hits_total") == cached


def test_gauges_tell_who_runs_and_waits_and_a_client_that_leaves_frees_its_place() -> None:
    """Five streams that would last for minutes, in a batch of two."""
    with simulating("--step-ms", "20", "--max-num-seqs", "2") as running:
        held = [running.hold(max_tokens=8000) for _ in range(5)]

        def load(metrics: Any) -> tuple[float, float, bool]:
            names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
            runs, waits, used = (total(metrics, f"vllm:{name}") for name in names)
            return runs, waits, used > 0

        running.wait_for(lambda metrics: load(metrics) == (2, 3, True))
        for connection, response in held:
            response.close()
            connection.close()
        running.wait_for(lambda metrics: load(metrics) == (0, 0, False))
        assert running.value("vllm:request_success_total") == 0


def test_a_crowd_that_overfills_the_cache_is_preempted_and_served_whole() -> None:
    """12 of 3 + 60 tokens want 48 blocks of 16; there are 10."""
    with simulating(*FAST, "--num-kv-blocks", "10") as running:
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(running.ask, stream=True, max_tokens=60) for _ in range(12)]
            counts = [len(answer.result().tokens()) for answer in asked]
        metrics = running.metrics()
    assert counts == [60] * 12
    assert total(metrics, "vllm:num_preemptions_total") > 0
    assert total(metrics, "vllm:generation_tokens_total") == 720
    assert total(metrics, "vllm:kv_cache_usage_perc") == 0
