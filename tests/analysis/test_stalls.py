"""The summary's `stalls`: what is one, what was there meanwhile, and how often chance has it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.counting import Tally
from kvswarm.analysis.course_lines import stall_lines
from kvswarm.analysis.finish import finish
from kvswarm.analysis.stalls import threshold_us, usual_gap_us
from kvswarm.records import Record, pack_u32
from kvswarm.rundir import MetricsInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import good, run_info, summary_of, summary_schema
from serverpages import OWN, fixture, run_with_pages, with_values

PAGE = fixture("ngram")
E0 = '{engine="0",model_name="tiny"}'
WAITING = f"vllm:num_requests_waiting{E0}"
USAGE = f"vllm:kv_cache_usage_perc{E0}"
PREEMPTIONS = f"vllm:num_preemptions_total{E0}"


def stalled(index: int, *, at_ms: float, gap_ms: float = 300.0, **changes: Any) -> Record:
    """Its third token comes late: it stands still from 110 ms after it was sent."""
    return good(index, at_ms=at_ms, gaps_ms=(10.0, gap_ms, 10.0), **changes)


def calm(count: int = 10, every_ms: float = 1000.0, **changes: Any) -> list[Record]:
    """Requests without a stall, from 0 to 9 s."""
    return [good(100 + n, at_ms=n * every_ms, **changes) for n in range(count)]


def stalls_of(path: Path, rows: Sequence[Record]) -> dict[str, Any]:
    """The section of a run without metrics."""
    return dict(summary_of(path, rows)["stalls"])


def with_pages(
    path: Path, rows: Sequence[Record], pages: dict[float, dict[str, float]]
) -> dict[str, Any]:
    """The section, and page made, of a run with these samples on the pages at these seconds."""
    quiet = {WAITING: 0.0, USAGE: 0.1, PREEMPTIONS: 0.0}
    texts = [(OWN, at_s, with_values(PAGE, {**quiet, **new})) for at_s, new in pages.items()]
    summary = finish(run_with_pages(path, rows, texts).path)
    jsonschema.Draft202012Validator(summary_schema()).validate(summary)
    return dict(summary["stalls"])


def counts(stalls: dict[str, Any]) -> dict[str, int]:
    """Stalls by cause, without those that were not there."""
    return {each["cause"]: each["count"] for each in stalls["causes"] if each["count"]}


def cause(stalls: dict[str, Any], name: str) -> dict[str, Any]:
    """What is said of a cause."""
    (one,) = [each for each in stalls["causes"] if each["cause"] == name]
    return dict(one)


def test_stalls_are_counted_with_the_time_that_they_cost(tmp_path: Path) -> None:
    """Two of 36 gaps, 300 and 500 ms of which 10 were due."""
    rows = [*calm(), stalled(0, at_ms=2000), stalled(1, at_ms=4000, gap_ms=500.0)]
    stalls = stalls_of(tmp_path, rows)
    assert stalls["threshold_ms"] == 100.0
    assert stalls["usual_gap_ms"] == 10.0
    assert (stalls["count"], stalls["requests"]) == (2, 2)
    assert stalls["gap_share"] == pytest.approx(2 / 36)
    assert stalls["lost_ms"] == pytest.approx(290 + 490)
    assert stalls["lost_share"] == pytest.approx(780 / (34 * 10 + 800))
    assert [(each["index"], each["gap_ms"]) for each in stalls["longest"]] == [(1, 500), (0, 300)]
    assert stalls["longest"][1]["begin_s"] == pytest.approx(2.11, abs=1e-3)
    assert sum(stalls["counts"]) == 2
    place = np.flatnonzero(stalls["longest_gap_ms"])
    assert [int(each * stalls["bin_s"]) for each in place] == [2, 4]
    assert counts(stalls) == {"unexplained": 2}
    assert stalls["untold"] == ["preemption", "queue", "kv_cache"]
    assert "no server told of: preemption" in " ".join(stall_lines(stalls))


def test_gaps_below_the_threshold_are_none(tmp_path: Path) -> None:
    """99 ms where 10 are usual; 400 ms where 50 are."""
    assert stalls_of(tmp_path / "a", [*calm(), stalled(0, at_ms=0, gap_ms=99.0)])["count"] == 0
    slow = calm(gaps_ms=(50.0, 50.0, 50.0))
    stalls = stalls_of(tmp_path / "b", [*slow, stalled(0, at_ms=0, gap_ms=400.0)])
    assert stalls["threshold_ms"] == 500.0
    assert stalls["count"] == 0
    assert stalls["longest"] == stalls["counts"] == []
    assert list(stall_lines(stalls)) == ["no gap between tokens was 500 ms or more"]


def test_failed_requests_and_other_phases_have_no_stalls(tmp_path: Path) -> None:
    """As they have no latencies."""
    rows = [
        *calm(),
        stalled(0, at_ms=0, phase="warmup"),
        stalled(1, at_ms=100, error_kind="cut", error_detail="planted"),
    ]
    assert stalls_of(tmp_path, rows)["count"] == 0


def test_a_run_without_gaps_has_no_section(tmp_path: Path) -> None:
    """One token each says nothing of stalls."""
    assert summary_of(tmp_path, [good(0, gaps_ms=())])["stalls"] is None


def test_what_the_generator_read_late_is_its_own_and_nothing_elses(tmp_path: Path) -> None:
    """The token may have come 250 ms earlier; another's may only have come 50 ms earlier."""

    rows = [
        *calm(),
        stalled(0, at_ms=2000, packed_late_index=pack_u32([2]),
                packed_late_us=pack_u32([250_000])),
        stalled(1, at_ms=4000, packed_late_index=pack_u32([2]), packed_late_us=pack_u32([50_000])),
        good(2, at_ms=1900, ttft_ms=2800.0, prompt_tokens=8000),
    ]  # fmt: skip
    stalls = stalls_of(tmp_path, rows)
    assert counts(stalls) == {"generator": 1, "prefill": 1}
    assert cause(stalls, "generator")["lost_ms"] == pytest.approx(290)


def test_a_long_prompt_of_another_request_explains_a_stall_in_its_midst(tmp_path: Path) -> None:
    """Not a short one, and not one whose first token came before the middle of the stall."""
    rows = [
        *calm(),
        stalled(0, at_ms=2000),  # still from 2.11 to 2.41 s
        good(1, at_ms=2050, ttft_ms=400.0, prompt_tokens=4000),
        stalled(2, at_ms=4000),
        good(3, at_ms=4050, ttft_ms=400.0, prompt_tokens=500),
        stalled(4, at_ms=6000),
        good(5, at_ms=6050, ttft_ms=100.0, prompt_tokens=4000),
    ]
    stalls = stalls_of(tmp_path, rows)
    assert counts(stalls) == {"prefill": 1, "unexplained": 2}
    by_index = {each["index"]: each["causes"] for each in stalls["longest"]}
    assert by_index == {0: ["prefill"], 2: ["unexplained"], 4: ["unexplained"]}


def test_each_cause_of_the_server_is_found_at_its_stall_and_at_no_other(tmp_path: Path) -> None:
    """Planted at pages of one second each; the counter rises between two of them."""
    rows = [*calm(), *(stalled(n, at_ms=1000.0 + 2000 * n + 300) for n in range(4))]
    pages: dict[float, dict[str, float]] = {float(at_s): {} for at_s in range(-1, 12)}
    pages[2.0] = {WAITING: 3.0}
    pages[3.0] = {USAGE: 0.97}
    for at_s in range(6, 12):
        pages[float(at_s)] = {PREEMPTIONS: 2.0}
    stalls = with_pages(tmp_path, rows, pages)
    by_index = {each["index"]: each["causes"] for each in stalls["longest"]}
    assert by_index == {
        0: ["queue"], 1: ["kv_cache"], 2: ["preemption"], 3: ["unexplained"],
    }  # fmt: skip
    assert stalls["untold"] == []
    assert cause(stalls, "preemption")["share"] == 0.25
    for name, seconds in (("queue", 2.0), ("kv_cache", 2.0), ("preemption", 1.0)):
        chance = cause(stalls, name)["chance_share"]
        assert chance == pytest.approx(seconds / 9.1, abs=0.05), name


def test_a_stall_may_have_several_causes(tmp_path: Path) -> None:
    """Each has the whole of its lost time."""
    pages: dict[float, dict[str, float]] = {float(at_s): {} for at_s in range(-1, 12)}
    pages[2.0] = {WAITING: 3.0, USAGE: 0.99}
    stalls = with_pages(tmp_path, [*calm(), stalled(0, at_ms=1300)], pages)
    assert counts(stalls) == {"queue": 1, "kv_cache": 1}
    assert [cause(stalls, name)["lost_share"] for name in ("queue", "kv_cache")] == [1.0, 1.0]


def test_what_was_always_there_is_shown_to_be_no_news(tmp_path: Path) -> None:
    """A queue over the whole run is found at every stall, and at every other moment too."""
    pages = {float(at_s): {WAITING: 5.0} for at_s in range(-1, 12)}
    stalls = with_pages(tmp_path, [*calm(), stalled(0, at_ms=3000)], pages)
    assert cause(stalls, "queue")["share"] == 1.0
    assert cause(stalls, "queue")["chance_share"] == 1.0


def test_a_counter_that_began_anew_is_a_rise_of_what_it_has(tmp_path: Path) -> None:
    """From 5 to 1: the server was started again and has preempted since; from 5 to 5 it has not."""
    rows = [*calm(), stalled(0, at_ms=1300), stalled(1, at_ms=5300)]
    pages = {float(at_s): {PREEMPTIONS: 5.0 if at_s < 6 else 1.0} for at_s in range(-1, 12)}
    stalls = with_pages(tmp_path, rows, pages)
    by_index = {each["index"]: each["causes"] for each in stalls["longest"]}
    assert by_index == {0: ["unexplained"], 1: ["preemption"]}


def test_what_any_of_several_replicas_tells_counts(tmp_path: Path) -> None:
    """Nobody knows which of them answered; a page of what stands before them is left out."""
    info = run_info(
        metrics=[
            MetricsInfo(name=OWN, url="http://127.0.0.1:8000/metrics", own=True),
            MetricsInfo(name="a", url="http://127.0.0.1:8001/metrics", own=False),
            MetricsInfo(name="b", url="http://127.0.0.1:8002/metrics", own=False),
        ]
    )
    quiet = {WAITING: 0.0, USAGE: 0.1, PREEMPTIONS: 0.0}
    pages = []
    for at_s in range(-1, 12):
        full = {**quiet, USAGE: 0.99} if at_s == 2 else quiet
        for name, values in ((OWN, {**quiet, WAITING: 9.0}), ("a", quiet), ("b", full)):
            pages.append((name, float(at_s), with_values(PAGE, values)))
    rows = [*calm(), stalled(0, at_ms=1300), stalled(1, at_ms=5300)]
    stalls = finish(run_with_pages(tmp_path, rows, pages, info).path)["stalls"]
    assert counts(stalls) == {"kv_cache": 1, "unexplained": 1}


def test_of_many_stalls_only_the_ten_longest_are_named(tmp_path: Path) -> None:
    """All are counted."""
    rows = [stalled(n, at_ms=n * 10.0, gap_ms=200.0 + n) for n in range(300)]
    stalls = stalls_of(tmp_path, rows)
    assert stalls["count"] == stalls["requests"] == sum(stalls["counts"]) == 300
    assert [each["index"] for each in stalls["longest"]] == list(range(299, 289, -1))


def test_the_report_draws_the_stalls_with_the_servers_lines(tmp_path: Path) -> None:
    """And tells their causes in words."""
    pages: dict[float, dict[str, float]] = {float(at_s): {} for at_s in range(-1, 12)}
    pages[2.0] = {WAITING: 3.0}
    with_pages(tmp_path, [*calm(), stalled(0, at_ms=1300)], pages)
    page = (tmp_path / "report.html").read_text()
    assert "Stalls over time" in page
    assert f"{OWN}: waiting" in page
    assert "<th>requests waiting</th>" in page


@given(gaps_us=st.lists(st.one_of(st.just(0), st.integers(1, 3_000_000)), min_size=1, max_size=200))
def test_the_usual_gap_is_the_median_of_those_above_0(gaps_us: list[int]) -> None:
    """Tokens that come in one piece do not make the rest look like stalls."""
    tally = Tally()
    tally.add(np.array(gaps_us))
    above = [gap for gap in gaps_us if gap]
    if not above:
        assert threshold_us(tally) is None
        return
    assert usual_gap_us(tally) == pytest.approx(float(np.median(above)))
    limit = threshold_us(tally)
    assert limit == pytest.approx(max(100_000.0, 10 * float(np.median(above))))
    assert tally.count_below(limit) == sum(gap < limit for gap in gaps_us)
