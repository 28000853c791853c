"""The Grafana dashboard asks for metrics that exist, and Grafana can read it."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from kvswarm.swarm.merging import Merged
from kvswarm.swarm.metrics_page import Now, RunNow, page
from kvswarm.swarm.plan import Counts
from kvswarm.swarm.sketch import Sketch
from kvswarm.swarm.standing import SKETCHES

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from composing import CHECKOUT, compose
from dashboards import Asked, asked, dashboard, panels
from exposition import parsed, strict

VLLM_PAGE = CHECKOUT / "tests" / "fixtures" / "metrics_ngram.prom"
GRAFANA = CHECKOUT / "deploy" / "grafana"


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Labels by metric: a page of ours with everything on it, and one of a real vLLM."""
    sketches = {name: Sketch() for name in SKETCHES}
    for sketch in sketches.values():
        sketch.add(np.array([1000.0]))
    run = RunNow(
        run_id="a", profile="p", model="m", going_on=True, lost_workers=0,
        merged=Merged(Counts(started=1, by_error={"http_500": 1}), sketches, {}),
    )  # fmt: skip
    ours = strict(page(Now(users=1, workers=1, run=run)).decode())
    labels: dict[str, set[str]] = {}
    for name, pairs in itertools.chain(ours, parsed(VLLM_PAGE.read_text("utf-8"))):
        labels.setdefault(name, set()).update(dict(pairs))
    return labels


@pytest.mark.parametrize("one", list(asked()), ids=lambda one: f"{one.panel}: {one.legend}")
def test_every_metric_and_label_of_an_expression_exists(
    one: Asked, known: dict[str, set[str]]
) -> None:
    """A misspelt name is an empty panel, and no error anywhere."""
    assert one.metrics
    assert one.metrics <= set(known)
    assert one.labels <= set.union(*(known[name] for name in one.metrics))
    assert not one.lost_labels
    assert one.expression.count("(") == one.expression.count(")")


def test_counters_are_asked_for_their_rate_and_nothing_else_is() -> None:
    """A counter as such grows for ever; the rate of a gauge means nothing."""
    for one in asked():
        for name in one.metrics:
            counts = name.endswith(("_total", "_sum", "_count", "_bucket"))
            assert (f"rate({name}[" in one.expression) == counts, one


def test_every_metric_of_ours_but_the_version_is_on_the_dashboard(
    known: dict[str, set[str]],
) -> None:
    """What is not worth showing is not worth serving."""
    shown = set.union(*(one.metrics for one in asked()))
    ours = {name for name in known if name.startswith("kvswarm_")}
    assert ours - shown == {"kvswarm_build_info"}


def test_no_two_panels_overlap_or_share_an_id() -> None:
    """Grafana moves what overlaps to wherever it likes."""
    places: set[tuple[int, int]] = set()
    for panel in panels():
        grid = panel["gridPos"]
        assert grid["x"] >= 0
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        taken = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert taken
        assert not taken & places, panel["title"]
        places |= taken
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)


def test_every_query_goes_to_the_data_source_that_is_chosen_on_the_page() -> None:
    """Another Grafana's Prometheus has another name."""
    plain = dashboard()
    assert plain["schemaVersion"] >= 36
    assert plain["uid"] == "kvswarm"
    (variable,) = plain["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource", "datasource", "prometheus",
    )  # fmt: skip
    for panel in panels():
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references) > 0
            for part in (panel, *panel["targets"]):
                assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_is_given_the_dashboard_and_the_prometheus_of_the_compose_file() -> None:
    """Where one file says another folder or port than the other, the page stays empty."""
    services = compose({"GRAFANA_PASSWORD": "x"})["services"]
    mounts = dict(
        volume.split(":")[:2] for volume in services["grafana"]["volumes"] if volume[0] == "."
    )
    assert all((CHECKOUT / source).is_dir() for source in mounts)
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/kvswarm.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == mounts["./deploy/grafana/dashboards"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
    assert "prometheus" in services
    assert set(services["grafana"]["networks"]) & set(services["prometheus"]["networks"])
