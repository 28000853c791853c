"""Knee and saturation of a sweep's curve, on systems that arithmetic tells, and their page."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.knee import Curve, Kind, curve_of, point_of
from kvswarm.analysis.report_sweep import knee_text, search_page, sweep_page


def point(load: float, rate: float, e2e_s: float, *, queued: bool = False) -> Any:
    """A run's point, from the members of its summary."""
    latency = {"p50": 10.0, "p99": 20.0, "mean": e2e_s * 1e3}
    return point_of(
        load,
        {
            "throughput": {"requests_per_s": rate, "output_tokens_per_s": rate * 8},
            "ttft_ms": latency, "itl_ms": latency, "e2e_ms": latency,
        },
        queued=queued,
    )  # fmt: skip


def closed(places: int, users: list[int]) -> Curve:
    """A server of so many places, a second each: nobody waits until they are all taken."""
    points = [point(n, min(n, places), max(1.0, n / places)) for n in users]
    return curve_of("", "concurrency", points)


def test_the_knee_of_a_server_with_places_is_their_number() -> None:
    """Below it throughput grows with users, above it only the wait does."""
    curve = closed(8, [1, 2, 4, 8, 16, 32])
    assert curve.knee == 8
    assert curve.saturated_from == 16
    assert [p.power for p in curve.points] == [1, 2, 4, 8, 4, 2]
    assert knee_text(msgspec.to_builtins(curve)) == (
        "knee at 8 users, where power is greatest; saturated from 16 users on"
    )


@given(places=st.integers(1, 64), order=st.permutations([1, 2, 4, 8, 16, 32, 64, 128, 256]))
def test_the_knee_is_the_load_next_to_the_truth_in_whatever_order_it_was_run(
    places: int, order: list[int]
) -> None:
    """It cannot be told finer than the loads that were run."""
    curve = closed(places, order)
    assert curve.knee is not None
    assert places / 2 <= curve.knee <= places * 2
    assert curve.saturated_from is not None
    assert places < curve.saturated_from <= 4 * places


def test_no_knee_is_told_where_power_still_rises_or_two_loads_are_all() -> None:
    """What lies beyond was not measured."""
    assert closed(8, [1, 2, 4]).knee is None
    assert closed(8, [1, 2, 4]).saturated_from is None
    assert closed(1, [1, 4]).knee is None


def test_a_rate_is_too_much_where_requests_queue_up() -> None:
    """M/M/1 with a capacity of 10: its power is greatest at half of that (Kleinrock 1979)."""
    rates = [1.0, 3.0, 5.0, 7.0, 9.0, 12.0]
    points = [
        point(r, min(r, 10.0), 1 / (10.0 - r) if r < 10 else 30.0, queued=r > 10) for r in rates
    ]
    curve = curve_of("", "rate_rps", points)
    assert (curve.knee, curve.saturated_from) == (5.0, 12.0)


def test_a_run_without_latencies_has_no_power_and_is_no_knee() -> None:
    """All of its requests failed."""
    summary = {
        "throughput": {"requests_per_s": 0.0, "output_tokens_per_s": 0.0},
        **{name: dict.fromkeys(("p50", "p99", "mean")) for name in ("ttft_ms", "itl_ms", "e2e_ms")},
    }
    dead = point_of(8.0, summary, queued=False)
    kind: Kind = "concurrency"
    curve = curve_of("", kind, [point(1, 1, 1), point(2, 2, 1), point(4, 2, 2), dead])
    assert dead.power is None
    assert (curve.knee, curve.saturated_from) == (2, 4)


# -- the page --------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>"


def figures(page: str) -> list[dict[str, Any]]:
    """The plots of a page, as its script reads them."""
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    return [json.loads(each) for each in found]


def test_a_sweeps_page_has_the_curves_with_their_knee_and_escapes_what_it_is_given() -> None:
    """Offline: everything is in it."""
    curve = msgspec.to_builtins(closed(8, [1, 2, 4, 8, 16]))
    value = {"text": EVIL, "status": "failed", "error": EVIL, "verdict": None, "reasons": []}
    page = sweep_page(
        {
            "profile": EVIL, "key": "concurrency", "target": EVIL, "values": [value],
            "curves": [{**curve, "label": EVIL}], "notes": [EVIL],
        }
    )  # fmt: skip
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page
    plots = {plot["layout"]["title"]["text"]: plot for plot in figures(page)}
    assert list(plots) == ["Throughput", "Requests", "TTFT", "ITL", "Power"]
    assert plots["Throughput"]["data"][0]["y"] == [8, 16, 32, 64, 64]
    for plot in plots.values():
        assert plot["data"][0]["x"] == [1, 2, 4, 8, 16]
        assert [shape["x0"] for shape in plot["layout"]["shapes"]] == [8, 16]
    ours = page.partition("<script>")[0]
    assert not re.search(r"(?:src|href)=", ours)


def test_a_sweep_of_no_load_has_a_table_of_its_values() -> None:
    """With a run that could not be made."""
    values = [
        {"text": "fp8", "status": "done", "verdict": "valid", "error": None, "reasons": [],
         "figures": {"output_tokens_per_s": 123.456}},
        {"text": "awq", "status": "failed", "verdict": None, "error": "no memory", "reasons": [],
         "figures": None},
    ]  # fmt: skip
    page = sweep_page(
        {
            "profile": "p", "key": "quantization", "target": "simulator", "values": values,
            "curves": [], "notes": [],
        }
    )  # fmt: skip
    assert "<th>fp8</th><td>valid</td><td>123.46</td>" in page
    assert "awq: no memory" in page
    assert figures(page) == []


def test_a_searchs_page_shows_the_share_at_each_load_with_its_interval() -> None:
    """By ascending load, whatever was tried first; and says what was found."""
    levels = [
        {"load": load, "state": state, "reason": EVIL, "runs": [{"requests": 50}] * 2,
         "intervals": [{"share": share, "low": share - 0.1, "high": min(1.0, share + 0.1)}]}
        for load, state, share in ((4.0, "pass", 1.0), (8.0, "fail", 0.5), (2.0, "pass", 1.0))
    ]  # fmt: skip
    search = {
        "profile": "p", "kind": "rate", "target": "http://h", "levels": levels, "notes": [],
        "slos": [{"name": "goodput", "share": 0.9}],
    }  # fmt: skip
    page = search_page(search, "4 requests/s met the targets", "requests/s")
    assert EVIL not in page
    assert "4 requests/s met the targets" in page
    assert "<td>50.00% (40.00% to 60.00%)</td><td>fail</td><td>2</td><td>100</td>" in page
    (plot,) = figures(page)
    assert plot["data"][0]["x"] == [2.0, 4.0, 8.0]
    assert plot["data"][0]["y"] == [1.0, 1.0, 0.5]
