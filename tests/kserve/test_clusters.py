"""Clusters as data: every file against its schema, and what of it arrives in a manifest."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from kvswarm.cli import main
from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.load import FOLDER, SCHEMA_PATH, cluster_names, load_cluster
from kvswarm.kserve.clusters.place import UNITS, Asked, Place, machine_at, number, place_of

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import predictor, spec_of

NAMED = "--namespace llm --service qwen --model s3://models/qwen3-8b"


def places() -> Iterator[Place]:
    """Every GPU of every cluster, and every slice of it."""
    for name in cluster_names():
        cluster = load_cluster(name)
        for key, gpu in cluster.gpus.items():
            for typed in (key, *(f"{key}/{part}" for part in gpu.slices)):
                yield place_of(cluster, typed)


EVERYWHERE = pytest.mark.parametrize("place", [*places()], ids=lambda place: place.words[10:])


@pytest.mark.parametrize("name", cluster_names())
def test_every_cluster_is_what_the_schema_says(name: str) -> None:
    """A misspelled key would be a label that no pod asks for."""
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    schema = json.loads(SCHEMA_PATH.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    if "extends" not in document:
        # YAML reads a date where the schema wants its text, as load_cluster does.
        plain = json.loads(json.dumps(document, default=str))
        jsonschema.Draft202012Validator(schema).validate(plain)
    assert load_cluster(name).gpus


@EVERYWHERE
def test_each_label_and_toleration_is_in_the_manifest(place: Place) -> None:
    """Of the GPU, of its node and of the slice; or the pod waits for a node for ever."""
    machine = machine_at(place, Asked(), 1)
    node = place.gpu.nodes[0]
    wanted = {**place.gpu.node_selector, **node.node_selector}
    if place.part is not None:
        wanted |= place.part.node_selector
    resource = (place.part and place.part.gpu_resource) or place.gpu.gpu_resource
    llm = spec_of(machine=machine)["template"]
    for pod, container in (
        (predictor(machine=machine), predictor(machine=machine)["model"]),
        (llm, llm["containers"][0]),
    ):
        assert wanted.items() <= pod["nodeSelector"].items()
        assert pod["tolerations"] == [dict(each) for each in place.gpu.tolerations]
        assert container["resources"]["limits"][resource] == "1"


@EVERYWHERE
def test_what_is_asked_for_fits_one_node_and_no_more_is_taken(place: Place) -> None:
    """CPU and memory, too: a pod larger than every node is never scheduled."""
    per_gpu = 1 if place.part is None else place.part.per_gpu
    sizes = [node.gpus for node in place.gpu.nodes if node.gpus is not None]
    for gpus in (each * per_gpu for each in sizes):
        machine = machine_at(place, Asked(), gpus)
        node = next(n for n in place.gpu.nodes if n.gpus and n.gpus * per_gpu >= gpus)
        if node.cpus is not None and node.memory_gib is not None:
            assert (number(machine.cpu) or 0) <= node.cpus * 0.85
            assert (number(machine.memory) or 0) <= node.memory_gib * 2**30 * 0.85
    if sizes and place.gpu.nodes[-1].gpus is not None:
        with pytest.raises(UsageError, match="no node has more"):
            machine_at(place, Asked(), max(sizes) * per_gpu + 1)


@pytest.mark.parametrize("name", cluster_names())
def test_nodes_are_listed_from_small_to_large(name: str) -> None:
    """The first with room is taken, and the smallest is the one that is paid for."""
    for gpu in load_cluster(name).gpus.values():
        sizes = [node.gpus for node in gpu.nodes if node.gpus is not None]
        assert sizes == sorted(sizes)


def test_a_price_says_when_and_where_it_was_read() -> None:
    """A price without a date is a rumour; and some are known, or the field is for nothing."""
    prices = [
        node.price
        for name in cluster_names()
        for gpu in load_cluster(name).gpus.values()
        for node in gpu.nodes
        if node.price is not None
    ]
    assert len(prices) > 20
    for price in prices:
        assert price.source.startswith("https://")
        assert datetime.date(2023, 1, 1) <= price.as_of <= datetime.date(2027, 1, 1)
        assert 0.1 < price.price_per_hour_usd < 20


def test_a_price_is_of_one_gpu_not_of_its_node() -> None:
    """A p5.48xlarge was $55.04 an hour and has 8."""
    node = load_cluster("eks").gpus["h100-80gb"].nodes[-1]
    assert node.price is not None
    assert node.gpus is not None
    assert node.price.price_per_hour_usd * node.gpus == pytest.approx(55.04)


def test_the_flags_beat_the_cluster() -> None:
    """Label by label; taints and amounts as a whole."""
    place = place_of(load_cluster("gke"), "h100-80gb")
    asked = Asked(
        gpu_resource="example.com/gpu",
        cpu="7",
        memory="9Gi",
        node_selector={"zone": "a", "cloud.google.com/gke-accelerator": "mine"},
        tolerations=({"key": "spot", "operator": "Exists"},),
    )
    machine = machine_at(place, asked, 1)
    assert (machine.gpu_resource, machine.cpu, machine.memory) == ("example.com/gpu", "7", "9Gi")
    assert machine.node_selector == {"zone": "a", "cloud.google.com/gke-accelerator": "mine"}
    assert machine.tolerations == ({"key": "spot", "operator": "Exists"},)


@pytest.mark.parametrize(("flag", "value"), [("cpu", "27"), ("memory", "235Gi")])
def test_more_than_the_node_has_is_refused(flag: str, value: str) -> None:
    """An a3-highgpu-1g has 26 CPUs and 234 GiB."""
    place = place_of(load_cluster("gke"), "h100-80gb")
    with pytest.raises(UsageError, match=f"--{flag} {value} and --cluster gke:h100-80gb"):
        machine_at(place, Asked(**{flag: value}), 1)


@given(
    amount=st.integers(0, 10**6) | st.decimals(0, 1000, places=2).map(str),
    unit=st.sampled_from(sorted(UNITS)),
)
def test_a_quantity_is_read_as_kubernetes_own_client_reads_it(amount: Any, unit: str) -> None:
    """Gi and G differ by 7 %."""
    if unit == "Ki" and "." in str(amount):
        return
    assert number(f"{amount}{unit}") == pytest.approx(float(parse_quantity(f"{amount}{unit}")))


# -- a file of one's own ---------------------------------------------------------------------


def test_a_file_of_ones_own_says_only_what_differs(tmp_path: Path) -> None:
    """Labels are taken whole, so that no other cluster's are mixed into them; null takes away."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: on-prem\ntitle: Ours\ngpus:\n  t4-16gb: null\n  h100-80gb:\n"
        "    node_selector: {pool: hoppers}\n    nodes:\n"
        "      - {instance_type: dgx, gpus: 8, cpus: 224, memory_gib: 2048,\n"
        "         price: {price_per_hour_usd: 2.1, currency: USD, as_of: 2026-03-01,\n"
        "                 region: null, source: our books}}\n",
        "utf-8",
    )
    cluster = load_cluster(str(mine))
    assert "t4-16gb" not in cluster.gpus
    assert "l4-24gb" in cluster.gpus
    h100 = cluster.gpus["h100-80gb"]
    assert h100.node_selector == {"pool": "hoppers"}
    assert h100.product == "NVIDIA H100 80GB SXM"
    assert "1g.10gb" in h100.slices
    (node,) = h100.nodes
    assert node.price is not None
    assert node.price.as_of == datetime.date(2026, 3, 1)
    assert machine_at(place_of(cluster, "h100-80gb"), Asked(), 8).cpu == "190"


def test_the_file_in_the_docs_is_one(tmp_path: Path) -> None:
    """It is what people start from."""
    page = (Path(__file__).parents[2] / "docs" / "kserve.md").read_text("utf-8")
    (block,) = re.findall(r"^    extends: on-prem\n(?:    .*\n)+", page, re.MULTILINE)
    mine = tmp_path / "mine.yaml"
    mine.write_text(textwrap.dedent(block), "utf-8")
    place = place_of(load_cluster(str(mine)), "h100-80gb")
    assert machine_at(place, Asked(), 4).node_selector == {"pool": "hoppers"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: gkee", "Did you mean 'gke'?"),
        ("extends: ./mine.yaml", "extends this file again"),
        ("extends: [gke]", "extends: is ['gke']"),
        ("extends: gke\ngpus: {l4-24gb: {node_selector: {a b: c}}}", "gpus.l4-24gb.node_selector"),
        ("extends: gke\ngpus: {l4-24gb: {memory: 3}}", "gpus.l4-24gb"),
        ("extends: gke\ntolerations: [{key: a, operator: Equal}]", "tolerations.0"),
        (
            "schema_version: 1\ntitle: x\nstorage: {block_class: null, shared_class: null, model_cache: null}",
            "'gpus' is a required property",
        ),
        ("- gke", "is no mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    """And by its name."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(text, "utf-8")
    with pytest.raises(UsageError) as refused:
        load_cluster(str(mine))
    assert told in str(refused.value)
    assert "mine.yaml" in str(refused.value)


def test_a_price_of_an_impossible_day_is_refused(tmp_path: Path) -> None:
    """The schema knows the form of a date, not the calendar."""
    mine = tmp_path / "mine.yaml"
    text = (FOLDER / "eks.yaml").read_text("utf-8")
    mine.write_text(text.replace("2026-01-19", "2026-02-30"), "utf-8")
    with pytest.raises(UsageError, match="2026-02-30"):
        load_cluster(str(mine))


# -- as it is typed --------------------------------------------------------------------------


def typed(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    """Exit code, standard output, standard error of `kvswarm manifest WORDS`."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(sys, "argv", ["kvswarm", "manifest", *shlex.split(words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, *capfd.readouterr()


def test_the_list_needs_no_other_flag_and_has_every_gpu(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is where one looks before one knows the others."""
    code, out, _err = typed("--list-clusters", monkeypatch, capfd)
    assert code == 0
    for name in cluster_names():
        cluster = load_cluster(name)
        assert f"{name}: {cluster.title}" in out
        for key, gpu in cluster.gpus.items():
            assert f"  {key} " in out
            assert all(str(node.instance_type or "-") in out for node in gpu.nodes)
    (row,) = [
        line.split() for line in out.splitlines() if "p5en.48xlarge" in line and "us-" in line
    ]
    assert row[-6:] == ["8", "192", "2048", "7.91", "2026-01-19", "us-east-1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--cluster gkee:l4-24gb", "Did you mean 'gke'?"),
        ("--cluster ./nowhere.yaml:l4-24gb", "nowhere.yaml: cannot be read"),
        ("--cluster gke", "--gpu, one of t4-16gb"),
        ("--gpu l4-24gb", "of which cluster?"),
        ("--cluster gke:l4-24gb --gpu t4-16gb", "they name two GPUs"),
        ("--cluster gke:l4-24g", "Did you mean 'l4-24gb'?"),
        ("--cluster gke:l4-24gb/1g.10gb", "It is not cut into slices."),
        ("--cluster gke:h100-80gb/1g.1gb", "Did you mean '1g.10gb'?"),
        ("--cluster gke:l4-24gb --gpus 0", "--gpus 0 and --cluster gke:l4-24gb"),
        ("--cluster gke:l4-24gb --gpus 9", "--nodes"),
        ("--cluster gke:h100-80gb/1g.10gb --gpus 2", "a slice of a GPU"),
        ("--cluster eks:h100-80gb/1g.10gb --gpus 2", "nvidia.com/mig-1g.10gb"),
        ("--cluster gke:l4-24gb --memory much", "--memory much: is no quantity"),
    ],
)
def test_a_mistake_is_told_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    """Nothing is printed that could be applied."""
    code, out, err = typed(f"{NAMED} {words}", monkeypatch, capfd)
    assert (code, out) == (2, "")
    assert told in err


def test_gpus_of_a_node_are_counted_with_several_nodes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sixteen GPUs are two nodes of eight; and their claim must be one that both may read."""
    words = "--namespace llm --service qwen --model pvc://models/q --cluster gke:h100-80gb --gpus 8"
    code, out, err = typed(f"{words} --nodes 2", monkeypatch, capfd)
    assert code == 0
    spec = of_kind_in(out)["spec"]["predictor"]
    assert spec["model"]["resources"] == spec["workerSpec"]["containers"][0]["resources"]
    assert spec["model"]["resources"]["limits"]["cpu"] == "176"
    assert "standard-rwx" in err


def of_kind_in(printed: str) -> dict[str, Any]:
    """The InferenceService of what was printed."""
    (found,) = [d for d in yaml.safe_load_all(printed) if d["kind"] == "InferenceService"]
    return dict(found)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("eks:h100-80gb --gpus 8", "cost $55.04 an hour on demand: p5.48xlarge in us-east-1"),
        ("eks:h100-80gb --gpus 2", "cost $13.76 an hour"),
        ("eks:h100-80gb --gpus 8 --nodes 2 --kind llm", "cost $110.08 an hour"),
        ("eks:h100-80gb/3g.40gb", "cost $3.44 an hour on demand: p5.4xlarge"),
    ],
)
def test_what_a_replica_costs_is_told_with_its_day(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    """All of its nodes; a slice costs its part of the GPU."""
    code, _out, err = typed(f"{NAMED} --cluster {words}", monkeypatch, capfd)
    assert code == 0
    assert told in err
    assert "as of 2026-01-19." in err


def test_no_price_is_told_where_none_is_known(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never 0."""
    code, _out, err = typed(f"{NAMED} --cluster aks:h100-80gb", monkeypatch, capfd)
    assert code == 0
    assert "an hour" not in err


def test_without_a_gpu_a_cluster_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pod that needs none must not wait for a GPU's node."""
    code, out, _err = typed(f"{NAMED} --cluster gke --gpus 0", monkeypatch, capfd)
    assert code == 0
    assert "nodeSelector" not in of_kind_in(out)["spec"]["predictor"]
