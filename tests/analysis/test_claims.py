"""What a profile claims of the server, against what run.json and server.parquet tell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvswarm.analysis.server import SCHEMA
from kvswarm.analysis.wording import claim_lines
from kvswarm.rundir import RunDir, ServiceInfo, TargetInfo

sys.path.insert(0, str(Path(__file__).parent))
from rundirs import START_NS, good, profile, run_info, summary_of

TARGET = {"base_url": "http://127.0.0.1:8000/v1", "model": "m", "endpoint": "chat"}


def judged(
    path: Path, features: dict[str, Any], cache_config: dict[str, str], **target: Any
) -> dict[str, Any]:
    """The summary of a run whose server said this of itself."""
    path.mkdir(parents=True, exist_ok=True)
    labels = json.dumps(cache_config, sort_keys=True)
    row = dict.fromkeys(SCHEMA.names)
    row |= {"time_ns": START_NS, "replica": "r", "labels": labels, "value": 1.0}
    row["name"] = "vllm:cache_config_info"
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), RunDir(path).server)
    target_info = TargetInfo(**{**TARGET, "server_version": "0.32.0", **target})
    info = run_info(profile(vllm_features=features), target=target_info)
    return summary_of(path, [good(0), good(1)], info)


def test_a_server_that_contradicts_a_claim_degrades_the_run(tmp_path: Path) -> None:
    """Its figures would be read as those of an FP8 cache."""
    summary = judged(tmp_path, {"kv_cache_dtype": "fp8"}, {"cache_dtype": "bfloat16"})
    (claim,) = summary["claims"]
    assert claim["status"] == "contradicted"
    assert summary["verdict"]["status"] == "degraded"
    assert any("kv_cache_dtype" in reason for reason in summary["verdict"]["reasons"])
    assert claim_lines(summary) == [claim["sentence"]]


def test_a_confirmed_claim_leaves_the_verdict_alone(tmp_path: Path) -> None:
    """And is named as confirmed."""
    summary = judged(tmp_path, {"kv_cache_dtype": "fp8"}, {"cache_dtype": "fp8_e4m3"})
    assert summary["verdict"]["status"] == "valid"
    assert claim_lines(summary) == ["confirmed: kv_cache_dtype"]


def test_a_claim_of_how_much_fits_degrades_nothing(tmp_path: Path) -> None:
    """More memory for the cache does not make the figures those of another thing."""
    told = {"gpu_memory_utilization": "0.92"}
    summary = judged(tmp_path, {"gpu_memory_utilization": 0.5}, told)
    assert summary["claims"][0]["status"] == "contradicted"
    assert summary["verdict"]["status"] == "valid"


def test_the_simulator_confirms_nothing_and_says_so(tmp_path: Path) -> None:
    """FP8 without a GPU still drives the load."""
    summary = judged(tmp_path, {"quantization": "fp8"}, {}, simulator=True)
    assert summary["verdict"]["status"] == "valid"
    (line,) = claim_lines(summary)
    assert "simulator has no GPU" in line
    assert "quantization" in line


@pytest.mark.parametrize("features", [{"kv_cache_dtype": 7}, {"max_model_len": "x"}])
def test_an_impossible_claim_costs_no_figure(tmp_path: Path, features: dict[str, Any]) -> None:
    """The run was measured: its summary must be made."""
    summary = judged(tmp_path, features, {})
    assert summary["claims"][0]["status"] == "unknown"
    assert "cannot be checked" in summary["claims"][0]["sentence"]


def test_the_flags_of_the_services_pods_are_evidence(tmp_path: Path) -> None:
    """Where the run found its service in a cluster, they say what the checkpoint's name does not."""
    service = ServiceInfo(
        kind="InferenceService",
        namespace="llm",
        name="qwen",
        cluster="https://c",
        flags=["--model=/mnt/models", "--quantization=gptq"],
    )
    summary = judged(tmp_path, {"quantization": "fp8"}, {}, service=service)
    (claim,) = summary["claims"]
    assert (claim["status"], claim["seen"]) == ("contradicted", "gptq")
    assert summary["verdict"]["status"] == "degraded"
