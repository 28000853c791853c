"""`--set` with real runs: what `kvswarm run` does, the Locust command that it prints does too."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from running import Run, command, forgiving, kvswarm, run, simulator


def test_settings_reach_the_requests_and_the_printed_locust_command_does_the_same(
    tmp_path: Path,
) -> None:
    """Any key, also one that no flag has; the printed line can be pasted."""
    settings = ("--set", "input_tokens={uniform: {min: 16, max: 40}}", "--set", "max_tokens=3")
    with simulator("--exact", "10", "1") as url:
        ours = run(tmp_path / "ours", "--profile", forgiving(tmp_path), "--url", url, *settings)
        assert ours.code == 0, ours.err
        (printed,) = re.findall(r"The same with plain Locust: (.*)", ours.err)
        words = [sys.executable, "-m", *shlex.split(printed), "--kv-out", tmp_path / "theirs"]
        theirs = command(words, cwd=tmp_path)
    assert theirs.code == 0, theirs.err
    for done in (ours.run, Run(tmp_path / "theirs")):
        assert done.info["profile"]["prompt"]["input_tokens"]["kind"] == "uniform"
        assert {row["completion_tokens"] for row in done.rows} == {3}
    assert ours.run.info["profile"] == Run(tmp_path / "theirs").info["profile"]


def test_a_flag_and_a_setting_of_the_same_key_are_refused(tmp_path: Path) -> None:
    """One of the two would be overruled, and nobody would know which."""
    words = ("run", "--set", "concurrency=3", "--concurrency", "4")
    done = kvswarm(*words, cwd=tmp_path)
    assert done.code == 2
    assert "--set concurrency=3: --concurrency gives the same key" in done.err
