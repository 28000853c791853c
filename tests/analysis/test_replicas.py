"""Cold start and scaling: figures from a planted cluster.jsonl beside planted requests."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.finish import finish
from kvswarm.analysis.replica_lines import replica_lines
from kvswarm.analysis.scale_ups import load_rises_s, recovered_ns
from kvswarm.analysis.steps import Steps, total
from kvswarm.clusterlog import (
    AnyEntry,
    AwayEntry,
    ClockEntry,
    LogWriter,
    NoteEntry,
    PodEntry,
    ServiceEntry,
    WantedEntry,
    read_log,
)
from kvswarm.errors import RunDirError
from kvswarm.profiles.model import Load, Stage
from kvswarm.records import Record
from kvswarm.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import MS, START_NS, S, failed, good, profile, run_info, unsent, write_run

STEPS = ("created", "scheduled", "initialized", "started", "ready")
OLD_S = (-90.3, -89.6, -60.1, -40.0, -20.9)
BEGUN = ServiceEntry(time_ns=START_NS - 2 * S, namespace="llm", service="qwen")
BURSTS = {
    "pattern": "bursty", "open_loop": True, "requests": 100, "concurrency": None, "rate_rps": 20.0,
    "on_s": 5.0, "off_s": 10.0, "off_rate_rps": 1.0,
}  # fmt: skip


def at(seconds: float) -> int:
    """A moment, from the begin of the load on."""
    return START_NS + round(seconds * S)


def whole(seconds: float) -> int:
    """The same as a cluster stamps it: without the fraction."""
    return at(seconds) // S * S


def life(name: str, *moments_s: float, ended_s: float | None = None) -> list[PodEntry]:
    """The lines of a pod that reached the steps at these moments, each seen 3 ms after it."""
    lines: list[PodEntry] = []
    stamps: dict[str, Any] = {}
    for step, moment_s in zip(STEPS, moments_s, strict=False):
        stamps[f"{step}_ns"] = whole(moment_s)
        lines.append(
            PodEntry(
                time_ns=at(moment_s) + 3 * MS, pod=name, uid=f"uid-{name}", ready=step == "ready",
                phase="Running" if step in {"started", "ready"} else "Pending", node="n1", **stamps,
            )
        )  # fmt: skip
    if ended_s is not None:
        stamps.pop("ready_ns", None)
        last = {"pod": name, "uid": f"uid-{name}", "phase": "Running", "node": "n1", **stamps}
        lines.append(PodEntry(time_ns=at(ended_s), deleting=True, **last))
        lines.append(PodEntry(time_ns=at(ended_s + 1), deleting=True, deleted=True, **last))
    return lines


def old_pod(name: str, ahead_s: int = 0) -> PodEntry:
    """The line of a pod that reached the steps at OLD_S and is found ready, just before the load.

    `ahead_s`: how far the cluster's clock is ahead.
    """
    stamps: dict[str, Any] = {
        f"{step}_ns": whole(s + ahead_s) for step, s in zip(STEPS, OLD_S, strict=True)
    }
    return PodEntry(
        time_ns=at(-1.9), pod=name, uid=f"uid-{name}", phase="Running", node="n1", ready=True,
        listed=True, **stamps,
    )  # fmt: skip


def wanted(seconds: float, replicas: int | None, deployment: str = "qwen-predictor") -> WantedEntry:
    return WantedEntry(time_ns=at(seconds), deployment=deployment, replicas=replicas)


def write_log(run: RunDir, entries: Sequence[AnyEntry]) -> None:
    """As the recorder writes it: in the order in which things were seen."""
    writer = LogWriter(run.cluster_log, pytest.fail)
    for entry in sorted(entries, key=lambda entry: entry.time_ns):
        writer.append(entry)
    writer.close()


def replicas_of(
    folder: Path, records: Sequence[Record], entries: Sequence[AnyEntry], **changes: Any
) -> dict[str, Any]:
    """The section, from files and through summary.json and its schema."""
    run = write_run(folder, [records], run_info(profile(**changes)))
    write_log(run, [BEGUN, *entries])
    finish(folder)
    section: dict[str, Any] = json.loads(run.summary.read_text())["replicas"]
    return section


def steady(
    first: int, begin_s: float, end_s: float, ttft_ms: float, **changes: Any
) -> list[Record]:
    """Requests every 100 ms from one moment up to before another."""
    count = round((end_s - begin_s) * 10)
    return [
        good(first + k, at_ms=begin_s * 1e3 + 100 * k, ttft_ms=ttft_ms, **changes)
        for k in range(count)
    ]


def held(first: int, begin_s: float, until_s: float) -> list[Record]:
    """Requests every 100 ms that are held until a moment, and then answered at once."""
    count = round((until_s - begin_s) * 10)
    return [
        good(first + k, at_ms=begin_s * 1e3 + 100 * k, ttft_ms=(until_s - begin_s) * 1e3 - 100 * k)
        for k in range(count)
    ]


FROM_ZERO = [wanted(-1.9, 0), wanted(0.4, 1), *life("a", 0.5, 0.6, 2.5, 4.0, 6.2)]


def test_a_run_without_a_log_has_no_section(tmp_path: Path) -> None:
    """A server that is no service of a cluster has no pods to tell of."""
    write_run(tmp_path, [[good(0)]])
    assert finish(tmp_path)["replicas"] is None
    assert "Cold start" not in (tmp_path / "report.html").read_text()


def test_a_start_from_zero_has_its_steps_and_its_cold_requests(tmp_path: Path) -> None:
    """Each figure equals what was planted, to the 3 ms in which each change was seen."""
    records = [*held(0, 0.0, 6.2), *steady(62, 6.3, 30.0, 100.0)]
    section = replicas_of(tmp_path, records, FROM_ZERO, slo={"ttft_ms": 500.0})
    assert section["time_to_first_ready_s"] == pytest.approx(6.203, abs=1e-6)
    (up,) = section["scale_ups"]
    assert (up["from_replicas"], up["to_replicas"], up["rise_s"]) == (0, 1, 0.0)
    found = [up[f"{name}_s"] for name in ("wanted", *STEPS, "all_ready")]
    assert found == pytest.approx([0.4, 0.503, 0.603, 2.503, 4.003, 6.203, 6.203], abs=1e-6)
    sets = section["requests"]
    assert [sets[name]["sent"] for name in ("cold", "scaling", "warm")] == [62, 0, 237]
    assert sets["cold"]["ttft_ms"]["max"] == pytest.approx(6200)
    assert sets["warm"]["ttft_ms"]["p50"] == pytest.approx(100)
    # Held until 6.2 s: those that came at 5.7 s or later waited for 500 ms or less.
    assert section["slo_recovered_s"] == pytest.approx(5.7, abs=1e-6)
    assert section["cold_multiplier"]["ratio"] == pytest.approx(
        np.sqrt(3100 * 3200) / 100, rel=0.01
    )
    assert section["scaling_multiplier"] is None


def test_a_refused_request_is_cold_and_an_error(tmp_path: Path) -> None:
    """A server that is not there yet has no TTFT: the share of errors tells of it."""
    refused = [unsent(k, at_ms=100 * k) for k in range(62)]
    section = replicas_of(
        tmp_path, [*refused, *steady(62, 6.3, 30.0, 100.0)], FROM_ZERO, slo={"ttft_ms": 500.0}
    )
    assert section["requests"]["cold"]["error_share"] == 1.0
    assert section["requests"]["cold"]["ttft_ms"]["count"] == 0
    assert section["requests"]["warm"]["error_share"] == 0.0
    assert section["cold_multiplier"] is None
    assert section["slo_recovered_s"] == pytest.approx(6.3, abs=1e-6)


def test_a_scale_up_in_a_burst_counts_from_that_burst(tmp_path: Path) -> None:
    """Requests from its rise until all are ready are scaling; the first burst's are not."""
    entries = [
        wanted(-1.9, 1), old_pod("a"), wanted(16.0, 3),
        *life("b", 16.1, 16.2, 16.3, 17.0, 18.0), *life("c", 16.1, 16.2, 16.3, 17.0, 19.0),
    ]  # fmt: skip
    records = [*steady(0, 0.0, 15.0, 100.0), *steady(150, 15.0, 19.0, 900.0),
               *steady(190, 19.1, 29.0, 100.0)]  # fmt: skip
    section = replicas_of(tmp_path, records, entries, load=BURSTS, slo={"ttft_ms": 500.0})
    (up,) = section["scale_ups"]
    assert up["rise_s"] == pytest.approx(15.0, abs=1e-6)
    assert (up["from_replicas"], up["to_replicas"]) == (1, 3)
    assert up["wanted_s"] == pytest.approx(1.0, abs=1e-6)
    assert up["ready_s"] == pytest.approx(3.003, abs=1e-6)
    assert up["all_ready_s"] == pytest.approx(4.003, abs=1e-6)
    assert up["slo_recovered_s"] == pytest.approx(4.1, abs=1e-6)
    assert section["time_to_first_ready_s"] is None
    sets = {name: each["sent"] for name, each in section["requests"].items()}
    assert sets == {"cold": 0, "scaling": 40, "warm": 150 + 99}
    assert section["scaling_multiplier"]["ratio"] == pytest.approx(9.0)
    assert section["scaling_multiplier"]["low"] == pytest.approx(9.0)
    assert [each["at_s"] for each in section["rises"]] == pytest.approx([0, 15])


def test_a_scale_up_that_never_ends_well_says_so(tmp_path: Path) -> None:
    """A cluster that has no node left must not look like one that scaled."""
    pending = PodEntry(
        time_ns=at(2.1), pod="b", uid="b", phase="Pending", created_ns=whole(2.1),
        reason="Unschedulable",
    )  # fmt: skip
    entries = [wanted(-1.9, 1), old_pod("a"), wanted(2.0, 2), pending]
    section = replicas_of(tmp_path, steady(0, 0.0, 10.0, 100.0), entries)
    (up,) = section["scale_ups"]
    assert up["created_s"] == pytest.approx(2.1, abs=1e-6)
    assert up["scheduled_s"] is up["ready_s"] is up["all_ready_s"] is None
    assert section["pods"][1]["reason"] == "Unschedulable"
    assert section["requests"]["scaling"]["sent"] == 100


def test_a_scale_up_that_was_taken_back_is_not_all_ready(tmp_path: Path) -> None:
    """Fewer wanted again is an end, and no success."""
    entries = [wanted(-1.9, 1), old_pod("a"), wanted(2.0, 2), wanted(4.0, 1)]
    section = replicas_of(tmp_path, steady(0, 0.0, 10.0, 100.0), entries)
    (up,) = section["scale_ups"]
    assert up["all_ready_s"] is None
    assert section["requests"]["scaling"]["sent"] == 40


def test_a_pod_that_is_replaced_is_no_scale_up(tmp_path: Path) -> None:
    """No more were wanted than before; who came while none was ready is cold all the same."""
    entries = [
        wanted(-1.9, 1), old_pod("a"), *life("a", *OLD_S, ended_s=3.0)[-2:],
        *life("b", 3.1, 3.2, 3.3, 3.4, 5.0),
    ]  # fmt: skip
    section = replicas_of(tmp_path, steady(0, 0.0, 10.0, 100.0), entries)
    assert section["scale_ups"] == []
    assert section["requests"]["cold"]["sent"] == 21
    assert section["pods"][0]["deleted_s"] == pytest.approx(4.0, abs=1e-6)
    states = [(each["there"], each["ready"]) for each in section["series"]]
    assert states == [(1, 0), (1, 1), (1, 1), (0, 0), (1, 0), (1, 1)]  # the third: wanted is told


def test_without_deployments_the_pods_stand_in(tmp_path: Path) -> None:
    """A user who may not list deployments still sees a start from zero."""
    begun = ServiceEntry(time_ns=at(-2), namespace="llm", service="qwen", wanted_known=False)
    run = write_run(tmp_path, [steady(0, 0.0, 10.0, 100.0)])
    write_log(run, [begun, *life("a", 0.5, 0.6, 2.5, 4.0, 6.2)])
    section = finish(tmp_path)["replicas"]
    (up,) = section["scale_ups"]
    assert up["wanted_s"] == up["created_s"] == pytest.approx(0.503, abs=1e-6)
    assert section["series"][0]["wanted"] is None


def test_without_pods_nothing_is_called_cold(tmp_path: Path) -> None:
    """No line of a pod means none only where pods could be listed."""
    begun = ServiceEntry(time_ns=at(-2), namespace="llm", service="qwen", pods_known=False)
    run = write_run(tmp_path, [steady(0, 0.0, 10.0, 100.0)])
    write_log(run, [begun, wanted(-1.9, 1), NoteEntry(time_ns=at(-1.8), text="may not list pods")])
    section = finish(tmp_path)["replicas"]
    assert section["requests"] is section["cold_multiplier"] is None
    assert section["time_to_first_ready_s"] is None
    assert section["scale_ups"] == []
    assert "may not list pods" in section["notes"]
    assert "may not list pods" in (tmp_path / "report.html").read_text()


def test_what_was_found_done_has_the_pods_stamp_by_the_api_servers_clock(tmp_path: Path) -> None:
    """The moment of finding would make an old pod look new; its clock is 40 s ahead here."""
    ahead = ClockEntry(time_ns=at(-1.5), least_ns=40 * S - 5 * MS, most_ns=40 * S + 5 * MS)
    found = old_pod("a", ahead_s=40)
    section = replicas_of(tmp_path, [good(0)], [found, ahead])
    (pod,) = section["pods"]
    assert pod["stamped"] == list(STEPS)
    for step, planted_s in zip(STEPS, OLD_S, strict=True):
        assert pod[f"{step}_s"] == pytest.approx(planted_s, abs=0.5)
    assert section["clock"] == pytest.approx({"ahead_least_ms": 39995, "ahead_most_ms": 40005})


def test_what_changed_while_the_api_server_was_away_has_the_pods_stamp(tmp_path: Path) -> None:
    """It was seen 20 s late, and must not be told as having come then."""
    entries = [wanted(-1.9, 0), wanted(0.4, 1), *life("a", 0.5, 0.6, 2.5, 4.0)]
    late = PodEntry(
        time_ns=at(29.0), pod="a", uid="uid-a", phase="Running", ready=True, node="n1",
        created_ns=whole(0.5), scheduled_ns=whole(0.6), initialized_ns=whole(2.5),
        started_ns=whole(4.0), ready_ns=whole(9.0),
    )  # fmt: skip
    away = AwayEntry(time_ns=at(28.0), since_ns=at(5.0))
    section = replicas_of(tmp_path, steady(0, 0.0, 30.0, 100.0), [*entries, late, away])
    assert section["time_to_first_ready_s"] == pytest.approx(9.0, abs=0.5)
    assert section["pods"][0]["stamped"] == ["ready"]
    assert any("did not answer for 23.0 s" in note for note in section["notes"])


def test_a_line_cut_off_by_a_kill_costs_nothing_but_itself(tmp_path: Path) -> None:
    """The file is written line by line; a damaged one in the middle is told."""
    run = write_run(tmp_path, [steady(0, 0.0, 10.0, 100.0)])
    write_log(run, [BEGUN, *FROM_ZERO])
    lines = run.cluster_log.read_bytes().splitlines(keepends=True)
    run.cluster_log.write_bytes(b"".join([*lines[:4], b"{broken\n", *lines[4:], lines[-1][:20]]))
    section = finish(tmp_path)["replicas"]
    assert section["time_to_first_ready_s"] == pytest.approx(6.203, abs=1e-6)
    assert section["notes"][-1] == "cluster.jsonl: 1 lines cannot be read and are left out"


def test_a_log_of_another_version_is_refused(tmp_path: Path) -> None:
    """Its lines may mean something else."""
    run = write_run(tmp_path, [[good(0)]])
    run.cluster_log.write_text('{"kind":"service","time_ns":1,"schema_version":2,'
                               '"namespace":"a","service":"b"}\n')  # fmt: skip
    with pytest.raises(RunDirError, match="schema_version 2, this kvswarm reads 1"):
        finish(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Of every kind of line, in their order."""
    entries: list[AnyEntry] = [
        BEGUN, *FROM_ZERO, ClockEntry(time_ns=1, least_ns=-5, most_ns=5),
        AwayEntry(time_ns=9, since_ns=2), NoteEntry(time_ns=3, text="ä"), wanted(9, None),
    ]  # fmt: skip
    writer = LogWriter(tmp_path / "cluster.jsonl", pytest.fail)
    for entry in entries:
        writer.append(entry)
    writer.close()
    log = read_log(tmp_path / "cluster.jsonl")
    assert log is not None
    assert log.entries == entries


def test_terminal_and_page_tell_of_a_cold_start(tmp_path: Path) -> None:
    """The same lines in both, and in the page all pods, escaped."""
    pods = life("<a>", 0.5, 0.6, 2.5, 4.0, 6.2)
    records = [
        *held(0, 0.0, 6.2),
        failed(62, "http_503", at_ms=6250),
        *steady(63, 6.3, 30.0, 100.0),
    ]
    section = replicas_of(
        tmp_path, records, [wanted(-1.9, 0), wanted(0.4, 1), *pods], slo={"ttft_ms": 500.0}
    )
    lines = list(replica_lines(section))
    assert "no replica was ready at first; the first was after 6.20 s" in lines
    assert "95% in SLO: 5.70 s after the load rose" in lines
    page = (tmp_path / "report.html").read_text()
    assert all(html.escape(line) in page for line in lines)
    assert "&lt;a&gt;" in page
    assert "<th><a></th>" not in page
    assert 'id="plotreplicas"' in page
    assert "loads its model" in page


CHANGES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=8).map(sorted)


@given(st.lists(CHANGES, max_size=4), st.integers(-1, 60))
def test_a_total_is_the_sum_at_every_moment(
    groups: list[list[tuple[int, int]]], at_ns: int
) -> None:
    """Whatever changes when, and also where two change at once."""

    def value(changes: list[tuple[int, int]]) -> int:
        return ([0] + [new for moment, new in changes if moment <= at_ns])[-1]

    assert total([Steps.of(each) for each in groups]).at(at_ns) == sum(map(value, groups))


@given(
    st.lists(st.integers(0, 60_000), min_size=1, max_size=60).map(sorted),
    st.integers(0, 2**60 - 1),
    st.integers(0, 40_000),
    st.sampled_from([0.5, 0.9, 1.0]),
)
def test_recovery_is_the_first_request_that_a_slow_search_finds(
    times_ms: list[int], bits: int, begin_ms: int, target: float
) -> None:
    """By its definition in docs/metrics.md, word by word."""
    times = np.array(times_ms, dtype=float) * MS
    met = np.array([bool(bits >> k & 1) for k in range(len(times))])
    end_ms = begin_ms + 30_000
    span = [k for k, ms in enumerate(times_ms) if begin_ms <= ms < end_ms]
    planted = None
    for place, k in enumerate(span):
        window = [j for j in span[place:] if times_ms[j] < times_ms[k] + 10_000]
        window = max(window, span[place : place + 20], key=len)
        if met[k] and len(window) >= 5 and sum(met[window]) >= target * len(window) - 1e-9:
            planted = times_ms[k] * MS
            break
    assert recovered_ns(times, met, (begin_ms * MS, end_ms * MS), target) == planted


def test_the_load_rises_with_each_burst_and_each_higher_stage() -> None:
    """And not with a stage that is lower, nor after the end."""
    assert load_rises_s(Load(**BURSTS), 31.0) == [15.0, 30.0]
    assert load_rises_s(Load(**BURSTS), 15.0) == []
    stages = tuple(Stage(duration_s=10.0, concurrency=users) for users in (4, 1, 4, 8))
    assert load_rises_s(Load(pattern="stages", open_loop=False, stages=stages), 99.0) == [
        20.0,
        30.0,
    ]
