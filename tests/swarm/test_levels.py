"""How busy the servers are now, read from lines of their pages; and the series of the plots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.swarm.merging import Merged, merged
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.web.levels import Levels, ServerLevels, levels_of
from kvswarm.swarm.web.samples import MOST_SAMPLES, NAMES, WINDOW_S, Series
from kvswarm.telemetry.pages import Page, append_page

FIXTURES = Path(__file__).parents[1] / "fixtures"
S = 1_000_000_000
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="a {{}} \\"m\\""}} {running}
vllm:num_requests_running{{engine="1",model_name="a {{}} \\"m\\""}} 2.0 1764000000000
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 99
vllm:num_requests_waiting{{engine="0"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:kv_cache_usage_perc{{engine="1"}} 0.75
"""


def page(text: str | bytes, source: str = "a", at_s: float = 0.0) -> Page:
    time_ns = int(at_s * S)
    body = text if isinstance(text, bytes) else text.encode()
    return Page(source=source, asked_ns=time_ns, time_ns=time_ns, text=body)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ngram", Levels(running=0, waiting=0, kv_usage_share=0)),
        ("trtllm", Levels(running=0, waiting=0, kv_usage_share=0)),
        ("triton", Levels(running=0, waiting=0, kv_usage_share=0)),
        ("tgi", Levels(running=0, waiting=0)),
        ("dcgm", Levels()),
    ],
)
def test_pages_of_every_server_that_we_know_are_read(name: str, expected: Levels) -> None:
    """None is what it does not tell, and not 0."""
    assert levels_of(page((FIXTURES / f"metrics_{name}.prom").read_bytes())) == expected


@given(running=st.integers(0, 10**6), waiting=st.integers(0, 10**6))
def test_engines_add_up_but_their_caches_do_not(running: int, waiting: int) -> None:
    text = VLLM.format(running=running, waiting=waiting)
    assert levels_of(page(text)) == Levels(
        running=running + 2.0, waiting=waiting, kv_usage_share=0.5
    )


def test_blocks_in_use_are_a_share_of_all_blocks() -> None:
    """Triton tells no share."""
    text = (FIXTURES / "metrics_triton.prom").read_text()
    used = 'kv_cache_block_type="used",model="tensorrt_llm",version="1"} '
    lines = [line for line in text.splitlines() if "fraction" not in line]
    busy = "\n".join(lines).replace(f"{used}0", f"{used}1560")
    assert levels_of(page(busy + "\n")).kv_usage_share == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vllm:num_requests_running{x=\n",
        "vllm:num_requests_running{} many\n",
        "<html>vllm:</html>",
    ],
)
def test_what_is_no_page_of_metrics_says_nothing(text: str) -> None:
    """A proxy's error page must not end the live view."""
    assert levels_of(page(text)) == Levels()


def test_replicas_add_up_until_one_falls_silent(tmp_path: Path) -> None:
    """A pod that is gone runs nothing."""
    path = tmp_path / "server.pages"
    levels = ServerLevels(path)
    assert levels.now(0) == Levels()
    with path.open("wb") as file:
        for second in range(3):
            append_page(file, page(VLLM.format(running=1, waiting=4), "a", second))
            append_page(file, page(VLLM.format(running=5, waiting=0), "b", second))
    assert levels.now(3 * S) == Levels(running=10, waiting=4, kv_usage_share=0.5)
    with path.open("ab") as file:
        append_page(file, page(VLLM.format(running=2, waiting=1), "a", 60))
    assert levels.now(61 * S) == Levels(running=4, waiting=1, kv_usage_share=0.5)
    path.unlink()
    assert levels.now(62 * S).running == 4


def at(ttft_ms: list[float], tokens: int, ok: int) -> Merged:
    """What all workers counted up to a moment."""
    sketch = Sketch()
    sketch.add(np.array(ttft_ms) * 1000)
    return merged([Counts(ttft=sketch.to_bytes(), output_tokens=tokens, ok=ok, in_flight=3)])


def test_plots_show_the_last_seconds_and_not_the_mean_of_all() -> None:
    """A server that has become slow must show at once, whatever an hour before said."""
    series = Series()
    fast = [10.0] * 1000
    for second in range(1, 21):
        slow = [500.0] * (10 * max(0, second - 10))
        counted = at(fast[: 100 * min(second, 10)] + slow, 200 * second, 4 * second)
        series.add(float(second), counted, Levels(running=second))
    columns = series.columns(None)
    assert set(columns) == set(NAMES)
    assert columns["t_s"] == [float(second) for second in range(1, 21)]
    assert columns["ttft_p50_ms"][9] == pytest.approx(10, rel=0.01)
    assert columns["ttft_p50_ms"][-1] == pytest.approx(500, rel=0.01)
    assert columns["output_tokens_per_s"] == pytest.approx([200.0] * 20)
    assert columns["requests_per_s"] == pytest.approx([4.0] * 20)
    assert columns["itl_p50_ms"] == [None] * 20
    assert columns["running"][-1] == 20
    assert columns["waiting"] == [None] * 20
    assert series.columns(18.0)["t_s"] == [19.0, 20.0]
    quiet = at(fast + slow, 4000, 80)
    for second in range(21, 22 + int(WINDOW_S)):
        series.add(float(second), quiet, Levels())
    assert series.columns(None)["ttft_p50_ms"][-1] is None  # nothing ended: there is no latency


def test_a_long_run_is_thinned_and_not_cut() -> None:
    """A day has 86,400 seconds; its beginning is to be seen at its end."""
    series = Series()
    seconds = 3 * MOST_SAMPLES
    nothing = merged([])
    for second in range(1, seconds + 1):
        series.add(float(second), nothing, Levels())
    times_s = [t_s for t_s in series.columns(None)["t_s"] if t_s is not None]
    assert len(times_s) <= MOST_SAMPLES
    assert times_s[0] == 1.0
    assert times_s[-1] > seconds - 10
    gaps_s = np.diff(times_s)
    assert gaps_s.max() <= 8
