"""Client and server side by side: what is explained, and the contradictions that are planted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvswarm.analysis.finish import finish
from kvswarm.analysis.server_lines import server_lines
from kvswarm.records import Record
from kvswarm.rundir import MetricsInfo, RunInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import failed, good, run_info
from serverpages import OWN, run_with_pages

COUNT = 100
ROWS = [good(i, at_ms=i * 100.0) for i in range(COUNT)]
"""100 requests of 16 prompt and 4 output tokens: TTFT 100 ms, ITL and TPOT 10 ms, E2E 131 ms."""


def page(requests: int = 0, **changes: float) -> str:
    """A vLLM that has served so many of these requests, a little faster than the client saw."""
    means_s = {
        "time_to_first_token_seconds": (0.098, requests),
        "inter_token_latency_seconds": (0.0099, requests * 3),
        "request_time_per_output_token_seconds": (0.0099, requests),
        "e2e_request_latency_seconds": (0.129, requests),
    }
    lines = [
        "# TYPE vllm:request_success_total counter",
        f'vllm:request_success_total{{finished_reason="length"}} {requests}',
        "# TYPE vllm:prompt_tokens_total counter",
        f"vllm:prompt_tokens_total {changes.get('prompt_tokens', requests * 16)}",
        "# TYPE vllm:generation_tokens_total counter",
        f"vllm:generation_tokens_total {changes.get('generation_tokens', requests * 4)}",
    ]
    for name, (mean_s, count) in means_s.items():
        lines += [
            f"# TYPE vllm:{name} histogram",
            f'vllm:{name}_bucket{{le="+Inf"}} {count}',
            f"vllm:{name}_sum {changes.get(name, mean_s) * count}",
            f"vllm:{name}_count {count}",
        ]
    return "\n".join(lines) + "\n"


def told(
    path: Path,
    pages: Sequence[tuple[str, float, str]],
    rows: Sequence[Record] = ROWS,
    info: RunInfo | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The reconciliation, and the verdict's reasons."""
    summary = finish(run_with_pages(path, rows, pages, info).path)
    return summary["server"]["reconciliation"], summary["verdict"]["reasons"]


def after(text: str) -> list[tuple[str, float, str]]:
    """A page of nothing before the load, and this one after it."""
    return [(OWN, -1.0, page()), (OWN, 20.0, text)]


def test_a_server_that_tells_of_this_run_is_explained_line_by_line(tmp_path: Path) -> None:
    """Counts agree; the client's latencies have the way in them."""
    lines, reasons = told(tmp_path, after(page(COUNT)))
    assert reasons == []
    assert lines.keys() == {
        "requests", "prompt_tokens", "output_tokens", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms",
    }  # fmt: skip
    for name, value in (("requests", 100), ("prompt_tokens", 1600), ("output_tokens", 400)):
        assert lines[name] == {
            "client": value, "server": value, "difference": 0, "explained": "They agree.",
        }  # fmt: skip
    for name, client, server in (
        ("ttft_ms", 100.0, 98.0), ("itl_ms", 10.0, 9.9), ("tpot_ms", 10.0, 9.9),
        ("e2e_ms", 131.0, 129.0),
    ):  # fmt: skip
        assert lines[name]["client"] == pytest.approx(client)
        assert lines[name]["server"] == pytest.approx(server)
        assert lines[name]["difference"] == pytest.approx(client - server)
        assert lines[name]["explained"].startswith("HTTP, the network")


@pytest.mark.parametrize(
    ("changes", "line", "reason"),
    [
        ({"prompt_tokens": 1700}, "prompt_tokens",
         "count 1700 prompt tokens in the run, its answers tell of 1600"),
        ({"generation_tokens": 390}, "output_tokens",
         "count 390 output tokens in the run, its answers tell of 400"),
        ({"time_to_first_token_seconds": 0.15}, "ttft_ms",
         "TTFT is 100.00 ms on average, but 150.00 ms by the server's own metrics"),
        ({"inter_token_latency_seconds": 0.02}, "itl_ms",
         "ITL is 10.00 ms on average, but 20.00 ms by the server's own metrics"),
        ({"request_time_per_output_token_seconds": 0.02}, "tpot_ms",
         "TPOT is 10.00 ms on average, but 20.00 ms by the server's own metrics"),
        ({"e2e_request_latency_seconds": 0.15}, "e2e_ms",
         "E2E is 131.00 ms on average, but 150.00 ms by the server's own metrics"),
    ],
)  # fmt: skip
def test_a_planted_contradiction_is_found_and_is_the_only_one(
    changes: dict[str, float], line: str, reason: str, tmp_path: Path
) -> None:
    """Client and server cannot both be right."""
    lines, reasons = told(tmp_path, after(page(COUNT, **changes)))
    assert len(reasons) == 1
    assert reason in reasons[0]
    contradicted = [name for name in lines if "contradict" in lines[name]["explained"]]
    assert contradicted == [line]


def test_bundled_tokens_are_told_of_once(tmp_path: Path) -> None:
    """ITL and TPOT have the same cause."""
    slow = {"inter_token_latency_seconds": 0.02, "request_time_per_output_token_seconds": 0.02}
    lines, reasons = told(tmp_path, after(page(COUNT, **slow)))
    assert len(reasons) == 1
    assert "holds tokens back and sends them together" in reasons[0]
    assert "contradict" in lines["tpot_ms"]["explained"]


@pytest.mark.parametrize(
    "changes",
    [
        {"time_to_first_token_seconds": 0.109},
        {"inter_token_latency_seconds": 0.0149},
        {"e2e_request_latency_seconds": 0.1359},
        {"prompt_tokens": 1616},
        {"generation_tokens": 396},
    ],
    ids=["ttft by 9 %", "itl by 4.9 ms", "e2e by 4.9 ms", "prompts by 1 %", "outputs by 1 %"],
)
def test_what_is_within_the_tolerance_is_no_contradiction(
    changes: dict[str, float], tmp_path: Path
) -> None:
    """5 ms or 10 % for means, 1 % for counts."""
    lines, reasons = told(tmp_path, after(page(COUNT, **changes)))
    assert reasons == []
    assert any(line["explained"].startswith("Within") for line in lines.values())


def test_events_of_several_tokens_make_itl_incomparable(tmp_path: Path) -> None:
    """The client's gaps are between events, the server's between its steps."""
    rows = [good(i, at_ms=i * 100.0, completion_tokens=8) for i in range(COUNT)]
    slow = {"inter_token_latency_seconds": 0.02, "request_time_per_output_token_seconds": 0.0042}
    text = page(COUNT, generation_tokens=800, **slow)
    lines, reasons = told(tmp_path, after(text), rows)
    assert reasons == []
    assert lines["itl_ms"]["explained"] == ("Not compared: an event had 2.00 tokens; see tpot_ms.")


def test_answers_without_usage_are_not_held_against_the_servers_tokens(tmp_path: Path) -> None:
    """Nobody counted them on this side."""
    rows = [*ROWS[1:], good(0, completion_tokens=None)]
    lines, reasons = told(tmp_path, after(page(COUNT)), rows)
    assert reasons == []
    assert lines["output_tokens"] == {
        "client": None, "server": 400, "difference": None,
        "explained": "Not compared: the answers do not tell.",
    }  # fmt: skip


def asked(*names: str) -> RunInfo:
    """A run with these names in --metrics-url."""
    own = MetricsInfo(name=OWN, url=f"http://{OWN}/metrics", own=True)
    return run_info(metrics=[own, *(MetricsInfo(name=n, url=f"http://{n}/m") for n in names)])


def test_one_of_several_replicas_contradicts_nothing(tmp_path: Path) -> None:
    """A gateway's /metrics may be one replica's."""
    lines, reasons = told(tmp_path, after(page(COUNT // 3)))
    assert reasons == []
    assert "one of several replicas" in lines["requests"]["explained"]
    assert "a part of the requests" in lines["ttft_ms"]["explained"]


def test_all_replicas_together_are_held_against_the_client(tmp_path: Path) -> None:
    """Each did a part."""
    parts = [
        ("a", -1.0, page()), ("b", -0.7, page()),
        ("a", 20.0, page(40)), ("b", 20.7, page(60)),
    ]  # fmt: skip
    lines, reasons = told(tmp_path, parts, info=asked("a", "b"))
    assert reasons == []
    assert lines["requests"]["explained"] == "They agree, over all 2 replicas."
    assert lines["output_tokens"]["explained"] == "They agree."
    assert lines["ttft_ms"]["server"] == pytest.approx(98.0)


def test_replicas_that_were_all_named_must_have_served_all(tmp_path: Path) -> None:
    """Else one was forgotten, and the figures are of a part."""
    parts = [("a", -1.0, page()), ("a", 20.0, page(40))]
    lines, reasons = told(tmp_path, parts, info=asked("a"))
    assert len(reasons) == 1
    assert "finished 40 requests in the run, the client saw 100" in reasons[0]
    assert "contradict" in lines["requests"]["explained"]


def test_a_named_replica_that_told_nothing_may_have_served_the_rest(tmp_path: Path) -> None:
    """Then not all of them are known."""
    parts = [("a", -1.0, page()), ("a", 20.0, page(40))]
    _, reasons = told(tmp_path, parts, info=asked("a", "dead"))
    assert reasons == []


def test_requests_of_the_warm_up_that_end_in_the_window_count_on_both_sides(
    tmp_path: Path,
) -> None:
    """The server knows no phases."""
    rows = [good(i, at_ms=i * 100.0, phase="warmup" if i < 50 else "measure") for i in range(COUNT)]
    # The last page before the first measured request (at 5 s) is that of 4 s: 39 had ended then.
    pages = [(OWN, -1.0, page()), (OWN, 4.0, page(39)), (OWN, 20.0, page(COUNT))]
    lines, reasons = told(tmp_path, pages, rows)
    assert reasons == []
    (note,) = json.loads((tmp_path / "summary.json").read_text())["server"]["notes"]
    assert note.startswith("11 of the 61 requests that ended between the first page and the last")
    assert (lines["requests"]["client"], lines["requests"]["server"]) == (61, 61)
    assert lines["output_tokens"]["explained"] == "They agree."


def test_requests_in_flight_at_an_edge_may_be_on_either_side(tmp_path: Path) -> None:
    """Which of them the page had counted nobody knows."""
    rows = [good(i, at_ms=i * 20.0, phase="warmup" if i < 50 else "measure") for i in range(COUNT)]
    # At 0.9 s, before the first measured one, 39 had ended and 7 were in flight.
    pages = [(OWN, -1.0, page()), (OWN, 0.9, page(44)), (OWN, 20.0, page(COUNT))]
    lines, reasons = told(tmp_path, pages, rows)
    assert reasons == []
    assert (lines["requests"]["client"], lines["requests"]["server"]) == (61, 56)
    flying = "7 requests were in flight at an edge of the window."
    assert lines["requests"]["explained"] == flying
    assert lines["ttft_ms"]["explained"] == f"Not compared: {flying}"
    more = [(OWN, -1.0, page()), (OWN, 0.9, page(30)), (OWN, 20.0, page(COUNT))]
    _, reasons = told(tmp_path / "more", more, rows)
    assert "the server finished 70 requests in the run, this run made 61" in reasons[0]


def test_what_a_server_did_for_failed_requests_is_not_compared(tmp_path: Path) -> None:
    """It made some of their tokens before they failed."""
    rows = [*ROWS[:-1], failed(COUNT - 1, "stall", at_ms=9000)]
    lines, reasons = told(tmp_path, after(page(COUNT - 1, generation_tokens=500)), rows)
    assert reasons == []
    assert "failed requests" in lines["output_tokens"]["explained"]


def with_pods(*names: str, late: str) -> RunInfo:
    """A run on a service of these pods, one of which was not ready before the load."""
    return run_info(
        metrics=[
            MetricsInfo(name=name, url=f"http://{name}/m", late=name == late) for name in names
        ]
    )


def test_a_pod_that_came_in_mid_run_has_counted_from_zero(tmp_path: Path) -> None:
    """What it had counted before its first page is of the run, too."""
    parts = [
        ("a", -1.0, page()), ("b", 5.0, page(30)),
        ("a", 20.0, page(40)), ("b", 20.7, page(60)),
    ]  # fmt: skip
    lines, reasons = told(tmp_path / "late", parts, info=with_pods("a", "b", late="b"))
    assert reasons == []
    assert (lines["requests"]["server"], lines["output_tokens"]["server"]) == (100, 400)
    assert lines["requests"]["explained"] == "They agree, over all 2 replicas."
    lines, _ = told(tmp_path / "there", parts, info=asked("a", "b"))
    assert lines["requests"]["server"] == 70
    assert "do not cover the window" in lines["requests"]["explained"]


def test_a_terminal_shows_how_the_load_was_spread(tmp_path: Path) -> None:
    """Over several replicas; of one there is nothing to say."""
    parts = [
        ("a", -1.0, page()), ("b", -0.7, page()),
        ("a", 20.0, page(40)), ("b", 20.7, page(60)),
    ]  # fmt: skip
    summary = finish(run_with_pages(tmp_path / "two", ROWS, parts, asked("a", "b")).path)
    assert server_lines(summary["server"])[0] == (
        "replicas",
        "2 ended 100 requests, 40 to 60 each; the client saw 100 succeed",
    )
    summary = finish(run_with_pages(tmp_path / "one", ROWS, after(page(COUNT))).path)
    assert "replicas" not in dict(server_lines(summary["server"]))


def test_a_late_pod_that_was_asked_in_time_is_counted_from_its_page(tmp_path: Path) -> None:
    """It may have been unready for a moment, and have served others before."""
    parts = [("a", -1.0, page(900)), ("a", 20.0, page(1000))]
    lines, reasons = told(tmp_path, parts, info=with_pods("a", late="a"))
    assert reasons == []
    assert lines["requests"]["explained"] == "They agree."


def test_a_pod_that_left_in_mid_run_makes_the_figures_those_of_a_part(tmp_path: Path) -> None:
    """What it served after its last page is not known."""
    parts = [
        ("a", -1.0, page()), ("b", -0.7, page()),
        ("a", 20.0, page(40)), ("b", 5.0, page(20)),
    ]  # fmt: skip
    lines, reasons = told(tmp_path, parts, info=with_pods("a", "b", late=""))
    assert reasons == []
    assert "do not cover the window" in lines["requests"]["explained"]
