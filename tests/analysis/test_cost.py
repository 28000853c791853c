"""What a run cost: planted machines, prices, requests, and figures that a person can check by hand."""

from __future__ import annotations

import html
import io
import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kvswarm.analysis.cost import Counted, busy_ns
from kvswarm.analysis.cost_basis import CostBasis, write_basis
from kvswarm.analysis.cost_lines import usd
from kvswarm.analysis.finish import finish
from kvswarm.analysis.gates import exit_code
from kvswarm.analysis.terminal import render
from kvswarm.clusterlog import AnyEntry, LogWriter, PodEntry, ServiceEntry
from kvswarm.errors import RunDirError
from kvswarm.records import Record
from kvswarm.rundir import RunInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, S, failed, good, run_info, timed_profile, write_run
from serverpages import fixture, run_with_pages, with_values, without

H100 = CostBasis(
    gpu="H100", gpus_per_replica=2, replicas=3, replicas_given=True, gpu_hour_usd=6.0,
    overhead_share=0.1,
)  # fmt: skip
"""3 x 2 x 6 $, and a tenth: 39.6 $ an hour, which is 0.11 $ in ten seconds."""
TEN_S = timed_profile(10.0)
ROWS = [good(i, at_ms=1000.0 * i + 500) for i in range(10)]
"""Ten requests in ten seconds, of 16 tokens in and 4 out, in flight for 131 ms each."""


def finished(
    folder: Path,
    basis: CostBasis | None,
    rows: Sequence[Record] = ROWS,
    info: RunInfo | None = None,
    *,
    log: Sequence[AnyEntry] = (),
) -> dict[str, Any]:
    """The summary of a run, by way of its files and its schema."""
    run = write_run(folder, [rows], info or run_info(TEN_S))
    if basis is not None:
        write_basis(run, basis)
    if log:
        writer = LogWriter(run.cluster_log, pytest.fail)
        for entry in log:
            writer.append(entry)
        writer.close()
    return finish(folder)


def test_every_figure_is_the_cost_of_the_window_by_what_was_done_in_it(tmp_path: Path) -> None:
    """0.11 $ for ten requests, 160 tokens in and 40 out."""
    cost = finished(tmp_path, H100)["cost"]
    assert cost["per_hour_usd"] == pytest.approx(39.6)
    assert cost["window_usd"] == pytest.approx(0.11)
    assert cost["per_request_usd"] == cost["per_successful_request_usd"] == pytest.approx(0.011)
    assert cost["per_1k_input_tokens_usd"] == pytest.approx(0.11 / 0.160)
    assert cost["per_million_input_tokens_usd"] == pytest.approx(0.11 / 160e-6)
    assert cost["per_1k_output_tokens_usd"] == pytest.approx(0.11 / 0.040)
    assert cost["per_million_output_tokens_usd"] == pytest.approx(0.11 / 40e-6)
    assert cost["per_million_tokens_usd"] == pytest.approx(0.11 / 200e-6)
    assert (cost["replicas_mean"], cost["replicas_by"]) == (3.0, "given")
    assert cost["gpu_hours"] == pytest.approx(6 * 10 / 3600)
    assert cost["notes"] == []


def test_what_failed_is_paid_for_by_what_succeeded(tmp_path: Path) -> None:
    """Half of the requests failed: a success costs twice what a request does."""
    rows = [*ROWS, *(failed(10 + i, "http_500", at_ms=1000.0 * i) for i in range(9))]
    rows.append(failed(19, "cancelled", at_ms=5000.0))
    cost = finished(tmp_path, H100, rows)["cost"]
    assert cost["per_successful_request_usd"] == pytest.approx(0.011)
    assert cost["per_request_usd"] == pytest.approx(0.11 / 19)


def test_a_valid_and_a_good_answer_bear_the_others(tmp_path: Path) -> None:
    """Of ten answers four are valid, and five came in time."""
    rows = [
        good(i, at_ms=1000.0 * i, ttft_ms=100.0 if i < 5 else 300.0, output_valid=i % 5 < 2,
             output_score="valid" if i % 5 < 2 else "invalid")
        for i in range(10)
    ]  # fmt: skip
    info = run_info(timed_profile(10.0, slo={"ttft_ms": 200.0}))
    cost = finished(tmp_path, H100, rows, info)["cost"]
    assert cost["per_valid_answer_usd"] == pytest.approx(0.11 / 4)
    assert cost["per_good_request_usd"] == pytest.approx(0.11 / 2)


def test_answers_that_nobody_checked_have_no_price_of_a_valid_one(tmp_path: Path) -> None:
    """Missing is null, never 0."""
    assert finished(tmp_path, H100)["cost"]["per_valid_answer_usd"] is None


@pytest.mark.parametrize(
    ("changes", "hour_usd"),
    [
        ({}, 13.2),
        ({"cpu_core_hour_usd": 0.05, "cpus_per_replica": 8.0}, (12 + 0.4) * 1.1),
        ({"cpu_core_hour_usd": 0.05, "cpus_per_replica": 8.0, "memory_gib_hour_usd": 0.01,
          "memory_gib_per_replica": 64.0}, (12 + 0.4 + 0.64) * 1.1),
        ({"gpus_per_replica": 0, "cpu_core_hour_usd": 0.05, "cpus_per_replica": 8.0}, 0.44),
    ],
    ids=["gpus", "and cores", "and memory", "no gpu"],
)  # fmt: skip
def test_a_replica_costs_what_its_parts_do(
    tmp_path: Path, changes: dict[str, Any], hour_usd: float
) -> None:
    """And the overhead on top."""
    basis = CostBasis(**{**{n: getattr(H100, n) for n in H100.__struct_fields__}, **changes})
    assert basis.replica_hour_usd == pytest.approx(hour_usd)
    assert finished(tmp_path, basis)["cost"]["per_hour_usd"] == pytest.approx(3 * hour_usd)


@pytest.mark.parametrize(
    ("basis", "told"),
    [
        (CostBasis(), "--gpus N"),
        (CostBasis(gpus_per_replica=1, replicas=1), "which: --gpu NAME; the price of a GPU"),
        (CostBasis(gpus_per_replica=1, gpu_hour_usd=1.0), "how many replicas ran: --replicas R"),
        (CostBasis(gpus_per_replica=0, replicas=1), "cpu_core_hour_usd in --prices; the cores"),
        (CostBasis(gpus_per_replica=1, gpu_hour_usd=1.0, replicas=1, memory_gib_hour_usd=1.0),
         "memory_gib in --prices"),
        (CostBasis(gpus_per_replica=1, gpu_hour_usd=1.0, replicas=1, cpu_core_hour_usd=1.0),
         "cpus in --prices"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_no_cost_and_a_note_of_what_to_give(
    tmp_path: Path, basis: CostBasis, told: str
) -> None:
    """A part that were left out would make a cost that is too low."""
    summary = finished(tmp_path, basis)
    cost = summary["cost"]
    figures = {name: cost[name] for name in cost if name.startswith(("per_", "window", "idle_usd"))}
    assert len(figures) == 13
    assert set(figures.values()) == {None}
    assert cost["notes"][-1].startswith("no cost: give ")
    assert told in cost["notes"][-1]
    assert html.escape(cost["notes"][-1]) in (tmp_path / "report.html").read_text()
    assert told in shown(summary)


def test_a_run_of_which_nothing_is_known_has_no_section(tmp_path: Path) -> None:
    """Such as one at a URL: nobody asked."""
    summary = finished(tmp_path, None)
    assert summary["cost"] is summary["energy"] is None
    assert "<h2>Cost</h2>" not in (tmp_path / "report.html").read_text()


def test_a_run_without_a_success_has_no_cost_per_anything(tmp_path: Path) -> None:
    """One that ends by time has cost something all the same; another has no window."""
    rows = [failed(i, "http_500", at_ms=100.0 * i) for i in range(3)]
    assert finished(tmp_path / "requests", H100, rows, run_info())["cost"] is None
    for name, some in (("failed", rows), ("none", [])):
        cost = finished(tmp_path / name, H100, some)["cost"]
        assert cost["window_usd"] == pytest.approx(0.11)
        assert cost["per_request_usd"] is cost["per_million_tokens_usd"] is None


def test_small_amounts_keep_digits_that_say_something() -> None:
    """A request may cost a thousandth of a cent."""
    amounts = (0.0000123456, 0.0999, 1.0, 12.345, 12345.678, 0.0, None)
    assert [usd(each) for each in amounts] == [
        "$0.00001235", "$0.09990", "$1.00", "$12.35", "$12,345.68", "$0.00", "-",
    ]  # fmt: skip


# -- replicas over time --------------------------------------------------------------------------


def life(
    name: str, scheduled_s: float | None, deleted_s: float | None = None, phase: str = "Running"
) -> list[PodEntry]:
    """A pod that got its node at a moment, as it was seen then, and is gone at another."""
    stamps = {"created_ns": START_NS - 60 * S}
    common = {"pod": name, "uid": f"uid-{name}", "phase": phase}
    first = START_NS + round((scheduled_s if scheduled_s is not None else -1.0) * S)
    if scheduled_s is not None:
        stamps["scheduled_ns"] = first
    lines = [PodEntry(time_ns=first, **common, **stamps)]
    if deleted_s is not None:
        gone_ns = START_NS + round(deleted_s * S)
        lines.append(PodEntry(time_ns=gone_ns, deleting=True, deleted=True, **common, **stamps))
    return lines


BEGUN = ServiceEntry(time_ns=START_NS - 2 * S, namespace="llm", service="qwen")
ONE_EACH = CostBasis(gpu="L4", gpus_per_replica=1, replicas=1, gpu_hour_usd=3600.0)
"""A dollar a second."""


@pytest.mark.parametrize(
    ("pods", "held_s"),
    [
        ([life("a", -30.0)], 10.0),
        ([life("a", -30.0), life("b", 4.0)], 16.0),
        ([life("a", -30.0), life("b", -20.0, 3.0)], 13.0),
        ([life("a", 2.0, 5.0), life("b", None)], 3.0),
        ([life("a", -30.0), life("b", -90.0, -40.0), life("c", 11.0)], 10.0),
    ],
    ids=["as before", "one more", "one less", "one without a node", "before and after"],
)
def test_a_run_that_scales_pays_for_what_ran(
    tmp_path: Path, pods: list[list[PodEntry]], held_s: float
) -> None:
    """From its node to its end, within the window."""
    cost = finished(tmp_path, ONE_EACH, log=[BEGUN, *chain.from_iterable(pods)])["cost"]
    assert cost["replicas_by"] == "cluster"
    assert cost["window_usd"] == pytest.approx(held_s, rel=1e-6)
    assert cost["replicas_mean"] == pytest.approx(held_s / 10)


def test_a_pod_that_ended_gave_its_node_back(tmp_path: Path) -> None:
    """Evicted at 4 s; its object stays."""
    log = [BEGUN, *life("a", -30.0)]
    (last,) = life("a", 4.0, phase="Failed")
    cost = finished(tmp_path, ONE_EACH, log=[*log, last])["cost"]
    assert cost["window_usd"] == pytest.approx(4.0, rel=1e-6)


def test_replicas_that_were_given_go_before_what_the_cluster_saw(tmp_path: Path) -> None:
    """A person may pay for nodes that stay."""
    basis = CostBasis(gpus_per_replica=1, replicas=5, replicas_given=True, gpu_hour_usd=3600.0)
    cost = finished(tmp_path, basis, log=[BEGUN, *life("a", -30.0)])["cost"]
    assert cost["window_usd"] == pytest.approx(50.0)


def test_pods_that_nobody_could_follow_are_those_before_the_load(tmp_path: Path) -> None:
    """And a note says that it is not known what became of them."""
    begun = ServiceEntry(
        time_ns=START_NS, namespace="llm", service="qwen", pods_known=False
    )  # fmt: skip
    cost = finished(tmp_path, ONE_EACH, log=[begun])["cost"]
    assert (cost["replicas_by"], cost["window_usd"]) == ("before", pytest.approx(10.0))
    assert "is not known" in cost["notes"][0]


# -- idle ----------------------------------------------------------------------------------------


def test_idle_is_when_no_request_was_in_flight(tmp_path: Path) -> None:
    """Ten times 131 ms of ten seconds."""
    cost = finished(tmp_path, H100)["cost"]
    assert cost["idle_by"] == "in_flight"
    assert cost["idle_share"] == pytest.approx(1 - 0.131, rel=1e-6)
    assert cost["idle_usd"] == pytest.approx(0.11 * (1 - 0.131), rel=1e-6)


@given(st.lists(st.tuples(st.integers(-20, 120), st.integers(0, 60)), max_size=30))
def test_busy_time_is_that_of_all_moments_with_a_request(spans: list[tuple[int, int]]) -> None:
    """Against a count of every unit of time of the window from 0 to 100."""
    busy = [any(begin <= t < begin + length for begin, length in spans) for t in range(100)]
    begins = np.array([begin for begin, _ in spans], dtype=np.float64)
    ends = begins + np.array([length for _, length in spans], dtype=np.float64)
    assert busy_ns(begins, ends, Counted(0.0, 100.0)) == sum(busy)


# -- energy, gates, what people see --------------------------------------------------------------


def pages(*moments_s: float) -> list[tuple[str, float, str]]:
    """The fixture's page, two GPUs at 100 W, at these moments."""
    return [("gpu", at_s, fixture("dcgm")) for at_s in moments_s]


EVERY_S = pages(*(float(s) for s in range(-1, 12)))


def with_energy(
    folder: Path, basis: CostBasis | None, of: Sequence[tuple[str, float, str]], **changes: Any
) -> dict[str, Any]:
    """The same as `finished`, with pages of GPUs."""
    run = run_with_pages(folder, ROWS, of, run_info(timed_profile(10.0, **changes)))
    if basis is not None:
        write_basis(run, basis)
    return finish(folder)


def test_energy_is_that_of_the_window_and_less_of_it_above_idle(tmp_path: Path) -> None:
    """200 W for ten seconds, of which 2 x 30 W would have been taken by idle GPUs."""
    energy = with_energy(tmp_path, CostBasis(idle_w_per_gpu=30.0), EVERY_S)["energy"]
    assert energy == {
        "exporter": "dcgm", "gpus": 2, "by": "power", "window_s": 10.0, "observed_share": 1.0,
        "longest_gap_s": 0.0, "energy_j": pytest.approx(2000.0),
        "mean_power_w": pytest.approx(200.0), "j_per_request": pytest.approx(200.0),
        "j_per_output_token": pytest.approx(50.0),
        "wh_per_1k_output_tokens": pytest.approx(2000 / 3600 / 0.040),
        "idle_w_per_gpu": 30.0, "above_idle_j": pytest.approx(1400.0),
        "above_idle_j_per_request": pytest.approx(140.0),
        "above_idle_j_per_output_token": pytest.approx(35.0),
        "above_idle_wh_per_1k_output_tokens": pytest.approx(1400 / 3600 / 0.040), "notes": [],
    }  # fmt: skip


def test_triton_tells_of_energy_too(tmp_path: Path) -> None:
    """One GPU at 70 W for ten seconds; without its power by the counter, which grew by 30 J a second."""
    of = [("t", float(s), fixture("triton")) for s in range(-1, 12)]
    energy = with_energy(tmp_path / "power", None, of)["energy"]
    assert (energy["exporter"], energy["by"]) == ("triton", "power")
    assert energy["energy_j"] == pytest.approx(700.0)
    sample = 'nv_energy_consumption{gpu_uuid="GPU-1d2f"}'
    of = [
        (name, at_s, without(with_values(page, {sample: 1e4 + 30 * at_s}), "nv_gpu_power_usage"))
        for name, at_s, page in of
    ]
    energy = with_energy(tmp_path / "counter", None, of)["energy"]
    assert (energy["by"], energy["energy_j"]) == ("counter", pytest.approx(300.0))


def test_a_gpu_of_two_exporters_counts_once(tmp_path: Path) -> None:
    """Every pod of a node may tell of all its GPUs."""
    both = [page for at_s in range(-1, 12) for page in
            (("a", float(at_s), fixture("dcgm")), ("b", float(at_s), fixture("dcgm")))]  # fmt: skip
    summary = with_energy(tmp_path, None, both)
    assert summary["energy"]["gpus"] == summary["server"]["gpu"]["gpus"] == 2
    assert summary["energy"]["energy_j"] == pytest.approx(2000.0)
    assert summary["server"]["gpu"]["power_w"] == pytest.approx(200.0)


def test_gpus_without_a_uuid_are_told_apart_by_their_number(tmp_path: Path) -> None:
    """By one name, they would be one GPU of the largest power."""
    bare = fixture("dcgm").replace('UUID="GPU-5b4e07f6",', "").replace('UUID="GPU-9c11ab04",', "")
    summary = with_energy(tmp_path, None, [("gpu", at_s, bare) for _, at_s, _ in EVERY_S])
    assert summary["server"]["gpu"]["gpus"] == 2
    assert summary["server"]["gpu"]["power_w"] == pytest.approx(200.0)
    assert summary["energy"]["energy_j"] == pytest.approx(2000.0)


def test_energy_of_a_part_of_the_time_does_not_stand_for_the_whole(tmp_path: Path) -> None:
    """The exporter went away at half time: neither section has an energy, and one says why."""
    there = [
        (name, at_s, text if at_s < 5 else without(text, "DCGM_FI_DEV_POWER_USAGE{"))
        for name, at_s, text in EVERY_S
    ]
    summary = with_energy(tmp_path, CostBasis(idle_w_per_gpu=1.0), there)
    assert summary["server"]["gpu"]["energy_j"] is None
    energy = summary["energy"]
    assert energy["observed_share"] == pytest.approx(0.4)
    assert energy["energy_j"] is energy["wh_per_1k_output_tokens"] is energy["above_idle_j"] is None
    assert energy["notes"][-1].startswith("power was seen for 40.0% of the window")
    assert "power was seen for 40.0%" in (tmp_path / "report.html").read_text()
    assert "power was seen for 40.0%" in shown(summary)


def test_gpus_say_how_busy_they_were_and_are_held_against_what_is_paid_for(tmp_path: Path) -> None:
    """The fixture's GPUs do nothing; six are paid for, two tell."""
    cost = with_energy(tmp_path, H100, EVERY_S)["cost"]
    assert (cost["idle_share"], cost["idle_by"]) == (1.0, "gpu_utilisation")
    assert cost["notes"] == [
        "the exporters tell of 2 GPUs, the cost is of 6: use and energy are of all that they tell "
        "of."
    ]


@pytest.mark.parametrize(
    ("limit", "code"), [(2700.0, 1), (2800.0, 0)], ids=["too dear", "cheap enough"]
)
def test_a_gate_limits_cost_and_energy(tmp_path: Path, limit: float, code: int) -> None:
    """2,750 $ a million output tokens, at most so much."""
    gate = {"cost_per_million_output_tokens_usd": limit, "energy_j_per_request": 201.0}
    summary = with_energy(tmp_path, H100, EVERY_S, gate=gate)
    found = {each["name"]: each for each in summary["gates"]}
    assert found["cost_per_million_output_tokens_usd"]["value"] == pytest.approx(2750.0)
    assert found["energy_j_per_request"]["passed"]
    assert exit_code(summary) == code


def test_a_gate_on_a_cost_that_is_not_known_is_missed(tmp_path: Path) -> None:
    """Nobody may take silence for cheap."""
    gate = {"cost_per_hour_usd": 1e9, "energy_wh_per_1k_output_tokens": 1e9}
    summary = finished(tmp_path, None, info=run_info(timed_profile(10.0, gate=gate)))
    assert [(g["value"], g["passed"]) for g in summary["gates"]] == [(None, False)] * 2
    assert exit_code(summary) == 1


def shown(summary: dict[str, Any]) -> str:
    """What the terminal shows, without its line breaks."""
    text = io.StringIO()
    render(summary, Console(file=text, width=200))
    return " ".join(text.getvalue().split())


def test_people_see_the_figures_and_what_was_paid_for(tmp_path: Path) -> None:
    """On the terminal and on the page; a name from outside is escaped there."""
    basis = CostBasis(
        gpu="<b>H100</b>", gpus_per_replica=2, replicas=3, replicas_given=True, gpu_hour_usd=6.0,
        idle_w_per_gpu=30.0, price_source="prices.yaml", price_as_of="2026-01-19",
    )  # fmt: skip
    summary = with_energy(tmp_path, basis, EVERY_S)
    page = (tmp_path / "report.html").read_text()
    for text in (
        "3 replicas of 2 ",
        " at $12.00 an hour each (as it was given); prices: prices.yaml",
    ):
        assert text in shown(summary)
        assert text in page
    assert "$36.00 per hour, $2,500.00 per 1 million output tokens" in shown(summary)
    assert "2,000 J by 2 GPUs, 200 W, 13.89 Wh per 1,000 output tokens" in shown(summary)
    assert "above the 30 W of an idle GPU: 1,400 J, 9.722 Wh per 1,000 output" in shown(summary)
    assert "<td>$2,500.00</td>" in page
    assert "<td>9.722 Wh</td>" in page
    assert "<b>H100" not in page


def test_a_damaged_cost_json_is_told(tmp_path: Path) -> None:
    """With what to do."""
    run = write_run(tmp_path, [ROWS], run_info(TEN_S))
    for text, told in (("{", "cannot be read"), (json.dumps({"schema_version": 9}), "version 9")):
        run.cost.write_text(text)
        with pytest.raises(RunDirError, match=told):
            finish(tmp_path)
