"""The summary's `server`: figures of each kind of server, in the format that it really has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvswarm.analysis.finish import finish
from kvswarm.analysis.server_lines import server_lines
from kvswarm.errors import RunDirError
from kvswarm.rundir import MetricsInfo, RunInfo, TargetInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, run_info
from serverpages import OWN, fixture, run_with_pages, with_values, without

ROWS = [good(i, at_ms=i * 500.0) for i in range(20)]
"""Of 9.7 s; 16 prompt tokens and 4 output tokens each, TTFT 100 ms, ITL 10 ms, E2E 131 ms."""
TOKENS = 20 * 4
BEFORE_S, AFTER_S = -1.0, 10.0
VLLM = fixture("ngram")
E0 = '{engine="0",model_name="tiny"}'


def vllm(name: str, labels: str = E0) -> str:
    """A sample of the vLLM page."""
    return f"vllm:{name}{labels}"


def success(reason: str) -> str:
    """The counter of requests that ended so."""
    return vllm(
        "request_success_total", f'{{engine="0",finished_reason="{reason}",model_name="tiny"}}'
    )


def position(place: int) -> str:
    """The counter of tokens accepted there."""
    return vllm(
        "spec_decode_num_accepted_tokens_per_pos_total",
        f'{{engine="0",model_name="tiny",position="{place}"}}',
    )


def histogram(
    name: str, mean_s: float, count: int, before: tuple[float, float]
) -> dict[str, float]:
    """A histogram that has grown by so many values of this mean."""
    return {
        vllm(f"{name}_sum"): before[0] + mean_s * count,
        vllm(f"{name}_count"): before[1] + count,
    }


AMID = {
    vllm("num_requests_running"): 4.0,
    vllm("num_requests_waiting"): 2.0,
    vllm("kv_cache_usage_perc"): 0.5,
}
DONE = {
    success("length"): 5.0 + 18,
    success("stop"): 2.0,
    vllm("prompt_tokens_total"): 33.0 + 20 * 16,
    vllm("generation_tokens_total"): 296.0 + TOKENS,
    vllm("num_preemptions_total"): 3.0,
    vllm("prefix_cache_queries_total"): 33.0 + 320,
    vllm("prefix_cache_hits_total"): 80.0,
    vllm("spec_decode_num_drafts_total"): 46.0 + 10,
    vllm("spec_decode_num_draft_tokens_total"): 175.0 + 40,
    vllm("spec_decode_num_accepted_tokens_total"): 132.0 + 12,
    position(0): 40.0 + 6,
    position(1): 34.0 + 3,
    position(2): 30.0 + 2,
    position(3): 28.0 + 1,
    **histogram("request_queue_time_seconds", 0.004, 20, (0.003633316000104969, 5)),
    **histogram("time_to_first_token_seconds", 0.09, 20, (1.30171799659729, 5)),
    **histogram("inter_token_latency_seconds", 0.0095, 60, (0.3575031420000414, 162)),
    **histogram("request_time_per_output_token_seconds", 0.0095, 20, (0.009329199134028403, 5)),
    **histogram("e2e_request_latency_seconds", 0.12, 20, (1.658022165298462, 5)),
    **histogram("request_prefill_time_seconds", 0.08, 20, (1.2410298069994496, 5)),
    **histogram("request_decode_time_seconds", 0.0285, 20, (0.3575031420000414, 5)),
}  # fmt: skip
PAGES = [
    (OWN, BEFORE_S, VLLM),
    (OWN, 4.0, with_values(VLLM, AMID)),
    (OWN, AFTER_S, with_values(VLLM, DONE)),
]
"""A vLLM that ran all of ROWS, with speculation."""


def figures(
    path: Path, pages: list[tuple[str, float, str]], info: RunInfo | None = None
) -> dict[str, Any]:
    """The summary's `server` of ROWS and these pages."""
    server = finish(run_with_pages(path, ROWS, pages, info).path)["server"]
    assert isinstance(server, dict)
    return server


def mean(ms: float, count: int) -> dict[str, Any]:
    """A mean, but for rounding."""
    return {"mean": pytest.approx(ms), "count": count}


def level(of_mean: float, largest: float) -> dict[str, Any]:
    """A level, but for rounding."""
    return {"mean": pytest.approx(of_mean), "max": pytest.approx(largest)}


def asked(*names: str, own: bool = True) -> RunInfo:
    """A run with these names in --metrics-url; `own`: whether the target's own page was asked."""
    sources = [MetricsInfo(name=name, url=f"http://{name}/metrics") for name in names]
    if own:
        sources.insert(0, MetricsInfo(name=OWN, url=f"http://{OWN}/metrics", own=True))
    return run_info(metrics=sources)


def test_vllm_tells_every_figure(tmp_path: Path) -> None:
    """Growth from the last page before the first request to the first one after the last."""
    server = figures(tmp_path, PAGES)
    assert {name: server[name] for name in server if name not in {"reconciliation", "window"}} == {
        "notes": [], "replicas": {}, "gpu": None, "kind": "vllm",
        "queue_time_ms": mean(4.0, 20), "ttft_ms": mean(90.0, 20), "itl_ms": mean(9.5, 60),
        "tpot_ms": mean(9.5, 20), "e2e_ms": mean(120.0, 20), "prefill_time_ms": mean(80.0, 20),
        "decode_time_ms": mean(28.5, 20),
        "running": level(2.0, 4.0), "waiting": level(1.0, 2.0),
        "kv_usage_share": level(0.25, 0.5),
        "preemptions": 3,
        "prefix_cache": {"query_tokens": 320, "hit_tokens": 80, "hit_share": 0.25},
        "speculation": {
            "drafts": 10, "draft_tokens": 40, "accepted_tokens": 12, "acceptance_share": 0.3,
            "mean_acceptance_length": 2.2, "acceptance_by_position": [0.6, 0.3, 0.2, 0.1],
        },
        "requests": {"abort": 0, "error": 0, "length": 18, "repetition": 0, "stop": 2},
        "prompt_tokens": 320, "generation_tokens": 80,
        "kv_cache": {
            "tokens": 8192 * 128, "block_size_tokens": 128, "cache_dtype": "auto",
            "enable_prefix_caching": "True", "gpu_memory_utilization": "0.92",
            "max_concurrency": None,
        },
        "lora": None,
    }  # fmt: skip
    assert server["window"]["duration_s"] == AFTER_S - BEFORE_S
    assert server["window"]["whole"] is True


def test_what_was_counted_before_and_after_the_window_is_not_in_it(tmp_path: Path) -> None:
    """A server is not young, and lives on."""
    much = {name: value + 1000 for name, value in DONE.items()}
    younger = with_values(VLLM, {success("length"): 1.0})
    pages = [(OWN, -9.0, younger), *PAGES, (OWN, 20.0, with_values(VLLM, much))]
    assert figures(tmp_path, pages)["requests"]["length"] == 18


def test_what_a_server_does_not_tell_is_null(tmp_path: Path) -> None:
    """Never 0."""
    pages = [(OWN, at_s, without(page, "vllm:")) for at_s, page in ((-1.0, VLLM), (10.0, VLLM))]
    bare = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n"
    pages = [(source, at_s, page + bare) for source, at_s, page in pages]
    server = figures(tmp_path, pages)
    told = {
        name for name, value in server.items()
        if value is not None and name not in {"window", "notes", "replicas", "reconciliation"}
    }  # fmt: skip
    assert told == {"kind", "running"}
    assert server["running"] == {"mean": 0.0, "max": 0.0}


def test_a_server_that_was_started_anew_counts_on_from_0(tmp_path: Path) -> None:
    """By Prometheus' rule; and the figures say that something is lost."""
    amid = {**AMID, success("length"): 5.0 + 8, vllm("generation_tokens_total"): 296.0 + 32}
    fresh = dict.fromkeys(DONE, 0.0) | {
        success("length"): 12.0, vllm("generation_tokens_total"): 48.0,
    }  # fmt: skip
    pages = [
        (OWN, BEFORE_S, VLLM), (OWN, 4.0, with_values(VLLM, amid)),
        (OWN, AFTER_S, with_values(VLLM, fresh)),
    ]  # fmt: skip
    server = figures(tmp_path, pages)
    assert server["requests"]["length"] == 8 + 12
    assert server["generation_tokens"] == 32 + 48
    assert server["notes"] == [
        f"{OWN}: was started anew in the window; what it had counted since the page before is lost."
    ]


def test_a_series_that_appears_later_counts_from_0(tmp_path: Path) -> None:
    """A label's first value makes it: such as a finish reason that never was before."""
    first = without(VLLM, success("stop"))
    pages = [(OWN, BEFORE_S, first), *PAGES[1:]]
    assert figures(tmp_path, pages)["requests"]["stop"] == 2


def test_a_server_whose_pages_end_early_says_so(tmp_path: Path) -> None:
    """Its figures are of a part, and prove nothing."""
    server = figures(tmp_path, PAGES[:2])
    assert server["window"]["whole"] is False
    assert "its figures are of a part" in server["notes"][0]
    assert "do not cover" in server["reconciliation"]["requests"]["explained"]


def test_one_page_tells_levels_but_no_growth(tmp_path: Path) -> None:
    """Null, not 0."""
    server = figures(tmp_path, PAGES[1:2])
    assert server["running"] == {"mean": 4.0, "max": 4.0}
    assert server["requests"] is None
    assert server["ttft_ms"] is None


def test_two_replicas_are_told_apart_and_together(tmp_path: Path) -> None:
    """Counters and running requests add up, means weigh by count, shares are averaged."""
    half = {
        success("length"): 5.0 + 5,
        **histogram("time_to_first_token_seconds", 0.03, 5, (1.30171799659729, 5)),
    }
    busy = {vllm("num_requests_running"): 2.0, vllm("kv_cache_usage_perc"): 0.1}
    pages = [
        ("a", -1.0, VLLM), ("b", -0.5, VLLM),
        ("a", 4.0, with_values(VLLM, AMID)), ("b", 4.5, with_values(VLLM, busy)),
        ("a", 10.0, with_values(VLLM, DONE)), ("b", 10.5, with_values(VLLM, half)),
    ]  # fmt: skip
    server = figures(tmp_path, pages, asked("a", "b"))
    assert server["replicas"].keys() == {"a", "b"}
    assert server["replicas"]["b"]["ttft_ms"] == mean(30.0, 5)
    assert server["ttft_ms"] == mean((90.0 * 20 + 30.0 * 5) / 25, 25)
    assert server["requests"]["length"] == 18 + 5
    assert server["running"]["max"] == pytest.approx(4.0 + 2.0 * 4.5 / 5)
    assert server["replicas"]["a"]["kv_usage_share"] == level(0.25, 0.5)
    assert server["kv_usage_share"]["max"] == pytest.approx((0.5 + 0.1 * 4.5 / 5) / 2)
    assert server["kv_cache"]["tokens"] == 2 * 8192 * 128
    assert server["window"]["duration_s"] == 11.5


def test_replicas_that_were_named_go_before_the_targets_own_page(tmp_path: Path) -> None:
    """Behind a gateway that page is one of them, and would count twice."""
    named = [("a", at_s, page) for _, at_s, page in PAGES]
    server = figures(tmp_path, [*PAGES, *named], asked("a"))
    assert server["requests"]["length"] == 18
    assert server["notes"] == [
        f"{OWN}: left out, because --metrics-url names the replicas behind it."
    ]


def test_a_page_that_several_servers_answer_by_turns_is_not_counted(tmp_path: Path) -> None:
    """Each fall would look like a restart, and count the whole past of the other."""
    started = "process_start_time_seconds"
    other = with_values(VLLM, {started: 1.7954e9, success("length"): 90_000.0})
    pages = [(OWN, float(n), other if n % 2 else VLLM) for n in range(-1, 11)]
    server = figures(tmp_path, pages)
    assert server["requests"] is None
    assert server["kind"] is None
    assert server["notes"] == [
        f"{OWN}: several servers answer there by turns, so its counters mean nothing. Name the "
        "address of each with --metrics-url."
    ]


def test_an_exporter_that_is_not_known_is_named(tmp_path: Path) -> None:
    """A wrong port is easily given."""
    pages = [("node", at_s, "# TYPE node_load1 gauge\nnode_load1 0.5\n") for at_s in (-1.0, 10.0)]
    server = figures(tmp_path, [*PAGES, *pages], asked("node"))
    assert server["notes"] == ["node: no metric of it is known here."]
    assert server["kind"] == "vllm"


def test_adapters_are_those_of_the_newest_series_of_a_page(tmp_path: Path) -> None:
    """vLLM keeps a series for each set of adapters; the value is when it last held."""

    def page(*sets: tuple[str, float]) -> str:
        lines = ["# TYPE vllm:lora_requests_info gauge"]
        lines += [
            f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{names}",'
            f'waiting_lora_adapters=""}} {moment}'
            for names, moment in sets
        ]
        return VLLM + "\n".join(lines) + "\n"

    pages = [
        (OWN, -1.0, page(("a,b,c", 1.0))),
        (OWN, 4.0, page(("a,b,c", 1.0), ("a", 4.0))),
        (OWN, 6.0, page(("a,b,c", 1.0), ("a", 4.0), ("a,b", 6.0))),
        (OWN, 10.0, page(("a,b,c", 1.0), ("a", 4.0), ("a,b", 6.0), ("", 9.0))),
    ]
    assert figures(tmp_path, pages)["lora"] == {"max_running_adapters": 3, "max_loras": 4}
    later = [(source, at_s - 5.0, text) for source, at_s, text in pages[:1]] + [
        (OWN, -1.0, page(("a,b,c", 1.0), ("", 2.0))), *pages[1:],
    ]  # fmt: skip
    again = figures(tmp_path / "later", later)
    assert again["lora"] == {"max_running_adapters": 2, "max_loras": 4}


def test_tgi(tmp_path: Path) -> None:
    """Counters without _total; no TTFT, no KV cache."""
    before = fixture("tgi")
    after = with_values(before, {
        "tgi_request_success": 60, 'tgi_request_failure{err="validation"}': 2,
        "tgi_request_duration_sum": 18.4 + 20 * 0.12, "tgi_request_duration_count": 60,
        "tgi_request_queue_duration_sum": 0.8 + 20 * 0.01, "tgi_request_queue_duration_count": 60,
        "tgi_request_mean_time_per_token_duration_sum": 0.6 + 20 * 0.03,
        "tgi_request_mean_time_per_token_duration_count": 60,
        "tgi_request_generated_tokens_sum": 1280 + TOKENS,
        "tgi_request_generated_tokens_count": 60,
        "tgi_request_input_length_sum": 640 + 320, "tgi_request_input_length_count": 60,
    })  # fmt: skip
    amid = with_values(before, {"tgi_queue_size": 3, "tgi_batch_current_size": 5})
    server = figures(tmp_path, [(OWN, -1.0, before), (OWN, 4.5, amid), (OWN, 10.0, after)])
    assert server["kind"] == "tgi"
    assert server["requests"] == {"failure": 0, "success": 20}
    assert server["queue_time_ms"] == mean(10.0, 20)
    assert server["e2e_ms"] == mean(120.0, 20)
    assert server["tpot_ms"] == mean(30.0, 20)
    assert (server["prompt_tokens"], server["generation_tokens"]) == (320, TOKENS)
    assert (server["running"]["max"], server["waiting"]["max"]) == (5, 3)
    assert server["ttft_ms"] is server["kv_usage_share"] is server["kv_cache"] is None
    told = server["reconciliation"]
    assert told["output_tokens"]["explained"] == "They agree."
    assert told["tpot_ms"]["explained"] == "Not compared: TGI's has the prefill in it."


def test_trtllm_serve(tmp_path: Path) -> None:
    """TPOT, not ITL; the cache's size by its blocks."""
    labels = '{engine_type="trtllm",model_name="m"}'
    before = fixture("trtllm")
    after = with_values(before, {
        'trtllm_request_success_total{engine_type="trtllm",finished_reason="length",model_name="m"}': 53,
        f"trtllm_time_to_first_token_seconds_sum{labels}": 4.0 + 20 * 0.08,
        f"trtllm_time_to_first_token_seconds_count{labels}": 60,
        f"trtllm_time_per_output_token_seconds_sum{labels}": 0.5 + 20 * 0.009,
        f"trtllm_time_per_output_token_seconds_count{labels}": 60,
        f"trtllm_prompt_tokens_total{labels}": 640 + 320,
        f"trtllm_generation_tokens_total{labels}": 1280 + TOKENS,
        f"trtllm_prompt_cached_tokens_total{labels}": 64 + 32,
    })  # fmt: skip
    amid = with_values(before, {f"trtllm_kv_cache_utilization{labels}": 0.25})
    server = figures(tmp_path, [(OWN, -1.0, before), (OWN, 4.5, amid), (OWN, 10.0, after)])
    assert server["kind"] == "trtllm"
    assert server["requests"] == {"length": 20, "stop": 0}
    assert server["ttft_ms"] == mean(80.0, 20)
    assert server["tpot_ms"] == mean(9.0, 20)
    assert server["itl_ms"] is server["speculation"] is None
    assert server["kv_usage_share"]["max"] == 0.25
    assert server["prefix_cache"] == {"query_tokens": 320, "hit_tokens": 32, "hit_share": 0.1}
    assert server["kv_cache"] == {
        "tokens": 16_000, "block_size_tokens": 32, "cache_dtype": None,
        "enable_prefix_caching": None, "gpu_memory_utilization": None, "max_concurrency": None,
    }  # fmt: skip


def test_the_cache_holds_so_many_of_the_longest_requests(tmp_path: Path) -> None:
    """The memory effect of a quantization, in users."""
    card = {"id": "m", "max_model_len": 4096}
    target = TargetInfo(base_url="http://a/v1", model="m", endpoint="chat", model_card=card)
    server = figures(tmp_path, PAGES, run_info(target=target))
    assert server["kv_cache"]["max_concurrency"] == 8192 * 128 / 4096


def test_triton(tmp_path: Path) -> None:
    """Of a pipeline only the LLM counts; its GPU metrics are in J and bytes."""
    before = fixture("triton")
    llm, rest = '{model="tensorrt_llm",version="1"}', '{model="preprocessing",version="1"}'
    kv = 'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="{}",model="tensorrt_llm",version="1"}}'
    after = with_values(before, {
        f"nv_inference_request_success{llm}": 60, f"nv_inference_request_success{rest}": 60,
        f"nv_inference_request_duration_us{llm}": 20_000_000 + 20 * 120_000,
        f"nv_inference_queue_duration_us{llm}": 800_000 + 20 * 5_000,
        f"nv_inference_queue_duration_us{rest}": 9_000_000,
        'nv_energy_consumption{gpu_uuid="GPU-1d2f"}': 15_300,
    })  # fmt: skip
    amid = with_values(before, {
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"}': 7,
        kv.format("used"): 1560, 'nv_gpu_utilization{gpu_uuid="GPU-1d2f"}': 0.9,
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1d2f"}': 70_000_000_000,
    })  # fmt: skip
    server = figures(tmp_path, [(OWN, -1.0, before), (OWN, 4.5, amid), (OWN, 10.0, after)])
    assert server["kind"] == "triton"
    assert server["requests"] == {"failure": 0, "success": 20}
    assert server["queue_time_ms"] == mean(5.0, 20)
    assert server["e2e_ms"] == mean(120.0, 20)
    assert server["running"]["max"] == 7
    assert server["kv_usage_share"]["max"] == 0.25
    assert server["kv_cache"]["tokens"] == 6240 * 64
    assert server["gpu"] == {
        "exporter": "triton", "gpus": 1, "utilisation_share": pytest.approx(0.45),
        "memory_used_bytes": 70_000_000_000, "memory_total_bytes": 85899345920,
        "power_w": pytest.approx(70.0), "energy_j": 3300.0,
        "energy_j_per_1k_output_tokens": pytest.approx(3300.0 / TOKENS * 1000),
    }  # fmt: skip
    assert server["reconciliation"]["requests"]["explained"].startswith("Not compared")


def dcgm(values: dict[str, tuple[float, float]]) -> str:
    """The DCGM page with other values for its two GPUs."""
    lines = fixture("dcgm").splitlines()
    for name, pair in values.items():
        places = [n for n, line in enumerate(lines) if line.startswith(f"{name}{{")]
        for place, value in zip(places, pair, strict=True):
            lines[place] = f"{lines[place].rpartition(' ')[0]} {value}"
    return "\n".join(lines) + "\n"


POWER, ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
MIB = 1 << 20


def test_dcgm_tells_of_gpus_beside_the_server(tmp_path: Path) -> None:
    """Energy by the counter, in mJ since boot; per 1,000 tokens of the server's own count."""
    pages = [
        ("gpu", -1.0, dcgm({})),
        ("gpu", 4.5, dcgm({
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (0.8, 0.4), POWER: (500, 300),
            "DCGM_FI_DEV_FB_USED": (73728, 61440), "DCGM_FI_DEV_FB_FREE": (8192, 20480),
        })),
        ("gpu", 10.0, dcgm({ENERGY: (903_000_000, 701_000_000)})),
    ]  # fmt: skip
    server = figures(tmp_path, [*PAGES, *pages], asked("gpu"))
    assert server["kind"] == "vllm"
    assert server["replicas"] == {}
    assert server["gpu"] == {
        "exporter": "dcgm", "gpus": 2, "utilisation_share": pytest.approx(0.3),
        "memory_used_bytes": (73728 + 61440) * MIB, "memory_total_bytes": 163840 * MIB,
        "power_w": pytest.approx(500.0), "energy_j": 4000.0,
        "energy_j_per_1k_output_tokens": pytest.approx(4000.0 / TOKENS * 1000),
    }  # fmt: skip


def test_gpus_alone_make_a_section(tmp_path: Path) -> None:
    """A server without metrics may run on GPUs that have some; tokens are those of the answers."""
    after = dcgm({ENERGY: (901_000_000, 700_600_000)})
    server = figures(tmp_path, [("gpu", -1.0, dcgm({})), ("gpu", 10.0, after)], asked("gpu"))
    assert server["kind"] is None
    assert server["reconciliation"] is None
    assert server["gpu"]["energy_j_per_1k_output_tokens"] == pytest.approx(1600.0 / TOKENS * 1000)


def test_a_counter_of_energy_that_stands_still_gives_way_to_power_over_time(tmp_path: Path) -> None:
    """The exporter reads it every 30 s; the run may be shorter."""
    pages = [("gpu", at_s, dcgm({})) for at_s in (-1.0, 10.0)]
    gpu = figures(tmp_path, pages, asked("gpu"))["gpu"]
    assert gpu["energy_j"] == pytest.approx(2 * 100.0 * 11.0)
    no_power = [("gpu", at_s, without(dcgm({}), POWER)) for at_s in (-1.0, 10.0)]
    gpu = figures(tmp_path / "none", no_power, asked("gpu"))["gpu"]
    assert gpu["energy_j"] is gpu["power_w"] is gpu["energy_j_per_1k_output_tokens"] is None


def test_a_gpu_is_the_same_whichever_pod_has_it(tmp_path: Path) -> None:
    """Its labels change with the pod; counted from 0, it would have used all since boot."""
    after = dcgm({ENERGY: (901_000_000, 700_000_500)}).replace('pod="llama-0"', 'pod="llama-0-new"')
    gpu = figures(tmp_path, [("gpu", -1.0, dcgm({})), ("gpu", 10.0, after)], asked("gpu"))["gpu"]
    assert gpu["gpus"] == 2
    assert gpu["energy_j"] == pytest.approx(1000.5)


def test_the_parts_of_a_gpu_have_their_own_memory_but_the_power_of_the_whole(
    tmp_path: Path,
) -> None:
    """MIG: dcgm-exporter tells the whole GPU's power for each of its parts."""

    def page(energy_mj: float) -> str:
        lines = []
        for name, of_part in (
            ("DCGM_FI_DEV_FB_USED", (1000.0, 3000.0)),
            ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", (0.2, 0.6)),
            (POWER, (150.0, 150.0)),
            (ENERGY, (energy_mj, energy_mj)),
        ):
            lines += [
                f'{name}{{gpu="0",UUID="GPU-1",GPU_I_PROFILE="1g.10gb",GPU_I_ID="{part}"}} {value}'
                for part, value in zip((7, 8), of_part, strict=True)
            ]
        return "\n".join(lines) + "\n"

    pages = [("gpu", -1.0, page(5e9)), ("gpu", 10.0, page(5e9 + 1.65e6))]
    gpu = figures(tmp_path, pages, asked("gpu"))["gpu"]
    assert gpu["gpus"] == 1
    assert gpu["memory_used_bytes"] == 4000 * MIB
    assert gpu["utilisation_share"] == pytest.approx(0.4)
    assert gpu["power_w"] == 150.0
    assert gpu["energy_j"] == pytest.approx(1650.0)


def test_what_dcgm_does_not_know_is_no_figure(tmp_path: Path) -> None:
    """It says 9223372036854775794 then."""
    blank = 9223372036854775794
    pages = [("gpu", at_s, dcgm({POWER: (blank, blank)})) for at_s in (-1.0, 10.0)]
    assert figures(tmp_path, pages, asked("gpu"))["gpu"]["power_w"] is None


def test_a_terminal_shows_a_line_for_each_thing_that_was_told(tmp_path: Path) -> None:
    """And none for what was not."""
    pages = [("gpu", -1.0, dcgm({})), ("gpu", 10.0, dcgm({ENERGY: (903_000_000, 701_000_000)}))]
    assert server_lines(figures(tmp_path / "all", [*PAGES, *pages], asked("gpu"))) == [
        ("queue", "4.00 ms on average, 1.0 waiting (max 2), 2.0 running (max 4)"),
        ("KV cache", "25.0% in use (max 50.0%), of 1,048,576 tokens, 3 preemptions"),
        ("prefixes", "25.0% of 320 tokens found"),
        ("drafts", "30.0% of 40 accepted, 2.20 tokens per step"),
        ("GPU", "2 GPUs, 0.0% busy, 130.0 GiB, 200 W, 4,000 J, 50,000.0 J per 1,000 output tokens"),
    ]
    tgi = [(OWN, at_s, fixture("tgi")) for at_s in (-1.0, 10.0)]
    assert server_lines(figures(tmp_path / "tgi", tgi)) == [
        ("queue", "0.0 waiting (max 0), 0.0 running (max 0)")
    ]


def test_a_pod_that_came_in_mid_run_had_nothing_running_before(tmp_path: Path) -> None:
    """Together with the others, too: 2 all the time, and 4 more from its first page on."""
    running = vllm("num_requests_running")
    pages = [
        ("a", -1.0, with_values(VLLM, {running: 2.0})),
        ("b", 5.0, with_values(VLLM, {running: 4.0})),
        ("a", 10.0, with_values(VLLM, {running: 2.0})),
        ("b", 10.0, with_values(VLLM, {running: 4.0})),
    ]
    pods = [MetricsInfo(name=name, url=f"http://{name}/m", late=name == "b") for name in "ab"]
    server = figures(tmp_path, pages, run_info(metrics=pods))
    assert server["running"] == level(2.0 + 4.0 * 5 / 11, 6.0)
    assert server["replicas"]["b"]["running"]["max"] == pytest.approx(4.0)


def test_no_page_makes_no_section(tmp_path: Path) -> None:
    """Null."""
    assert finish(run_with_pages(tmp_path, ROWS, []).path)["server"] is None


def test_a_table_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It has no replica's name, and does not tell when a page was asked for."""
    run = run_with_pages(tmp_path, ROWS, PAGES)
    finish(run.path)
    table = pq.read_table(run.server)
    older = table.filter(pa.compute.not_equal(table["name"], "scrape_duration_seconds"))
    place = older.schema.get_field_index("replica")
    older = older.set_column(place, "replica", pa.array([""] * len(older)))
    pq.write_table(older, run.server)
    assert finish(run.path)["server"]["requests"]["length"] == 18


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    """With a way out: the other figures need it not."""
    run = run_with_pages(tmp_path, ROWS, PAGES)
    finish(run.path)
    run.server.write_bytes(run.server.read_bytes()[:200])
    with pytest.raises(RunDirError, match=r"server\.parquet: cannot be read") as caught:
        finish(run.path)
    assert "remove it" in caught.value.fix
    run.server.unlink()
    assert finish(run.path)["server"] is None
