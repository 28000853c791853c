"""Whole runs that ask several endpoints for metrics, and what they leave behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from running import forgiving, free_port, kvswarm, run, simulator

sys.path.insert(0, str(Path(__file__).parents[1] / "telemetry"))
from endpoints import METRICS, endpoint

DCGM = (Path(__file__).parents[1] / "fixtures" / "metrics_dcgm.prom").read_text()


def test_a_run_asks_every_endpoint_and_puts_them_together(tmp_path: Path) -> None:
    """Two replicas, of which one did all the work, and the GPUs of both."""
    with simulator() as busy, simulator() as idle, endpoint() as exporter:
        exporter.paths["/metrics"] = (200, METRICS, DCGM)
        done = run(
            tmp_path / "run", "--profile", forgiving(tmp_path), "--url", busy,
            "--metrics-url", f"busy={busy}/metrics,idle={idle}/metrics,gpu={exporter.url}/metrics",
            "--header", "X-Key: secret-4711",
        )  # fmt: skip
    assert done.code == 0, done.err
    table = pq.read_table(done.run.path / "server.parquet")
    assert set(table["replica"].to_pylist()) == {"busy", "idle", "gpu"}
    assert done.run.info["metrics"] == [
        {"name": "busy", "url": f"{busy}/metrics", "own": False, "late": False},
        {"name": "idle", "url": f"{idle}/metrics", "own": False, "late": False},
        {"name": "gpu", "url": f"{exporter.url}/metrics", "own": False, "late": False},
    ]
    server = done.run.summary["server"]
    assert server["window"]["whole"] is True
    assert server["notes"] == []
    assert server["replicas"].keys() == {"busy", "idle"}
    assert sum(server["replicas"]["idle"]["requests"].values()) == 0
    assert sum(server["requests"].values()) == 20
    assert server["generation_tokens"] == 20 * 6
    assert server["gpu"]["gpus"] == 2
    lines = server["reconciliation"]
    assert lines["requests"]["explained"] == "They agree, over all 2 replicas."
    assert lines["output_tokens"]["explained"] == "They agree."
    assert lines["prompt_tokens"]["difference"] == 0
    assert lines["ttft_ms"]["server"] <= lines["ttft_ms"]["client"]
    assert done.run.summary["verdict"]["status"] == "valid"
    assert "\nqueue " in done.out
    assert "\nGPU        2 GPUs" in done.out
    assert all("secret-4711" not in str(headers) for _, headers in exporter.seen)
    left = [path.read_bytes() for path in done.run.path.iterdir() if path.is_file()]
    assert not any(b"secret-4711" in content for content in left)


def test_endpoints_that_fail_are_notes_and_the_run_goes_on(tmp_path: Path) -> None:
    """Missing, hanging, no Prometheus: each by its name."""
    port = free_port()
    with simulator() as url, endpoint() as wrong:
        wrong.paths["/json"] = (200, "application/json", "{}")
        wrong.paths["/hangs"] = wrong.hang
        done = run(
            tmp_path / "run", "--profile", forgiving(tmp_path), "--url", url, "--metrics-url",
            f"closed=http://127.0.0.1:{port}/metrics,json={wrong.url}/json,"
            f"hangs={wrong.url}/hangs",
        )  # fmt: skip
    assert done.code == 0, done.err
    notes = {note.split()[3]: note for note in done.run.info["notes"] if "no metrics of" in note}
    assert notes.keys() == {"closed", "json", "hangs"}
    assert "refused" in notes["closed"]
    assert "not Prometheus" in notes["json"]
    assert len(done.run.info["notes"]) == len(set(done.run.info["notes"]))
    server = done.run.summary["server"]
    assert server["kind"] == "vllm"
    assert sum(server["requests"].values()) == 20
    assert server["reconciliation"]["requests"]["explained"] == "They agree."


def test_a_wrong_metrics_url_is_found_before_anything_is_made(tmp_path: Path) -> None:
    """No run directory, no load."""
    done = kvswarm("run", "--metrics-url", "a=ftp://h/m", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.code == 2
    assert "--metrics-url 'ftp://h/m'" in done.err
    assert not (tmp_path / "run").exists()
