"""Files of SLOs: what is read is what was written, and nothing is lost or let pass in silence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvswarm.analysis.named_figures import LATENCIES, SHORT, figure_named
from kvswarm.analysis.slo_file import COMPARED, parse_slos, read_slo_file
from kvswarm.analysis.slo_names import meant_by
from kvswarm.errors import UsageError
from kvswarm.profiles.schema import GATE_KEYS

PERCENTILES = ("p50", "p75", "p90", "p95", "p99", "p999")
NAMES = st.sampled_from(
    [*SHORT, *(f"{latency}_{p}_ms" for latency in LATENCIES for p in PERCENTILES)]
)
BOUNDS = st.floats(0.0, 1.0)
"""What every figure may be limited by, shares included."""
LIMITS = st.dictionaries(
    NAMES,
    BOUNDS
    | st.tuples(BOUNDS, BOUNDS).map(lambda pair: {"min": min(pair), "max": max(pair)})
    | st.fixed_dictionaries({"min": BOUNDS})
    | st.fixed_dictionaries({"max": BOUNDS}),
    min_size=1,
)
MARGINS = st.dictionaries(st.sampled_from([*COMPARED]), st.floats(0.0, 0.99), max_size=4)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
YAMLISH = st.text(st.sampled_from("ab_ttft_p95_ms:0123456789.%-?&*!<>{}[],'\"|#\n\t ~e\x00é"))


@given(limits=LIMITS, margins=MARGINS, write=st.sampled_from([json.dumps, yaml.safe_dump]))
def test_what_is_read_is_what_was_written(
    limits: dict[str, Any], margins: dict[str, float], write: Any
) -> None:
    """In YAML and JSON: each figure once, each bound on its side."""
    slos = parse_slos(write({**limits, **({"regression": margins} if margins else {})}), "f")
    assert [limit.written for limit in slos.limits] == [*sorted(limits)] or write is json.dumps
    for limit in slos.limits:
        given_limit = limits[limit.written]
        figure = figure_named(limit.written)
        assert figure is not None
        if not isinstance(given_limit, dict):
            side = "min" if figure.direction == "at least" else "max"
            given_limit = {side: given_limit}
        assert limit.figure == figure
        assert {"min": limit.at_least, "max": limit.at_most} == {
            "min": given_limit.get("min"), "max": given_limit.get("max")
        }  # fmt: skip
    assert {each.figure.name: each.margin for each in slos.margins} == margins
    assert len(slos.limits) == len(limits)


@given(text=YAMLISH | st.text() | PLAIN.map(yaml.safe_dump))
def test_any_text_is_understood_or_refused_in_words(text: str) -> None:
    """Never another error; and what is understood asks something that can be missed."""
    try:
        slos = parse_slos(text, "f")
    except UsageError as error:
        slos, refused = None, error
    if slos is None:
        assert refused.message.startswith("f")
        assert refused.fix
        return
    assert slos.limits or slos.margins or slos.verdict
    for limit in slos.limits:
        bounds = [bound for bound in (limit.at_least, limit.at_most) if bound is not None]
        assert bounds
        assert all(math.isfinite(bound) for bound in bounds)


@pytest.mark.parametrize(
    ("key", "name", "given_limit", "least", "most"),
    [
        ("p95_ttft_ms", "ttft_p95_ms", 300, None, 300.0),
        ("TTFT-p95-ms", "ttft_p95_ms", 300, None, 300.0),
        ("ttft_p95_s", "ttft_p95_ms", 0.3, None, 300.0),
        ("avg_ttft_ms", "ttft_mean_ms", 300, None, 300.0),
        ("max_ttft_ms", "ttft_max_ms", 300, None, 300.0),
        ("max_p95_ttft_ms", "ttft_p95_ms", 300, None, 300.0),
        ("p99_latency_ms", "e2e_p99_ms", 900, None, 900.0),
        ("latency_p99.9_ms", "e2e_p999_ms", 900, None, 900.0),
        ("p95_ms", "e2e_p95_ms", 900, None, 900.0),
        ("inter_token_latency_p50_ms", "itl_p50_ms", 20, None, 20.0),
        ("error_rate", "error_share", 0.01, None, 0.01),
        ("max_error_rate", "error_share", "1%", None, 0.01),
        ("error_rate_pct", "error_share", 5, None, 0.05),
        ("error_pct", "error_share", 5, None, 0.05),
        ("success_rate", "success_share", 0.99, 0.99, None),
        ("min_throughput_rps", "requests_per_s", 4, 4.0, None),
        ("throughput_tps", "output_tokens_per_s", "1e3", 1000.0, None),
        ("tokens_per_second", "output_tokens_per_s", 100, 100.0, None),
        ("cold_start_multiplier", "cold_multiplier", 8, None, 8.0),
        ("validity_rate", "valid_output_share", 0.95, 0.95, None),
    ],
)
def test_keys_of_older_tools_mean_our_figures(
    key: str, name: str, given_limit: object, least: float | None, most: float | None
) -> None:
    """In our unit, and the way that they mean."""
    (limit,) = parse_slos(json.dumps({key: given_limit}), "slo.json").limits
    assert (limit.figure.name, limit.figure.path) == (name, getattr(figure_named(name), "path", 0))
    assert limit.at_least == (least if least is None else pytest.approx(least))
    assert limit.at_most == (most if most is None else pytest.approx(most))


def test_every_number_of_the_summary_goes_by_its_path() -> None:
    """With dots and with underscores; kinds of errors too, and no kind that there cannot be."""
    for name, path in (
        ("generator.read_lag_ms.p99", ("generator", "read_lag_ms", "p99")),
        ("server_gpu_utilisation_share", ("server", "gpu", "utilisation_share")),
        ("replicas.requests.cold.ttft_ms.p50", ("replicas", "requests", "cold", "ttft_ms", "p50")),
        ("goodput.slo_share.ttft_ms", ("goodput", "slo_share", "ttft_ms")),
        ("requests.by_error.http_429", ("requests", "by_error", "http_429")),
        ("requests.by_error.stall", ("requests", "by_error", "stall")),
    ):
        meant = meant_by(name)
        assert meant is not None
        assert meant.figure.path == path
    for name in ("requests.by_error.stal", "generator.read_lag", "verdict.status", "variants.sent"):
        assert meant_by(name) is None


def test_every_gate_of_a_profile_is_a_figure_of_a_file_by_the_same_name() -> None:
    """And is limited the same way, so that a limit can move from the one to the other."""
    for name in GATE_KEYS:
        figure = figure_named(name)
        assert figure is not None, name
        assert figure.direction is not None, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no mapping"),
        ("- ttft_p95_ms", "holds no mapping"),
        ("on_unknown: fail", "asks nothing"),
        ("verdict: valid\n\nttft_p59_ms: 300", "f:3: ttft_p59_ms is no figure of a run"),
        ("ttft_ms: 300", "Say which figure of the run: ttft_p95_ms"),
        ("ttft_p42_ms: 300", "Percentiles are p50, p75"),
        ("eror_share: 1%", "Did you mean 'error_share'?"),
        ("verdct: valid", "Did you mean 'verdict'?"),
        ("verdict: invalid", "It is valid or degraded"),
        ("on_unknown: skip\nerror_share: 1%", "It is pass or fail"),
        ("ttft_p95_ms: 300\nttft_p95_ms: 500", "f:2: ttft_p95_ms is given twice, first in line 1"),
        ("{\n\t\"p95_ms\": 1,\n\t\"p95_ms\": 2}", "f:3: p95_ms is given twice"),
        ("regression: {e2e_p50_ms: 5%,\n e2e_p50_ms: 9%}", "f:2: regression.e2e_p50_ms is given"),
        ("ttft_p95_ms: 300\np95_ttft_ms: 500", "f:2: p95_ttft_ms limits a figure that another"),
        ("ttft_p95_ms: .inf", "f:1: ttft_p95_ms is inf, not a number"),
        ("ttft_p95_ms: .nan", "not a number"),
        ("ttft_p95_ms: true", "not a number"),
        ("ttft_p95_ms: 300 ms", "without its unit"),
        ("ttft_p95_ms: 5%", "Only shares are limited in percent"),
        ("ttft_p95_ms: -1", "below 0"),
        ("error_share: 5", "Write 5% or 0.05"),
        ("ttft_p95_ms: {most: 300}", "has most, which is no limit"),
        ("ttft_p95_ms: {}", "names no limit"),
        ("ttft_p95_ms: {min: 5, max: 2}", "min of 5 above its max of 2"),
        ("generator.cpu_s: 5", "`generator.cpu_s: {max: 5}`"),
        ("regression: 5%", "regression: {ttft_p95_ms: 5%}"),
        ("regression: {}", "regression: {ttft_p95_ms: 5%}"),
        ("regression: {ttft_p95_ms: 5}", "may be meant in percent"),
        ("regression: {ttft_p95_ms: -5%}", "no margin"),
        ("regression: {cold_multiplier: 5%}", "no figure that runs are compared by"),
        ("regression: {tps: 5%, output_tokens_per_s: 5%}", "compared by another key too"),
        ("ttft_p95_ms: !!int ''", "not YAML"),
        ("ttft_p95_ms: [", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_way_out(text: str, told: str) -> None:
    """The file, the line, the key, and what to write."""
    with pytest.raises(UsageError) as refused:
        parse_slos(text, "f")
    assert told in str(refused.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Nor one that is not there, nor one of many megabytes."""
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_text("#" * 1_000_001)
    for name, told in (("none", "No such file"), ("bytes", "UTF-8"), ("large", "too large")):
        with pytest.raises(UsageError, match=told):
            read_slo_file(tmp_path / f"{name}.yaml")
