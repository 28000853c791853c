"""server.parquet, and what the verdict makes of a server that tells of another run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kvswarm.analysis.finish import finish
from kvswarm.analysis.server import _samples
from kvswarm.rundir import RunDir
from kvswarm.telemetry.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, S, failed, good
from serverpages import OWN, fixture, run_with_pages

COUNT, TOKENS, TTFT_S = 200, 4, 0.1
ROWS = [good(i, at_ms=i * 140) for i in range(COUNT)]


def page(requests: float, tokens: float, ttft_sum_s: float, ttft_count: float) -> str:
    """What vLLM says, of two engines whose counters belong together."""
    return f"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0"}} 3
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="length"}} {requests - 10}
vllm:request_success_total{{engine="1",finished_reason="stop"}} 10
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0"}} {tokens}
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf"}} {ttft_count}
vllm:time_to_first_token_seconds_sum{{engine="0"}} {ttft_sum_s}
vllm:time_to_first_token_seconds_count{{engine="0"}} {ttft_count}
"""


BEFORE = (50.0, 1000.0, 9.0, 50.0)
TRUE = (50.0 + COUNT, 1000.0 + COUNT * TOKENS, 9.0 + COUNT * TTFT_S, 50.0 + COUNT)


def with_pages(path: Path, *pages: str, rows: Any = ROWS) -> RunDir:
    """A run whose server was asked so often: before the load, amid it, and after it at last."""
    moments = [-1.0, *(10.0 * n for n in range(1, len(pages) - 1)), 60.0]
    return run_with_pages(
        path, rows, [(OWN, at_s, p) for at_s, p in zip(moments, pages, strict=False)]
    )


def verdict(run: RunDir) -> tuple[str, str]:
    """Status, and all reasons as one text."""
    told = finish(run.path)["verdict"]
    return told["status"], " ".join(told["reasons"])


def test_the_table_has_a_row_for_every_sample(tmp_path: Path) -> None:
    """In long form, as it came; the pages have done their duty then."""
    run = with_pages(tmp_path, page(*BEFORE), page(*TRUE))
    finish(run.path)
    rows = pq.read_table(run.server).to_pylist()
    assert len(rows) == 2 * (1 + 7)
    assert not run.server_pages.exists()
    first = {"time_ns": START_NS - S, "replica": OWN}
    assert rows[0] == {**first, "name": "scrape_duration_seconds", "labels": "{}", "value": 0.003}
    assert rows[1] == {
        **first, "name": "vllm:num_requests_running", "labels": '{"engine": "0"}', "value": 3.0,
    }  # fmt: skip
    assert finish(run.path)["verdict"]["status"] == "valid"


SMALLER = """\
# TYPE still histogram
still_bucket{le="1"} 5
still_bucket{le="+Inf"} 7
still_sum 9
still_count 7
# TYPE grows histogram
grows_bucket{le="1"} 5
grows_bucket{le="+Inf"} %d
grows_sum 9
grows_count %d
# TYPE with_total_total counter
with_total_total 3
# TYPE with_total_created gauge
with_total_created 1.7e9
# TYPE bare counter
bare 4
"""


def test_what_never_changes_or_says_only_when_it_began_is_not_kept(tmp_path: Path) -> None:
    """Two thirds of a page of vLLM are buckets, and most of them count nothing in a run."""
    run = with_pages(tmp_path, SMALLER % (7, 7), SMALLER % (8, 8))
    finish(run.path)
    names = [row["name"] for row in pq.read_table(run.server).to_pylist()]
    once = ["scrape_duration_seconds", "still_sum", "still_count", "grows_bucket", "grows_bucket",
            "grows_sum", "grows_count", "with_total_total", "bare"]  # fmt: skip
    assert names == once * 2


def as_parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    """The samples by prometheus_client, which knows no counter here, for none has a type."""
    families = text_string_to_metric_families(text)
    samples = [
        (s.name, dict(sorted(s.labels.items())), float(s.value))
        for f in families
        for s in f.samples
    ]
    return sorted(samples, key=str)


def as_read(text: str) -> list[tuple[str, dict[str, str], float]]:
    """The same by us."""
    page = Page(source="", asked_ns=0, time_ns=0, text=text.encode())
    read = [(name, json.loads(labels), value) for name, labels, value in _samples(page)]
    return sorted(read, key=str)


def escaped(text: str) -> str:
    """As a label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


some_labels = st.dictionaries(
    st.sampled_from(["le", "engine", "model_name"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=6),
)
some_lines = st.tuples(
    some_labels, st.floats(allow_nan=False), st.sampled_from(["", " 1764000000123"])
)


@given(lines=st.lists(some_lines, max_size=5))
def test_a_page_is_read_as_prometheus_reads_it(
    lines: list[tuple[dict[str, str], float, str]],
) -> None:
    """Whatever stands in a label: braces, quotes, spaces, other alphabets."""
    text = "# HELP x a thing\n"
    for number, (labels, value, moment) in enumerate(lines):
        inside = ",".join(f'{name}="{escaped(label)}"' for name, label in labels.items())
        told = "+Inf" if value == math.inf else "-Inf" if value == -math.inf else repr(value)
        text += (
            f"x{number}{{{inside}}} {told}{moment}\n" if labels else f"x{number} {told}{moment}\n"
        )
    assert as_read(text) == as_parsed(text)


@pytest.mark.parametrize("name", ["ngram", "tgi", "trtllm", "triton", "dcgm"])
def test_real_pages_are_read_whole(name: str) -> None:
    """Each line that is no comment is a sample."""
    text = "\n".join(line for line in fixture(name).splitlines() if not line.startswith("#"))
    assert as_read(text) == as_parsed(text + "\n")
    assert len(as_read(text)) == len([line for line in text.splitlines() if line])


@pytest.mark.parametrize("pages", [(), ("{}",), ("<html>",), (page(*BEFORE),)])
def test_a_server_that_tells_nothing_contradicts_nothing(
    pages: tuple[str, ...], tmp_path: Path
) -> None:
    """No page, no Prometheus, or nothing from after the run."""
    assert verdict(with_pages(tmp_path, *pages)) == ("valid", "")


def test_a_server_that_tells_of_this_run_contradicts_nothing(tmp_path: Path) -> None:
    """Only what was counted between first and last page is this run's."""
    assert verdict(with_pages(tmp_path, page(*BEFORE), page(*TRUE))) == ("valid", "")


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ((TRUE[0] + 30, TRUE[1] + 900, *TRUE[2:]), "230 requests in the run, this run made 200"),
        ((TRUE[0], TRUE[1] + 100, *TRUE[2:]), "900 output tokens in the run, its answers tell of 800"),
        ((TRUE[0], TRUE[1] - 100, *TRUE[2:]), "700 output tokens in the run, its answers tell of 800"),
        ((*TRUE[:2], 9.0 + COUNT * 0.15, TRUE[3]), "TTFT is 100.00 ms on average, but 150.00 ms"),
    ],
    ids=["others use it", "more tokens", "fewer tokens", "ttft too short"],
)  # fmt: skip
def test_a_server_that_tells_of_another_run_is_heard(
    last: tuple[float, ...], told: str, tmp_path: Path
) -> None:
    """Client and server cannot both be right."""
    status, reasons = verdict(with_pages(tmp_path, page(*BEFORE), page(*last)))
    assert status == "degraded"
    assert told in reasons


@pytest.mark.parametrize(
    "last",
    [
        (BEFORE[0] + 70, BEFORE[1] + 280, BEFORE[2] + 7, BEFORE[3] + 70),
        (*TRUE[:2], 9.0 + COUNT * 0.104, TRUE[3]),
        (*TRUE[:2], 9.0 + COUNT * 0.02, TRUE[3]),
    ],
    ids=["one of three replicas", "ttft within 10 %", "ttft of a server far away"],
)
def test_what_has_an_innocent_reason_is_no_contradiction(
    last: tuple[float, ...], tmp_path: Path
) -> None:
    """A gateway's /metrics may be one replica's; the network takes its time too."""
    assert verdict(with_pages(tmp_path, page(*BEFORE), page(*last))) == ("valid", "")


def test_counters_that_fall_are_not_compared(tmp_path: Path) -> None:
    """Two replicas by turns, or a server that was started anew."""
    run = with_pages(tmp_path, page(*BEFORE), page(10.0, 0.0, 0.0, 0.0), page(*TRUE))
    assert verdict(run) == ("valid", "")


def test_tokens_of_failed_requests_are_nobodys_contradiction(tmp_path: Path) -> None:
    """The server made some of them before they failed."""
    rows = [*ROWS[:-1], failed(COUNT - 1, "stall", at_ms=9000)]
    last = (TRUE[0] - 1, TRUE[1] + 60, *TRUE[2:])
    assert verdict(with_pages(tmp_path, page(*BEFORE), page(*last), rows=rows)) == ("valid", "")
