"""`kvswarm compare` on a cluster, as a real process: a real API server, and a stand-in of KServe."""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from kube_api_server import ApiServer
from running import KVSWARM, Done, Going, Run, forgiving, going, until
from stand_in_kserve import SERVICE, Behaviour, StandIn, cluster_of

from kvswarm.commands.compare_file import SCHEMA_PATH
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.clusters.load import load_cluster
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.watching import Watched, Watching
from kvswarm.rundir import JournalReader

pytestmark = pytest.mark.kube

MADE = ("InferenceService", "ServingRuntime", "ConfigMap", "Pod")
"""What a comparison makes, or has made for it."""
THREE = ("--backends", "vllm", "tgi", "tensorrt-llm")
ENOUGH_S = 240.0
TTFT_MS = {"vllm": 60, "tgi": 100, "tensorrt-llm": 30}


class Place:
    """A namespace with a KServe, and an empty directory to compare from."""

    def __init__(self, kserve: StandIn, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.kserve, self.cluster, self.namespace, self.folder = kserve, cluster, namespace, folder
        self.env: Mapping[str, str] = {"KUBECONFIG": str(folder / "admin.json")}
        self.out = folder / "out"
        self.profile = ""
        for backend, ttft_ms in TTFT_MS.items():
            exact = Behaviour(simulator=("--exact", str(ttft_ms), "2"))
            kserve.behave(f"compare-{backend}", exact)

    def words(self, *more: str) -> list[str | Path]:
        """The command line without the program."""
        profile = forgiving(self.folder, self.profile)
        words: list[str | Path] = [
            "compare",
            "--model",
            "hf://Qwen/Qwen3-8B",
            "--namespace",
            self.namespace,
        ]
        return [*words, "--profile", profile, "--out", self.out, *more]

    def compare(self, *more: str) -> Done:
        """To its end."""
        with self.comparing(*more) as started:
            started.process.wait(ENOUGH_S)
            return started.end()

    def comparing(self, *more: str) -> AbstractContextManager[Going]:
        """While it goes on."""
        command = [*KVSWARM, *self.words(*more)]
        return going(*command, cwd=self.folder, env=self.env, logs=self.logs())

    def logs(self) -> Path:
        """A new directory for what a process says."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def comparison(self) -> dict[str, Any]:
        """comparison.json, which must be as its schema says."""
        found: dict[str, Any] = json.loads((self.out / "comparison.json").read_text())
        jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text())).validate(found)
        return found

    def statuses(self) -> list[str]:
        """Of the variants."""
        return [each["status"] for each in self.comparison()["variants"]]

    def measured(self, variant: str) -> int:
        """Rows that the journal of a run has, without those of the warm-up."""
        journal = self.out / variant / "requests.journal"
        batches = JournalReader(journal) if journal.exists() else ()
        return sum(row.phase == "measure" for batch in batches for row in batch)

    def left(self) -> list[str]:
        """What is in the namespace."""
        return [
            f"{kind} {item['metadata']['name']}"
            for kind in MADE
            for item in self.cluster.list_all(KINDS[kind], self.namespace)[0]
            if not item["metadata"]["name"].startswith("kube-")
        ]


@pytest.fixture
def place(api: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Place]:
    """A namespace where KServe plays, with backends of different speed."""
    cluster = cluster_of(api.kubeconfig(tmp_path / "admin.json"))
    with StandIn(cluster, namespace) as kserve:
        yield Place(kserve, cluster, namespace, tmp_path)


def applied(watching: Watching) -> dict[str, dict[str, Any]]:
    """The InferenceServices that there were since the watch began, as they were last."""
    found = {}
    while (change := watching.next(0.5)) is not None:
        found[change.name] = change.document
    return found


# -- to the end ------------------------------------------------------------------------------


def test_each_backend_is_deployed_measured_and_taken_down_and_its_speed_is_found(
    place: Place,
) -> None:
    """The planted first-token times come out, as differences from the first backend.

    What each cost comes out, too: of the GPU that it was deployed on.
    """
    price = load_cluster("eks").gpus["l4-24gb"].nodes[0].price
    assert price is not None
    done = place.compare(*THREE, "--cluster", "eks", "--gpu", "l4-24gb")
    assert done.code == 0, done.err
    comparison = place.comparison()
    assert comparison["cluster"]["server"] == place.cluster.server
    assert comparison["machine"]["gpus"] == 1
    assert comparison["order"] == ["vllm", "tgi", "tensorrt-llm"]
    assert place.statuses() == ["done"] * 3
    vllm, tgi, trtllm = comparison["variants"]
    assert vllm["effects"] == []
    for entry, difference_ms in ((tgi, 40), (trtllm, -30)):
        (ttft,) = [each for each in entry["effects"] if each["figure"] == "ttft_ms"]
        assert ttft["difference"] == pytest.approx(difference_ms, abs=10)
        assert ttft["low"] <= ttft["difference"] <= ttft["high"]
        assert ttft["count"] == 20
    moments = [
        entry[name] for entry in comparison["variants"] for name in ("started_ns", "ended_ns")
    ]
    assert moments == sorted(moments)
    for entry in comparison["variants"]:
        run = Run(place.out / entry["directory"])
        assert run.info["target"]["service"]["name"] == entry["service"]
        assert run.info["profile"]["warmup"]["requests"] == 8
        assert entry["figures"]["requests_ok"] == 20
        assert run.summary["cost"]["per_hour_usd"] == pytest.approx(price.price_per_hour_usd)
        assert entry["figures"]["ttft_p50_ms"] == run.summary["ttft_ms"]["p50"]
        assert entry["phases_s"]["ready"] > 0
        assert json.loads((place.out / entry["deployment"]).read_text())["schema_version"] == 1
    prompts = [[row["prompt_tokens"] for row in Run(place.out / name).rows] for name in TTFT_MS]
    assert prompts[0] == prompts[1] == prompts[2]
    assert "tgi against vllm: TTFT +" in done.out
    assert re.search(r"│ tensorrt-llm +│ (valid|degraded) +│ 20/20 │", done.out)
    assert "8 requests more are sent and not counted" in done.out
    assert place.left() == []


def test_quantizations_are_applied_as_flags_with_their_own_checkpoints(place: Place) -> None:
    """Read from what the API server was given."""
    with Watching(place.cluster, [Watched(kind=SERVICE, namespace=place.namespace)]) as watching:
        done = place.compare(
            "--quantization", "none", "autoawq", "fp8", "--model-of", "autoawq=hf://x/y-AWQ",
            "--set", "vllm_features.max_num_seqs=8",
        )  # fmt: skip
        assert done.code == 0, done.err
        models = {
            name: document["spec"]["predictor"]["model"]
            for name, document in applied(watching).items()
        }
    same = ["--backend=vllm", "--max-num-seqs", "8"]
    flags = {name: model["args"][1:] for name, model in models.items()}
    assert flags == {
        "compare-vllm-none": same,
        "compare-vllm-autoawq": [*same, "--quantization", "awq", "--dtype", "float16"],
        "compare-vllm-fp8": [*same, "--quantization", "fp8", "--kv-cache-dtype", "fp8"],
    }
    uris = {name: model["storageUri"] for name, model in models.items()}
    assert uris["compare-vllm-autoawq"] == "hf://x/y-AWQ"
    assert uris["compare-vllm-none"] == uris["compare-vllm-fp8"] == "hf://Qwen/Qwen3-8B"
    assert [each["text"] for each in place.comparison()["variants"]] == [
        "vllm none", "vllm autoawq", "vllm fp8",
    ]  # fmt: skip
    assert place.left() == []


# -- what does not go well -------------------------------------------------------------------


def test_a_backend_that_fails_is_told_the_others_go_on_and_the_next_call_makes_it_alone(
    place: Place,
) -> None:
    """A failed load of one says nothing about the others; what is done is not done again."""
    place.kserve.behave("compare-vllm", Behaviour(load="fails"))
    done = place.compare(*THREE, "--set", "vllm_features.enable_chunked_prefill=true")
    assert done.code == 4, done.err
    assert place.statuses() == ["failed", "done", "done"]
    first, second, third = place.comparison()["variants"]
    assert first["exit_code"] == 4
    assert "CUDA out of memory" in first["error"]
    assert first["figures"] is None
    assert second["effects"] == third["effects"] == []
    assert second["unlike"] == ["enable_chunked_prefill"]
    assert "unlike     tgi: not comparable in: enable_chunked_prefill" in done.out
    assert "failed     vllm (exit code 4)" in done.out
    assert f"--out {place.out}" in done.err
    assert place.left() == []
    place.kserve.behave("compare-vllm", Behaviour(simulator=("--exact", "60", "2")))
    with Watching(place.cluster, [Watched(kind=SERVICE, namespace=place.namespace)]) as watching:
        again = place.compare(*THREE, "--set", "vllm_features.enable_chunked_prefill=true")
        assert list(applied(watching)) == ["compare-vllm"]
    assert again.code == 0, again.err
    assert place.statuses() == ["done"] * 3
    mended = place.comparison()["variants"]
    assert mended[0]["error"] is None
    assert mended[1]["started_ns"] == second["started_ns"]
    assert all(entry["effects"] for entry in mended[1:])
    other = place.compare(*THREE, "--seed", "5", "--cpu", "8")
    assert other.code == 2
    assert "seed 0, now 5" in other.err
    assert "cpu '4', now '8'" in other.err


def test_fail_fast_ends_with_the_first_that_fails(place: Place) -> None:
    """A person who waits wants to know."""
    place.kserve.behave("compare-tgi", Behaviour(pull="fails"))
    done = place.compare("--backends", "tgi", "vllm", "--fail-fast")
    assert done.code == 4, done.err
    assert place.statuses() == ["failed", "pending"]
    assert place.left() == []


def test_ctrl_c_keeps_the_figures_removes_the_service_and_says_how_to_go_on(place: Place) -> None:
    """The rest of the comparison can be made tomorrow."""
    place.profile = "requests: 120\nmax_tokens: 40"
    with place.comparing("--backends", "tgi", "vllm") as started:
        until(lambda: place.measured("vllm") > 3, "rows of the second")
        done = started.end(signal.SIGINT)
    assert done.code == 130, done.err
    assert place.statuses() == ["done", "interrupted"]
    second = place.comparison()["variants"][1]
    assert 0 < second["figures"]["requests_ok"] < 120
    assert "interrupted" in done.out
    assert (
        f"Go on: kvswarm compare --model hf://Qwen/Qwen3-8B --namespace {place.namespace}"
        in done.err
    )
    assert place.left() == []
    again = place.compare("--backends", "tgi", "vllm")
    assert again.code == 0, again.err
    assert f"Done before: {place.out / 'tgi'}" in again.err
    assert place.statuses() == ["done", "done"]
    assert (place.out / "vllm-unfinished-1" / "summary.json").exists()


def test_ctrl_c_while_a_backend_is_deployed_leaves_nothing_behind(place: Place) -> None:
    """There is no run yet whose figures could be kept."""
    place.kserve.behave("compare-tgi", Behaviour(load="never"))
    with place.comparing("--backends", "tgi", "vllm") as started:
        until(lambda: any(name.startswith("Pod") for name in place.left()), "a pod")
        done = started.end(signal.SIGINT)
    assert done.code == 130, done.err
    assert place.statuses() == ["interrupted", "pending"]
    assert place.left() == []


def test_a_call_that_was_killed_goes_on_and_removes_what_it_left(place: Place) -> None:
    """The second variant's service holds the GPU that the third needs."""
    place.profile = "requests: 120\nmax_tokens: 40"
    with place.comparing("--backends", "tgi", "vllm") as started:
        until(lambda: place.measured("vllm") > 3, "rows of the second")
        started.end(signal.SIGKILL)
    assert "InferenceService compare-vllm" in place.left()
    first = place.comparison()["variants"][0]
    with Watching(place.cluster, [Watched(kind=SERVICE, namespace=place.namespace)]) as watching:
        again = place.compare("--backends", "tgi", "vllm")
        assert again.code == 0, again.err
        assert list(applied(watching)) == ["compare-vllm"]
    assert place.comparison()["variants"][0]["started_ns"] == first["started_ns"]
    assert place.statuses() == ["done", "done"]
    assert place.left() == []
