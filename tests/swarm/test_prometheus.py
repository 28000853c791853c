"""Live figures for Prometheus: what a page says is what the rows say, in its format to the letter."""

from __future__ import annotations

import math
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.swarm.merging import Merged
from kvswarm.swarm.metrics_page import Now, RunNow, page
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.standing import SKETCHES

sys.path.insert(0, str(Path(__file__).parent))
from exposition import Samples, scrape, strict, value
from running import (
    CHECKOUT,
    KVSWARM,
    LOCUST,
    Run,
    forgiving,
    free_port,
    going,
    kvswarm,
    post,
    simulator,
    until,
)

LOCUSTFILE = CHECKOUT / "locustfiles" / "standard.py"
DROPPING = """\
extends: ./forgiving.yaml
name: dropping
pattern: constant
rate_rps: 200
requests: 40
concurrency: null
max_in_flight: 2
"""
WITHIN = 0.0101
"""The sketches' own error, and a little for what is rounded on the way."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.integers(0, 2**53)
latencies_us = st.lists(st.floats(1.0, 3.6e9), max_size=50)


@st.composite
def nows(draw: st.DrawFn) -> Now:
    """Any state that a process can be in, before its first run too."""
    if draw(st.booleans()):
        return Now(users=draw(numbers), workers=draw(numbers), run=None)
    names = [n for n in Counts.__struct_fields__ if isinstance(getattr(Counts(), n), int)]
    counts = Counts(
        by_error=draw(st.dictionaries(texts, numbers, max_size=5)),
        **{name: draw(numbers) for name in names},
    )
    sketches = {name: Sketch() for name in SKETCHES}
    for sketch in sketches.values():
        sketch.add(np.array(draw(latencies_us), dtype=np.float64))
    run = RunNow(
        run_id=draw(texts),
        profile=draw(texts),
        model=draw(texts),
        going_on=draw(st.booleans()),
        lost_workers=draw(numbers),
        merged=Merged(counts, sketches, {}),
    )
    return Now(users=draw(numbers), workers=draw(numbers), run=run)


def labelled(samples: Samples, name: str) -> dict[str, float]:
    """The samples of a name with one label, by its value."""
    return {
        next(iter(labels))[1]: number
        for (found, labels), number in samples.items()
        if found == name
    }


@given(now=nows())
def test_every_page_is_in_the_format_and_gives_back_what_it_was_made_of(now: Now) -> None:
    """A model may be called anything: quotes, line ends and backslashes must come back as such."""
    samples = strict(page(now).decode())
    assert value(samples, "kvswarm_users") == now.users
    assert value(samples, "kvswarm_workers") == now.workers
    if now.run is None:
        assert value(samples, "kvswarm_running") == 0
        return
    run, counts = now.run, now.run.merged.total
    assert value(samples, "kvswarm_running") == run.going_on
    named = {"run_id": run.run_id, "profile": run.profile, "model": run.model}
    assert value(samples, "kvswarm_run_info", **named) == 1
    assert labelled(samples, "kvswarm_requests_failed_total") == counts.by_error
    assert value(samples, "kvswarm_requests_started_total") == counts.started
    assert value(samples, "kvswarm_requests_ok_total") == counts.ok
    assert value(samples, "kvswarm_requests_cancelled_total") == counts.cancelled
    assert value(samples, "kvswarm_requests_in_flight") == counts.in_flight
    assert value(samples, "kvswarm_arrivals_dropped_total") == counts.dropped
    assert value(samples, "kvswarm_output_tokens_total") == counts.output_tokens
    assert value(samples, "kvswarm_token_events_total") == counts.token_events
    assert value(samples, "kvswarm_coalesced_events_total") == counts.coalesced
    for name in ("ttft", "itl", "tpot", "e2e"):
        sketch, family = run.merged.sketches[name], f"kvswarm_{name}_seconds"
        assert value(samples, f"{family}_count") == sketch.count
        for share in (0.5, 0.9, 0.99):
            seen_s, want_ms = value(samples, family, quantile=str(share)), sketch.quantile_ms(share)
            assert (seen_s is None) == (want_ms is None)
            assert seen_s is None or seen_s * 1000 == pytest.approx(want_ms)


def test_what_is_not_known_yet_has_no_sample() -> None:
    """A TTFT of 0 would look like a very fast server."""
    before = strict(page(Now(users=0, workers=1, run=None)).decode())
    assert not any(name.startswith("kvswarm_requests") for name, _ in before)
    empty = Merged(Counts(), {name: Sketch() for name in SKETCHES}, {})
    run = RunNow(run_id="a", profile="p", model="m", going_on=True, lost_workers=0, merged=empty)
    begun = strict(page(Now(users=1, workers=1, run=run)).decode())
    assert value(begun, "kvswarm_requests_started_total") == 0
    assert value(begun, "kvswarm_ttft_seconds_count") == 0
    assert value(begun, "kvswarm_ttft_seconds", quantile="0.5") is None
    assert value(begun, "kvswarm_generator_keeping_up") is None


def test_the_page_of_the_docs_has_a_row_for_every_metric_with_its_type() -> None:
    """And none for what is not served."""
    empty = Merged(Counts(), {name: Sketch() for name in SKETCHES}, {})
    run = RunNow(run_id="a", profile="p", model="m", going_on=True, lost_workers=0, merged=empty)
    text = page(Now(users=1, workers=1, run=run)).decode()
    served = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    docs = (CHECKOUT / "docs" / "metrics-live.md").read_text("utf-8")
    assert dict(re.findall(r"^\| `(kvswarm_\w+)` \| (\w+) \|", docs, re.MULTILINE)) == served


@pytest.mark.parametrize(
    ("lag_us", "coalesced", "keeps_up"), [(9e3, 10, 0), (9e3, 1, 1), (1e3, 10, 1)]
)
def test_a_generator_falls_behind_where_it_reads_late_and_that_hides_arrivals(
    lag_us: float, coalesced: int, keeps_up: int
) -> None:
    """Reading late harms nothing as long as each event's own arrival is known."""
    merged = Merged(
        Counts(token_events=100, coalesced=coalesced), {name: Sketch() for name in SKETCHES}, {}
    )
    merged.sketches["read_lag"].add(np.array([lag_us]))
    run = RunNow(run_id="a", profile="p", model="m", going_on=True, lost_workers=0, merged=merged)
    samples = strict(page(Now(users=1, workers=1, run=run)).decode())
    assert value(samples, "kvswarm_generator_keeping_up") == keeps_up
    lag_s = value(samples, "kvswarm_generator_read_lag_p99_seconds")
    assert lag_s == pytest.approx(lag_us / 1e6, rel=WITHIN)


@given(values_us=st.lists(st.floats(1.0, 3.6e9), min_size=1, max_size=100))
def test_the_sum_of_a_sketch_is_within_one_percent_of_the_exact_one(values_us: list[float]) -> None:
    """The mean over a window is a rate of sums over one of counts."""
    sketch = Sketch()
    sketch.add(np.array(values_us))
    assert sketch.count == len(values_us)
    assert sketch.sum_s() == pytest.approx(math.fsum(values_us) / 1e6, rel=WITHIN)


# -- a whole run -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failing_url() -> Iterator[str]:
    """A simulator of fixed times that fails three requests of ten."""
    with simulator("--exact", "20", "2", "--fault", "status-500", "--fault-share", "0.3") as url:
        yield url


def check_against_rows(samples: Samples, rows: list[dict[str, Any]]) -> None:
    """The last page of a run is of the same requests as its table."""
    passed = [row for row in rows if row["error_kind"] is None]
    failed = [row["error_kind"] for row in rows if row["error_kind"] not in {None, "cancelled"}]
    assert value(samples, "kvswarm_requests_started_total") == len(rows)
    assert value(samples, "kvswarm_requests_ok_total") == len(passed)
    assert labelled(samples, "kvswarm_requests_failed_total") == {
        kind: failed.count(kind) for kind in failed
    }
    assert value(samples, "kvswarm_requests_in_flight") == 0
    tokens = sum(row["completion_tokens"] for row in passed)
    assert value(samples, "kvswarm_output_tokens_total") == tokens
    for name in ("ttft", "tpot", "e2e"):
        exact_s = sorted(row[f"{name}_ms"] / 1000 for row in passed)
        check_summary(samples, name, exact_s)
    check_summary(samples, "itl", sorted(us / 1e6 for row in passed for us in row["itl_us"]))


def check_summary(samples: Samples, name: str, exact_s: list[float]) -> None:
    """A summary holds the count, the sum and the quantiles (nearest rank) of these values."""
    family = f"kvswarm_{name}_seconds"
    assert value(samples, f"{family}_count") == len(exact_s)
    exact_s = [
        max(value_s, 1e-6) for value_s in exact_s
    ]  # a gap of 0 is shown as the least there is
    assert value(samples, f"{family}_sum") == pytest.approx(math.fsum(exact_s), rel=WITHIN)
    for share in (0.5, 0.9, 0.99):
        want_s = exact_s[math.ceil(share * len(exact_s)) - 1]
        assert value(samples, family, quantile=str(share)) == pytest.approx(want_s, rel=WITHIN)


def test_the_page_of_a_web_ui_tells_of_each_run_what_its_rows_tell(
    failing_url: str, tmp_path: Path
) -> None:
    """Nothing before the first run, then its figures to the last row, then those of the next."""
    forgiving(tmp_path)
    (tmp_path / "dropping.yaml").write_text(DROPPING)
    with going(
        *LOCUST, "-f", LOCUSTFILE, "--host", failing_url, "--web-host", "127.0.0.1",
        "--web-port", "0", "--kv-profile", "./dropping.yaml", cwd=tmp_path,
    ) as locust:  # fmt: skip
        address = locust.address()
        before = scrape(f"{address}/llm/metrics")
        asked = "user_count=4&spawn_rate=4&kv_requests=60&kv_max_tokens=5"
        post(f"{address}/swarm", f"{asked}&kv_profile=standard")
        first = ended_run(tmp_path, 1)
        after_first = scrape(f"{address}/llm/metrics")
        post(
            f"{address}/swarm",
            "user_count=1&spawn_rate=1&kv_profile=./dropping.yaml&kv_requests=&kv_max_tokens=",
        )
        second = ended_run(tmp_path, 2)
        after_second = scrape(f"{address}/llm/metrics")
        locust.end(signal.SIGTERM)
    assert not any(name.endswith("_total") for name, _ in before)
    assert (value(before, "kvswarm_running"), value(before, "kvswarm_workers")) == (0, 1)
    check_against_rows(after_first, first.rows)
    assert labelled(after_first, "kvswarm_requests_failed_total").keys() == {"http_500"}
    assert value(after_first, "kvswarm_running") == 0
    check_against_rows(after_second, second.rows)
    dropped = second.info["workers"][0]["dropped_arrivals"]
    assert 0 < dropped == value(after_second, "kvswarm_arrivals_dropped_total")
    for run, samples in ((first, after_first), (second, after_second)):
        assert named_run(samples) == {
            "run_id": run.info["run_id"],
            "profile": run.info["profile"]["name"],
            "model": "sim",
        }


def ended_run(folder: Path, number: int) -> Run:
    """The run that ended last, once there are so many."""
    until(lambda: len(list(folder.glob("runs/*/summary.json"))) == number, f"run {number} ends")
    return Run(max((folder / "runs").glob("*"), key=lambda path: path.stat().st_ctime_ns))


def named_run(samples: Samples) -> dict[str, str]:
    """The labels of kvswarm_run_info."""
    (labels,) = [dict(labels) for name, labels in samples if name == "kvswarm_run_info"]
    return labels


def test_without_a_web_ui_the_figures_of_all_processes_are_at_the_metrics_port(
    failing_url: str, tmp_path: Path
) -> None:
    """While the run goes on; and a counter never falls, or Prometheus would see a new process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/llm/metrics"
    with going(
        *KVSWARM, "run", "--url", failing_url, "--profile", forgiving(tmp_path),
        "--requests", "1000000", "--concurrency", "6", "--processes", "2",
        "--metrics-port", str(port), "--out", tmp_path / "run", cwd=tmp_path,
    ) as run:  # fmt: skip
        pages: list[Samples] = []

        def far_enough() -> bool:
            try:
                pages.append(scrape(url))
            except urllib.error.URLError:  # it does not listen yet
                return False
            return (value(pages[-1], "kvswarm_ttft_seconds_count") or 0) > 50

        until(far_enough, "50 requests have ended")
        (master, *_) = run.locusts()
        listening = {s.laddr.ip for s in master.net_connections() if s.laddr.port == port}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/elsewhere", timeout=30)
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(url, b"a form", timeout=30)
        done = run.end(signal.SIGTERM)
    assert done.code == 130, done.err
    assert listening == {"127.0.0.1"}
    last = pages[-1]
    assert value(last, "kvswarm_running") == 1
    assert value(last, "kvswarm_workers") == 2
    assert value(last, "kvswarm_workers_lost") == 0
    assert value(last, "kvswarm_users") == 6
    assert 1 <= (value(last, "kvswarm_requests_in_flight") or 0) <= 6
    assert labelled(last, "kvswarm_requests_failed_total").keys() == {"http_500"}
    assert (value(last, "kvswarm_ttft_seconds", quantile="0.5") or 0) >= 0.02
    series = {key for samples in pages for key in samples}
    for name, labels in series:
        if name.endswith(("_total", "_sum", "_count")):
            seen = [samples[name, labels] for samples in pages if (name, labels) in samples]
            assert seen == sorted(seen), name


@pytest.fixture
def taken() -> Iterator[str]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def test_a_metrics_port_that_is_taken_is_told_before_anything_is_made(
    taken: str, tmp_path: Path
) -> None:
    """A dashboard that stays empty would be found out too late."""
    done = kvswarm("run", "--metrics-port", taken, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.code == 2, done.err
    assert f"--metrics-port {taken} on 127.0.0.1" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one", "two"])
def test_plain_locust_ends_with_its_workers_where_the_metrics_port_is_taken(
    processes: tuple[str, ...], taken: str, tmp_path: Path
) -> None:
    """Workers that nobody tells to leave would wait for a minute."""
    port = str(free_port())
    with going(
        *LOCUST, "-f", LOCUSTFILE, "--headless", "--host", "http://127.0.0.1:9", *processes,
        "--master-port", port, "--master-bind-port", port, "--kv-metrics-port", taken,
        cwd=tmp_path,
    ) as locust:  # fmt: skip
        ended = locust.end()
    assert ended.code == 2, ended.err
    assert f"--metrics-port {taken} on 127.0.0.1" in ended.err
    assert "heartbeat" not in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--metrics-port", "70000"), "--metrics-port 70000"),
        (("--metrics-port", "-1"), "--metrics-port -1"),
        (("--metrics-host", "127.0.0.1"), "--metrics-host 127.0.0.1: there is no port"),
        (("--metrics-port", "0", "--metrics-host", "192.0.2.1"), "0 on 192.0.2.1: cannot listen"),
    ],
)
def test_a_metrics_address_that_makes_no_sense_is_told(
    arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    """With what is wrong and what to do, and without a traceback."""
    done = kvswarm("run", *arguments, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.code == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()
