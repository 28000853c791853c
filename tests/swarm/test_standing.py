"""Live counts: what workers count and the master adds up is what the rows will say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.records import Record, pack_u32
from kvswarm.swarm.merging import Merged, merged
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.standing import SKETCHES, Standing

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
import rundirs

LIMITS_MS = {
    "ttft_ms": 100.0, "ttft_from_intended_ms": 150.0, "itl_ms": 12.0, "itl_p50_ms": 11.0,
    "itl_p99_ms": 30.0, "tpot_ms": 14.0, "e2e_ms": 170.0,
}  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Requests around the limits, some failed, cancelled or found invalid."""
    made = []
    for index in range(draw(st.integers(1, 12))):
        changes: dict[str, Any] = {
            "scenario": draw(st.sampled_from(["chat", "tools"])),
            "output_valid": draw(st.sampled_from([None, True, False])),
            "error_kind": draw(
                st.sampled_from([None, None, None, "stall", "http_500", "cancelled"])
            ),
        }
        gaps_ms = draw(st.lists(st.sampled_from([0.0, 8.0, 11.0, 12.0, 30.0, 30.001]), max_size=6))
        made.append(
            rundirs.good(
                index,
                ttft_ms=draw(st.sampled_from([5.0, 99.9, 100.0, 100.1])),
                gaps_ms=gaps_ms,
                intended_ns=rundirs.START_NS - draw(st.integers(0, 60)) * rundirs.MS,
                **changes,
            )
        )
    return made


def standing_of(profile: Profile, made: list[Record]) -> Counts:
    """What a worker says of these, as the master reads it."""
    standing = Standing(profile)
    standing.add(made)
    return msgspec.convert(standing.packed(), Counts)


@settings(max_examples=40)
@given(made=records(), names=st.sets(st.sampled_from(sorted(LIMITS_MS))))
def test_goodput_so_far_is_that_of_the_summary(
    tmp_path_factory: pytest.TempPathFactory, made: list[Record], names: set[str]
) -> None:
    """Two places judge the same limits: the live one, by request, and the one over all rows."""
    profile = rundirs.profile(slo={name: LIMITS_MS[name] for name in names})
    summary = rundirs.summary_of(tmp_path_factory.mktemp("run"), made, rundirs.run_info(profile))
    judged = summary["requests"]["ok"] + summary["requests"]["failed"]
    live = merged([standing_of(profile, made)])
    assert live.total.ok == summary["requests"]["ok"]
    assert live.failed == summary["requests"]["failed"]
    assert live.total.cancelled == summary["requests"]["cancelled"]
    passed = [record for record in made if record.ok]
    assert live.total.checked == sum(record.output_valid is not None for record in passed)
    assert live.total.valid == sum(record.output_valid is True for record in passed)
    assert live.total.good == pytest.approx(summary["goodput"]["share"] * judged)


@given(
    parts=st.lists(records(), min_size=1, max_size=4),
    share=st.sampled_from([0.5, 0.9, 0.99]),
)
def test_percentiles_of_several_workers_are_those_of_all_their_values(
    parts: list[list[Record]], share: float
) -> None:
    """Within 1 %, also after the merge: percentiles of percentiles would be of nothing."""
    profile = rundirs.profile()
    live = merged([standing_of(profile, part) for part in parts])
    passed = [record for part in parts for record in part if record.ok]
    values_ms = {
        "ttft": [r.ttft_ms for r in passed],
        "tpot": [r.tpot_ms for r in passed if r.tpot_ms is not None],
        "e2e": [r.e2e_ms for r in passed],
        "itl": [us / 1000 for r in passed for us in r.itl_us.tolist() if us >= 1],
        "read_lag": [us / 1000 for r in passed for us in r.read_lag_us.tolist()],
    }
    assert set(values_ms) == set(SKETCHES)
    for name, values in values_ms.items():
        if name == "itl" and len(values) < sum(len(r.itl_us) for r in passed):
            continue  # a gap of 0 counts as one of 1 us, which no share of 0 tells
        seen_ms = live.sketches[name].quantile_ms(share)
        if not values:
            assert seen_ms is None
        else:
            exact_ms = float(np.quantile(np.array(values), share, method="inverted_cdf"))
            assert seen_ms == pytest.approx(exact_ms, rel=0.01, abs=0.001)


@given(made=records())
def test_the_parts_of_a_mix_add_up_to_the_whole(made: list[Record]) -> None:
    live = merged([standing_of(load_profile("mixed"), made)])
    assert set(live.parts) == {record.scenario for record in made}
    for name in ("ok", "good", "checked", "valid", "output_tokens", "cancelled"):
        parts = sum(getattr(part.total, name) for part in live.parts.values())
        assert getattr(live.total, name) == parts
    for name in SKETCHES:
        counts = sum(part.sketches[name].counts for part in live.parts.values())
        assert np.array_equal(live.sketches[name].counts, counts)


def test_a_profile_that_is_no_mix_has_no_parts() -> None:
    """They would be the whole once more, in each of four messages a second."""
    live = merged([standing_of(rundirs.profile(), [rundirs.good(0)])])
    assert live.parts == {}


def test_a_request_without_a_value_is_in_no_percentile_of_it() -> None:
    """One token has no time per token after the first; 0 ms would be the best of all."""
    live = merged([standing_of(rundirs.profile(), [rundirs.good(0, gaps_ms=())])])
    assert live.sketches["tpot"].quantile_ms(0.5) is None
    assert live.sketches["ttft"].quantile_ms(0.5) == pytest.approx(100, rel=0.01)


def lagging(lag_ms: float, coalesced: int) -> Merged:
    record = rundirs.good(
        0, packed_read_lag_us=pack_u32([round(lag_ms * 1000)] * 4), coalesced_events=coalesced
    )
    return merged([standing_of(rundirs.profile(), [record])])


@pytest.mark.parametrize(
    ("lag_ms", "coalesced", "behind"),
    [(0.03, 0, False), (40.0, 0, False), (0.03, 2, False), (40.0, 2, True)],
)
def test_a_generator_falls_behind_where_events_wait_for_it_and_pile_up(
    lag_ms: float, coalesced: int, behind: object
) -> None:
    """Kernel stamps make up for lateness alone; what is read together has lost its own time."""
    assert lagging(lag_ms, coalesced).falling_behind is behind
