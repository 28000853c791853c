"""`kvswarm simulate --flavor`: TGI and trtllm-serve as a client, and as `kvswarm run`, sees them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.simulator.config import FLAVORS, parse_arguments

sys.path.insert(0, str(Path(__file__).parent))
from simulating import COMPLETIONS, FAST, Server, simulating

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from running import Run, forgiving, run, simulator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
USAGE = {"stream_options": {"include_usage": True}}
METRICS = {"vllm": "/metrics", "tgi": "/metrics", "trtllm": "/prometheus/metrics"}
OTHERS = ("tgi", "trtllm")
ROLE = {"role": "assistant"}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """One quick simulator of each flavor, for the tests that need no special one."""
    with (
        simulating(*FAST) as vllm,
        simulating(*FAST, "--flavor", "tgi") as tgi,
        simulating(*FAST, "--flavor", "trtllm") as trtllm,
    ):
        yield {"vllm": vllm, "tgi": tgi, "trtllm": trtllm}


def choices(chunks: list[Any]) -> list[dict[str, Any]]:
    """The choice of each chunk that has one."""
    return [choice for chunk in chunks for choice in chunk["choices"]]


def families(text: str) -> dict[str, str]:
    """Types of metrics by name, by Prometheus's own parser."""
    return {family.name: family.type for family in text_string_to_metric_families(text)}


def values(server: Server, path: str) -> dict[str, float]:
    """Samples by name; several of one name are added."""
    told: dict[str, float] = {}
    for line in server.get(path).body.decode().splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            told[name] = told.get(name, 0.0) + float(value)
    return told


def test_tgi_has_the_role_in_every_chunk_and_the_end_in_the_last(
    servers: dict[str, Server],
) -> None:
    """A client that takes the first chunk for no token would measure a TTFT of the second."""
    chunks = servers["tgi"].ask(stream=True, max_tokens=4, **USAGE).chunks()
    told = choices(chunks)
    assert [list(choice["delta"]) for choice in told] == [["role", "content"]] * 4
    assert all(choice["delta"]["role"] == "assistant" for choice in told)
    assert all(choice["delta"]["content"] for choice in told)
    assert [choice["finish_reason"] for choice in told] == [None, None, None, "length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
    }  # fmt: skip
    assert {chunk["id"] for chunk in chunks} == {""}
    assert "usage" not in servers["tgi"].ask(stream=True).chunks()[-1]


def test_trtllm_has_the_role_alone_and_the_end_with_the_last_token(
    servers: dict[str, Server],
) -> None:
    """Nulls are left out, and the text of reasoning is there without any."""
    answer = servers["trtllm"].ask(stream=True, max_tokens=3, **USAGE)
    assert answer.data()[0].endswith("} ")
    chunks = answer.chunks()
    first, *told = choices(chunks)
    assert first == {"index": 0, "delta": ROLE}
    assert [list(choice["delta"]) for choice in told] == [["content", "reasoning_content"]] * 3
    assert all(choice["delta"]["content"] for choice in told)
    assert [choice.get("finish_reason", "none") for choice in told] == ["none", "none", "length"]
    assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert not any("usage" in chunk for chunk in chunks[:-1])


@pytest.mark.parametrize("flavor", OTHERS)
def test_an_answer_that_ends_by_itself_has_a_chunk_without_a_token(
    servers: dict[str, Server], flavor: str
) -> None:
    """It stands for the token that ends the sequence, which has no text."""
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 500}
    told = choices(servers[flavor].ask(stream=True, **asked).chunks())
    assert told[-1]["finish_reason"] == "stop"
    assert told[-1]["delta"]["content"] == ""
    assert not any(choice.get("finish_reason") for choice in told[:-1])
    json.loads("".join(choice["delta"].get("content", "") for choice in told))


def test_completions_of_tgi_tell_its_own_reasons_and_the_usage_unasked(
    servers: dict[str, Server],
) -> None:
    """An empty reason is none: a client that takes it for one would call every stream done."""
    chunks = servers["tgi"].ask(COMPLETIONS, stream=True, max_tokens=3).chunks()
    assert [choice["finish_reason"] for choice in choices(chunks)] == ["", "", "length"]
    assert all(choice["text"] for choice in choices(chunks))
    assert [("usage" in chunk) for chunk in chunks] == [False, False, True]
    asked = {"response_format": {"type": "json_object"}, "max_tokens": 500}
    ended = choices(servers["tgi"].ask(COMPLETIONS, stream=True, **asked).chunks())
    assert (ended[-1]["finish_reason"], ended[-1]["text"]) == ("eos_token", "")
    whole = servers["tgi"].ask(COMPLETIONS, **asked).json()
    assert whole["choices"][0]["finish_reason"] == "eos_token"


def test_completions_of_trtllm_have_their_nulls(servers: dict[str, Server]) -> None:
    """Only its chat leaves them out."""
    chunks = servers["trtllm"].ask(COMPLETIONS, stream=True, max_tokens=2, **USAGE).chunks()
    told = choices(chunks)
    assert [choice["finish_reason"] for choice in told] == [None, "length"]
    assert all(choice["text"] and choice["stop_reason"] is None for choice in told)
    assert [chunk["usage"] is None for chunk in chunks] == [True, True, False]


def test_all_flavors_say_the_same(tmp_path: Path) -> None:
    """What differs between two backends then lies in the wire and in the client."""
    told = {}
    for flavor in FLAVORS:
        truth = tmp_path / flavor
        options = ("--exact", "1", "0.1", "--flavor", flavor, "--truth-log", str(truth))
        with simulating(*options) as running:
            tokens = running.ask(stream=True, max_tokens=30).tokens()
            body = running.ask(max_tokens=30).json()
            text = running.ask(COMPLETIONS, max_tokens=30).json()["choices"][0]["text"]
        line = json.loads(truth.read_text().splitlines()[0])
        message = body["choices"][0]["message"]
        told[flavor] = (tokens, message, text, line["tokens"], line["events"], line["finish"])
        assert (line["tokens"], line["finish"]) == (len(tokens), "length")
    assert told["tgi"] == told["trtllm"] == told["vllm"]


def test_ignore_eos_is_heeded_by_trtllm_and_unknown_to_tgi(servers: dict[str, Server]) -> None:
    """A load test of TGI cannot count on the lengths that it asks for."""
    asked = {"stream": True, "max_tokens": 4000, "ignore_eos": True}
    ends = {
        flavor: choices(servers[flavor].ask(**asked).chunks())[-1]["finish_reason"]
        for flavor in OTHERS
    }
    assert ends == {"tgi": "stop", "trtllm": "length"}


def test_what_is_vllms_own_is_ignored_by_tgi_and_refused_by_trtllm(
    servers: dict[str, Server],
) -> None:
    """Unconstrained text with status 200 is what a check of outputs is there to find."""
    asked = {"structured_outputs": {"choice": ["red", "blue"]}, "max_tokens": 6}
    assert servers["vllm"].ask(**asked).json()["choices"][0]["message"]["content"] in {
        "red", "blue",
    }  # fmt: skip
    tgi = servers["tgi"].ask(**asked)
    assert tgi.status == 200
    assert tgi.json()["choices"][0]["finish_reason"] == "length"
    trtllm = servers["trtllm"].ask(**asked)
    assert trtllm.status == 400
    assert trtllm.json() == {"error": "structured_outputs: Extra inputs are not permitted"}


def test_each_refuses_in_its_own_words(servers: dict[str, Server]) -> None:
    """A client must find the message in all of them."""
    told = {flavor: server.ask(max_tokens=0) for flavor, server in servers.items()}
    message = "max_tokens must be at least 1, got 0."
    assert {flavor: one.status for flavor, one in told.items()} == {
        "vllm": 400, "tgi": 422, "trtllm": 400,
    }  # fmt: skip
    assert told["vllm"].json()["error"]["message"] == message
    assert told["tgi"].json() == {
        "error": f"Input validation error: {message}", "error_type": "validation",
    }  # fmt: skip
    assert told["trtllm"].json() == {
        "object": "error", "message": message, "type": "BadRequestError", "param": None,
        "code": 400,
    }  # fmt: skip


@pytest.mark.parametrize("flavor", OTHERS)
def test_faults_are_made_of_every_flavor(flavor: str) -> None:
    """The end is where they differ most, and so is what has none."""
    named = ("--flavor", flavor, "--fault")
    with simulating(*FAST, *named, "no_finish") as running:
        chunks = running.ask(stream=True, max_tokens=4).chunks()
        assert len([choice for choice in choices(chunks) if choice["delta"].get("content")]) == 4
        assert not any(choice.get("finish_reason") for choice in choices(chunks))
        texts = choices(running.ask(COMPLETIONS, stream=True, max_tokens=4).chunks())
        assert not any(choice["finish_reason"] for choice in texts)
    with simulating(*FAST, *named, "error_event") as running:
        *_, event, done = running.ask(stream=True, max_tokens=9).data()
        assert done == "[DONE]"
        assert isinstance(json.loads(event)["error"], str if flavor == "tgi" else dict)
    with simulating(*FAST, *named, "status-429") as running:
        refused = running.ask()
        assert refused.status == 429
        assert refused.headers["retry-after"] == "2"
        kind = refused.json()["error_type" if flavor == "tgi" else "type"]
        assert kind == ("overloaded" if flavor == "tgi" else "SimulatedError")
        if flavor == "tgi":
            page = running.get("/metrics").body.decode()
            assert 'tgi_request_failure{err="overloaded"} 1' in page.splitlines()


def test_reasoning_of_trtllm_has_its_own_key() -> None:
    """Beside an empty content, and later an empty one of itself."""
    with simulating(*FAST, "--flavor", "trtllm", "--reasoning-tokens", "2") as running:
        chunks = running.ask(stream=True, max_tokens=4, **USAGE).chunks()
        message = running.ask(max_tokens=4).json()["choices"][0]["message"]
    deltas = [choice["delta"] for choice in choices(chunks)[1:]]
    assert [(bool(d["content"]), bool(d["reasoning_content"])) for d in deltas] == [
        (False, True), (False, True), (True, False), (True, False),
    ]  # fmt: skip
    assert message["reasoning_content"]
    assert "completion_tokens_details" not in chunks[-1]["usage"]


@pytest.mark.parametrize("flavor", OTHERS)
def test_a_tool_call_is_told_in_every_flavor(servers: dict[str, Server], flavor: str) -> None:
    """Its pieces come by index; TGI's have the role, too."""
    tool = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
    asked = {"prompt": "ping", "tools": [tool], "max_tokens": 60}
    told = choices(servers[flavor].ask(stream=True, **asked).chunks())
    calls = [call for choice in told for call in choice["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "ping"
    assert told[-1]["finish_reason"] == "tool_calls"
    if flavor == "tgi":
        assert all(choice["delta"]["role"] == "assistant" for choice in told)


def test_pages_are_those_of_the_server(servers: dict[str, Server]) -> None:
    """A page that the real one lacks would hide that a tool depends on it."""
    there = {
        path: {flavor for flavor, server in servers.items() if server.get(path).status == 200}
        for path in ("/health", "/v1/models", "/metrics", "/version", "/info")
    }
    everyone = {"vllm", "tgi", "trtllm"}
    assert there == {
        "/health": everyone, "/v1/models": everyone, "/metrics": everyone,
        "/version": {"vllm", "trtllm"}, "/info": {"tgi"},
    }  # fmt: skip
    assert servers["tgi"].get("/prometheus/metrics").status == 404
    info = servers["tgi"].get("/info").json()
    assert (info["model_id"], info["max_total_tokens"]) == ("sim", 8192)
    assert info["version"].startswith("kvswarm-")
    for flavor in OTHERS:
        (card,) = servers[flavor].get("/v1/models").json()["data"]
        assert card["id"] == "sim"
        assert "max_model_len" not in card


@pytest.mark.parametrize("flavor", OTHERS)
def test_metrics_have_names_and_types_of_the_real_page(flavor: str) -> None:
    """Each is one that the real server has, and on the page about the simulator."""
    real = families((ROOT / f"tests/fixtures/metrics_{flavor}.prom").read_text())
    with simulating(*FAST, "--flavor", flavor, "--speculative-tokens", "2") as running:
        running.ask()
        page = running.get(METRICS[flavor])
    told = families(page.body.decode())
    assert page.headers["content-type"].startswith("text/plain")
    drafts = {name for name in told if "spec_decode" in name}
    extra = {"trtllm_request_prefill_time_seconds", "trtllm_request_decode_time_seconds"}
    assert told.keys() - drafts - extra <= real.keys()
    assert {name: real[name] for name in told.keys() & real.keys()} == {
        name: kind for name, kind in told.items() if name in real
    }
    table = PAGE.partition("## Metrics")[2]
    documented = {
        name.removesuffix("_total") for name in re.findall(rf"`({flavor}_[a-z0-9_]+)`", table)
    }
    assert documented == told.keys()


def test_metrics_of_tgi_count_what_was_done() -> None:
    """The mean time per token has the prefill in it, and there is no TTFT to take it out with."""
    with simulating(*FAST, "--flavor", "tgi") as running:
        for _ in range(2):
            running.ask(stream=True, max_tokens=1, prompt="one two three four")
        running.ask(max_tokens=0)
        told = values(running, "/metrics")
        edges = re.findall(
            r'tgi_request_input_length_bucket{le="([^"]+)"}',
            running.get("/metrics").body.decode(),
        )
    assert told["tgi_request_count"] == 3
    assert told["tgi_request_success"] == 2
    assert told["tgi_request_failure"] == 1
    assert told["tgi_request_generated_tokens_sum"] == 2
    assert told["tgi_request_input_length_sum"] == 8
    inference_s = told["tgi_request_inference_duration_sum"]
    assert told["tgi_request_mean_time_per_token_duration_sum"] == pytest.approx(inference_s)
    queued_s = told["tgi_request_queue_duration_sum"]
    assert told["tgi_request_duration_sum"] == pytest.approx(queued_s + inference_s)
    assert inference_s > 0
    assert (edges[0], edges[-2:], len(edges)) == ("81.92", ["8192.0", "+Inf"], 101)


def test_metrics_of_trtllm_count_what_was_done(tmp_path: Path) -> None:
    """Time per output token is of a request, the mean: not of a token."""
    truth = tmp_path / "truth"
    options = ("--flavor", "trtllm", "--block-size", "4", "--truth-log", str(truth))
    with simulating(*FAST, *options) as running:
        for _ in range(2):
            running.ask(stream=True, max_tokens=5, prompt="one two three four five six")
        running.ask(stream=True, max_tokens=1, prompt="seven")
        told = values(running, "/prometheus/metrics")
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    tpot_s = sum((line["last_token_ns"] - line["first_token_ns"]) / 4e9 for line in lines)
    assert told["trtllm_time_per_output_token_seconds_count"] == 2
    assert told["trtllm_time_per_output_token_seconds_sum"] == pytest.approx(tpot_s)
    assert told["trtllm_generation_tokens_total"] == 11
    assert told["trtllm_prompt_tokens_total"] == 13
    assert told["trtllm_prompt_cached_tokens_total"] == 4
    assert told["trtllm_kv_cache_hit_rate"] == pytest.approx(4 / 13)
    assert told["trtllm_kv_cache_tokens_per_block"] == 4
    assert told["trtllm_request_success_total"] == 3


def test_reading_the_iterations_of_trtllm_empties_them() -> None:
    """Who polls /metrics there takes it from everyone else."""
    with simulating(*FAST, "--flavor", "trtllm", "--num-kv-blocks", "100") as running:
        assert running.get("/metrics").json() == []
        running.ask(stream=True, max_tokens=5)
        told = running.get("/metrics").json()
        assert running.get("/metrics").json() == []
        running.ask(stream=True, max_tokens=1200)
        assert len(running.get("/metrics").json()) == 1000
    assert [one["iter"] for one in told] == [1, 2, 3, 4, 5]
    assert all(one["iterLatencyMS"] == pytest.approx(0.5, abs=0.01) for one in told)
    assert told[0]["kvCacheStats"] == {
        "maxNumBlocks": 100, "usedNumBlocks": 1, "freeNumBlocks": 99, "tokensPerBlock": 16,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("--flavor sglang", "--flavor"),
        ("--flavor tgi --reasoning-tokens 3", "--reasoning-tokens"),
        ("--flavor tgi --lora-modules a", "--lora-modules"),
        ("--flavor trtllm --lora-modules a", "--lora-modules"),
    ],
)
def test_what_a_flavor_lacks_is_a_bad_option(
    argv: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Better refused than something that no such server does."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments(argv.split())
    assert ended.value.code == 2
    assert f"argument {named}: " in capsys.readouterr().err.splitlines()[-1]


TOKENS = 24
Measured = tuple[str, Run, dict[int, dict[str, Any]]]


@pytest.fixture(scope="module", params=FLAVORS)
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A run against each flavor, and what that server wrote down, by request."""
    folder = tmp_path_factory.mktemp("flavor")
    truth = folder / "truth.jsonl"
    options = ("--flavor", request.param, "--step-ms", "5", "--truth-log", str(truth))
    with simulator(*options) as url:
        profile = forgiving(folder, f"max_tokens: {TOKENS}")
        done = run(folder / "run", "--profile", profile, "--url", url)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return request.param, done.run, {int(line["id"].rpartition("-")[2]): line for line in lines}


def test_a_run_measures_every_flavor_alike(measured: Measured) -> None:
    """Tokens, events and times are those that the server wrote down, whatever its chunks are."""
    _, done, truth = measured
    assert len(done.rows) == len(truth) == 20
    for row in done.rows:
        line = truth[row["index"]]
        assert row["error_kind"] is None
        assert row["finish_reason"] == line["finish"]
        assert row["events"] == row["completion_tokens"] == line["tokens"] == line["events"]
        assert len(row["itl_us"]) == line["events"] - 1
        assert row["first_token_ns"] == pytest.approx(line["first_token_ns"], abs=50e6)
        assert row["last_token_ns"] == pytest.approx(line["last_token_ns"], abs=50e6)
    assert done.summary["verdict"]["status"] != "invalid"


def test_a_run_tells_the_flavor_by_its_metrics(measured: Measured) -> None:
    """Each kind has its own figures; what a server does not tell is missing, and is not 0."""
    flavor, done, truth = measured
    server = done.summary["server"]
    assert server["kind"] == flavor
    assert sum(server["requests"].values()) == 20
    assert server["generation_tokens"] == sum(line["tokens"] for line in truth.values())
    told = {name: server[name] is not None for name in (
        "queue_time_ms", "e2e_ms", "ttft_ms", "itl_ms", "tpot_ms", "prefill_time_ms",
        "kv_usage_share", "prefix_cache", "kv_cache",
    )}  # fmt: skip
    missing = {
        "vllm": {"tpot_ms"},
        "tgi": {"ttft_ms", "itl_ms", "prefill_time_ms", "kv_usage_share", "prefix_cache",
                "kv_cache"},
        "trtllm": {"itl_ms"},
    }[flavor]  # fmt: skip
    assert {name for name, there in told.items() if not there} == missing
    lines = server["reconciliation"]
    for name in ("requests", "output_tokens"):
        assert lines[name]["explained"] == "They agree."
    assert lines["prompt_tokens"]["difference"] == 0
