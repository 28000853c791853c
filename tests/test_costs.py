"""What `kvswarm run` and `kvswarm report` find out of machines and prices, and what goes before what."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kvswarm.cli import main
from kvswarm.commands.cost_options import NO_COSTS, CostAsked
from kvswarm.commands.costs import keep_costs
from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.load import cluster_names, load_cluster
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.overrides import Overrides
from kvswarm.rundir import PodInfo, RunDir, ServiceInfo, TargetInfo

sys.path.insert(0, str(Path(__file__).parent / "analysis"))
from rundirs import good, run_info, timed_profile, write_run

ROWS = [good(i, at_ms=1000.0 * i + 500) for i in range(10)]
L4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "node.kubernetes.io/instance-type": "g6.2xlarge"}


def node_price(cluster: str, instance_type: str) -> float:
    """The price of a GPU of that type of machine, as the cluster's file has it."""
    (price,) = {
        node.price.price_per_hour_usd
        for gpu in load_cluster(cluster).gpus.values()
        for node in gpu.nodes
        if node.instance_type == instance_type and node.price is not None
    }
    return price


def pod(name: str = "qwen-1", **changes: Any) -> PodInfo:
    """A pod with a GPU of its own, on a node that says what it is."""
    plain = {"gpus": 1, "gpu_resource": "nvidia.com/gpu", "cpus": 4.0, "memory_gib": 16.0}
    return PodInfo(name=name, **{**plain, "labels": L4, **changes})


def made(folder: Path, pods: list[PodInfo] | None = None, **profile: Any) -> RunDir:
    """A run, of a service where there are pods."""
    service = None
    if pods is not None:
        service = ServiceInfo(
            kind="InferenceService", namespace="llm", name="qwen", cluster="https://c", pods=pods
        )
    target = TargetInfo(base_url="http://a/v1", model="m", endpoint="chat", service=service)
    return write_run(folder, [ROWS], run_info(timed_profile(10.0, **profile), target=target))


def kept(run: RunDir, asked: CostAsked = NO_COSTS) -> dict[str, Any]:
    """cost.json after it was asked for."""
    keep_costs(run, asked)
    found: dict[str, Any] = json.loads(run.cost.read_bytes())
    return found


def test_the_pods_and_their_nodes_tell_what_a_replica_is_and_what_it_costs(tmp_path: Path) -> None:
    """Nobody has to say anything."""
    found = kept(made(tmp_path, [pod("a"), pod("b")]))
    assert found["gpu"] == "NVIDIA L4"
    assert (found["gpus_per_replica"], found["replicas"]) == (1, 2)
    assert found["gpu_hour_usd"] == node_price("eks", "g6.2xlarge")
    assert found["price_region"] == "us-east-1"
    assert not found["replicas_given"]
    assert found["notes"] == []


def test_a_type_of_machine_has_its_own_price(tmp_path: Path) -> None:
    """The same GPU costs more or less in another node."""
    larger = {**L4, "node.kubernetes.io/instance-type": "g6.48xlarge"}
    assert kept(made(tmp_path, [pod(labels=larger)]))["gpu_hour_usd"] == node_price(
        "eks", "g6.48xlarge"
    )


def test_a_slice_costs_its_part_of_the_gpu(tmp_path: Path) -> None:
    """By the resource that the pod asks for, on a node whose GPU is cut in seven."""
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "node.kubernetes.io/instance-type": "p5.48xlarge",
    }
    found = kept(made(tmp_path, [pod(gpu_resource="nvidia.com/mig-1g.10gb", labels=labels)]))
    assert found["gpu"] == "NVIDIA H100 80GB 1g.10gb"
    assert found["gpu_hour_usd"] == pytest.approx(node_price("eks", "p5.48xlarge") / 7)
    del labels["nvidia.com/gpu.product"]
    run = made(tmp_path / "untold", [pod(gpu_resource="nvidia.com/mig-1g.10gb", labels=labels)])
    assert kept(run) == found
    run = made(tmp_path / "nowhere", [pod(gpu_resource="nvidia.com/mig-1g.10gb", labels={})])
    assert (kept(run)["gpu"], kept(run)["gpu_hour_usd"]) == ("1g.10gb", None)


def test_a_service_that_slept_is_what_its_document_says(tmp_path: Path) -> None:
    """How many there were, cluster.jsonl tells."""
    run = made(tmp_path, [])
    info = run.read_info()
    assert info.target.service is not None
    info.target.service.replica = pod("qwen")
    run.write_info(info)
    found = kept(run)
    assert (found["gpu"], found["gpus_per_replica"]) == ("NVIDIA L4", 1)
    assert found["replicas"] is None


def test_gkes_labels_say_which_cloud_it_is(tmp_path: Path) -> None:
    """Also where the node may not be read: the pod says what it wants of one."""
    labels = {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}
    found = kept(made(tmp_path, [pod(labels=labels)]))
    assert found["gpu_hour_usd"] == node_price("gke", "a2-ultragpu-1g")


@pytest.mark.parametrize(
    ("pods", "note"),
    [
        ([pod(labels={**L4, "karpenter.sh/capacity-type": "spot"})], "spot instances"),
        ([pod(labels={**L4, "topology.kubernetes.io/region": "eu-west-1"})],
         "the nodes are in eu-west-1, the price is that of us-east-1."),
        ([pod("a"), pod("b", gpus=2)], "the pods are not alike"),
        ([pod(labels={"cloud.google.com/gke-accelerator": "nvidia-tpu-9"})], "has no price of it"),
    ],
    ids=["spot", "region", "unlike", "unknown"],
)  # fmt: skip
def test_what_makes_a_price_doubtful_is_told(
    tmp_path: Path, pods: list[PodInfo], note: str
) -> None:
    """And is no reason to lose the figures of a run."""
    assert note in " ".join(kept(made(tmp_path, pods))["notes"])


def test_what_is_not_known_leaves_no_file(tmp_path: Path) -> None:
    """A run at a URL, of which nobody said anything."""
    run = made(tmp_path)
    keep_costs(run, NO_COSTS)
    assert not run.cost.exists()


def test_flags_go_before_a_file_before_the_profile_before_the_pods(tmp_path: Path) -> None:
    """Each says one thing more than the one before, and all say what the first says."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpu_hour_usd: 2\ngpus: 3\ncpus: 30\nreplicas: 30")
    profile_cost = {"gpu_hour_usd": 1.0, "gpus": 2, "cpus": 20, "memory_gib": 200}
    run = made(tmp_path / "run", [pod()], cost=profile_cost)
    found = kept(run, CostAsked(prices=prices, replicas=40))
    assert (found["replicas"], found["replicas_given"]) == (40, True)
    assert (found["gpu_hour_usd"], found["gpus_per_replica"], found["cpus_per_replica"]) == (
        2.0, 3, 30.0,
    )  # fmt: skip
    assert (found["memory_gib_per_replica"], found["gpu"]) == (200.0, "NVIDIA-L4")
    assert found["price_source"] == str(prices)


def test_what_was_said_once_holds_until_it_is_said_otherwise(tmp_path: Path) -> None:
    """Figures are made again for many reasons; prices need not be given each time."""
    run = made(tmp_path)
    kept(run, CostAsked(gpu="h100", gpus=2, cloud="eks"))
    found = kept(run, CostAsked(replicas=4))
    assert (found["gpus_per_replica"], found["replicas"]) == (2, 4)
    assert kept(run) == found
    assert kept(run, CostAsked(gpus=8))["gpus_per_replica"] == 8


def test_the_price_of_a_node_has_its_cpu_and_memory_in_it(tmp_path: Path) -> None:
    """Added again, they would be paid for twice; with a GPU's own price they are added."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("cpu_core_hour_usd: 0.05\nmemory_gib_hour_usd: 0.01")
    run = made(tmp_path / "listed", [pod()])
    found = kept(run, CostAsked(prices=prices))
    assert found["cpu_core_hour_usd"] is found["memory_gib_hour_usd"] is None
    assert "CPU and memory included" in found["notes"][0]
    prices.write_text("gpu_hour_usd: 1\ncpu_core_hour_usd: 0.05\nmemory_gib_hour_usd: 0.01")
    found = kept(made(tmp_path / "own", [pod()]), CostAsked(prices=prices))
    assert (found["cpu_core_hour_usd"], found["memory_gib_hour_usd"]) == (0.05, 0.01)
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (CostAsked(cloud="eksx"), "--cloud eksx: there is none of that name. Did you mean 'eks'?"),
        (CostAsked(cloud="eks", gpu="h10"), "cluster eks has no price of it. Did you mean"),
        (CostAsked(cloud="eks", gpu="h100/9g.90gb"), "has no slice 9g.90gb"),
        (CostAsked(cloud="eks", gpu="h100", gpus=64), "and no node has more"),
        (CostAsked(prices=Path("absent.yaml")), "--prices absent.yaml: cannot be read"),
    ],
)
def test_what_is_asked_for_and_is_not_there_is_refused(
    tmp_path: Path, asked: CostAsked, told: str
) -> None:
    """And nothing is written."""
    run = made(tmp_path)
    with pytest.raises(UsageError) as caught:
        keep_costs(run, asked)
    assert told in str(caught.value)
    assert not run.cost.exists()


def test_the_prices_that_kvswarm_has_can_be_asked_for(tmp_path: Path) -> None:
    """In every cluster, by the name of a GPU there, for the smallest node that has one."""
    run = made(tmp_path)
    for cluster in cluster_names():
        for name, gpu in [*load_cluster(cluster).gpus.items()][::4]:
            found = kept(run, CostAsked(cloud=cluster, gpu=name, gpus=1))
            price = gpu.nodes[0].price
            assert found["gpu_hour_usd"] == (price and price.price_per_hour_usd), (cluster, name)


def test_a_profile_may_have_prices(tmp_path: Path) -> None:
    """As they are written in YAML, over what it extends."""
    path = tmp_path / "mine.yaml"
    path.write_text("extends: standard\ncost: {gpu_hour_usd: {l4: 0.7}, gpus: 1, gpu: l4}")
    profile = load_profile(str(path), Overrides(settings=("cost.replicas=2",)))
    found = kept(made(tmp_path / "run", cost=profile.cost))
    assert (found["gpu_hour_usd"], found["replicas"]) == (0.7, 2)
    assert found["price_source"] == "the profile"


def kvswarm(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of what is typed."""
    monkeypatch.setattr(sys, "argv", ["kvswarm", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_run_says_what_it_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the flags of `run` to summary.json, and again by `report` at another price."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prices.yaml").write_text("gpu_hourly: 9\nidle_watts: 50")
    typed = "run --profile cpu-smoke --requests 8 --concurrency 2 --max-tokens 4 --out r --json"
    flags = ("--gpu", "h100", "--gpus", "2", "--replicas", "1", "--cloud", "eks")
    assert kvswarm(monkeypatch, *typed.split(), *flags) in {0, 3}
    summary = json.loads(capfd.readouterr().out)
    rate = summary["throughput"]["output_tokens_per_s"]
    hour_usd = 2 * node_price("eks", "p5.4xlarge")
    assert summary["cost"]["per_million_output_tokens_usd"] == pytest.approx(
        hour_usd / 3600 / rate * 1e6
    )
    assert kvswarm(monkeypatch, "report", "r", "--prices", "prices.yaml", "--json") in {0, 3}
    again = json.loads(capfd.readouterr().out)["cost"]
    assert again["per_hour_usd"] == pytest.approx(18.0)
    assert again["price_source"] == "prices.yaml"


@pytest.mark.parametrize(
    "words",
    ["--prices absent.yaml", "--cloud nowhere", "--set cost.cloud=nowhere", "--set cost.gpuz=1"],
)
def test_prices_are_looked_at_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """An hour's run must not end in a mistake of typing."""
    monkeypatch.chdir(tmp_path)
    for sweep in ((), ("--sweep", "concurrency=1,2")):
        typed = ("run", "--profile", "cpu-smoke", *words.split(), *sweep)
        assert kvswarm(monkeypatch, *typed) == 2
    assert list(tmp_path.iterdir()) == []
