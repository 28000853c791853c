"""Two servers in one run, in alternating blocks: every request at its own, and what differs found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Done, forgiving, kvswarm, run, simulator

from kvswarm.rundir import RunDir
from kvswarm.swarm.plan import interleaving_as

SIZE = ("--requests", "384", "--concurrency", "4", "--max-tokens", "6", "--block", "32")
SLOWER_MS = 12.0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("interleaved")
    with (
        simulator("--exact", "30", "5") as one,
        simulator("--exact", str(30 + SLOWER_MS), "5", "--model", "other") as other,
    ):
        return run(
            folder / "run", "--profile", forgiving(folder), "--interleave", one, other, *SIZE,
            "--processes", "2",
        )  # fmt: skip


def test_the_slower_server_is_told_by_how_much(done: Done) -> None:
    assert done.code == 0, done.err
    section = done.run.summary["interleave"]
    effects = {effect["figure"]: effect for effect in section["effects"]}
    ttft = effects["ttft_p50_ms"]
    assert ttft["pairs"] == 6
    assert ttft["verdict"] == "slower"
    assert ttft["difference"] == pytest.approx(SLOWER_MS, abs=4.0)
    assert "B is slower" in done.out
    assert [arm["model"] for arm in section["arms"]] == ["sim", "other"]


def test_every_request_went_where_its_index_says(done: Done) -> None:
    """Over two processes; the servers' own counts are the judges."""
    info = RunDir(done.run.path).read_info()
    assert info.interleave is not None
    arms = interleaving_as(info.interleave).arms(np.arange(384))
    ttft_ms = np.array([row["ttft_ms"] for row in done.run.rows])
    assert np.median(ttft_ms[arms == 1]) - np.median(ttft_ms[arms == 0]) > SLOWER_MS / 2
    server = done.run.summary["server"]
    counts = [sum(each["requests"].values()) for each in server["replicas"].values()]
    assert counts == [int((arms == 0).sum()), int((arms == 1).sum())]
    assert server["reconciliation"]["output_tokens"]["difference"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--url", "http://127.0.0.1:9"), "it names both targets itself"),
        (("--requests", "100"), "pairs of blocks"),
        (("--block", "6"), "in no figure"),
        (("--serve", "vllm serve x"), "--serve"),
        (("--profile", "multi-turn"), "dialogues"),
    ],
)  # fmt: skip
def test_what_cannot_be_interleaved_is_refused(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    """Before anything is sent: nobody listens at these addresses."""
    targets = ("http://127.0.0.1:1", "http://127.0.0.1:2")
    done = kvswarm(
        "run", "--interleave", *targets, "--requests", "1000", "--concurrency", "4", *flags,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 2, done.err
    assert words in done.err
    assert not (tmp_path / "runs").exists()


def test_a_block_without_a_second_target_is_refused(tmp_path: Path) -> None:
    done = kvswarm("run", "--block", "10", cwd=tmp_path)
    assert done.code == 2
    assert "--block goes with --interleave" in done.err
