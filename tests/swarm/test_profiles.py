"""Every packaged profile and every locustfile, as a person starts them, against simulators.

They are started side by side, three at a time; the tests look at what they left behind.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvswarm.profiles.load import list_profiles

sys.path.insert(0, str(Path(__file__).parent))
from running import CHECKOUT, LOCUST, Done, Run, command, run, simulator

PROFILES = [entry.name for entry in list_profiles()]
LOCUSTFILES = sorted(
    path.stem for path in (CHECKOUT / "locustfiles").glob("*.py") if path.stem != "__init__"
)
SMALL = """\
requests: 12
max_tokens: 16
warmup: null
slo: null
gate: null
verdict: {invalid_error_share: 1.0, invalid_error_ms: 1000000, invalid_send_lag_p99_ms: 1000000}
"""
WARM = {"combinations": 70, "structured_output": 30, "tool_calling": 30}
"""Requests of locustfiles whose profiles have a warm-up that 9 would not outlast."""
QUICK = ("--step-ms", "3", "--decode-us", "1", "--prefill-us", "1")
ALL_FEATURES = (*QUICK, "--lora-modules", "adapter-1", "adapter-2", "adapter-3")


def scaled(folder: Path, name: str, more: str = "") -> Path:
    """A packaged profile in a few short requests, with a verdict that a busy machine passes."""
    path = folder / f"small-{name.replace('/', '-')}.yaml"
    keys = SMALL
    if name == "mixed":
        keys = keys.replace("max_tokens: 16\n", "")
    path.write_text(f"extends: {name}\n{keys}{more}\n")
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Three at a time: each waits for its server most of its time."""
    with ThreadPoolExecutor(3) as executor:
        yield executor


@pytest.fixture(scope="module")
def profile_runs(
    pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[Done]]:
    """Every packaged profile against the embedded simulator, begun at once."""
    folder = tmp_path_factory.mktemp("profiles")
    return {
        name: pool.submit(run, folder / name.replace("/", "-"), "--profile", scaled(folder, name))
        for name in PROFILES
    }


@pytest.fixture(scope="module")
def locust_runs(
    pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Done]]]:
    """Every locustfile on its own, against one simulator that serves all that they ask for."""
    folder = tmp_path_factory.mktemp("locustfiles")

    def start(name: str, url: str) -> Done:
        out = folder / name
        locustfile = CHECKOUT / "locustfiles" / f"{name}.py"
        words = ["-f", locustfile, "--headless", "--only-summary", "--host", url, "--kv-out", out]
        requests = str(WARM.get(name, 9))
        limits = ["--kv-requests", requests, "--kv-max-tokens", "8", "--kv-model", "sim"]
        done = command([*LOCUST, *words, *limits], folder)
        return Done(done.code, done.out, done.err, out)

    with simulator(*ALL_FEATURES) as url:
        yield {name: pool.submit(start, name, url) for name in LOCUSTFILES}


@pytest.mark.parametrize("name", PROFILES)
def test_every_packaged_profile_runs_against_the_simulator(
    profile_runs: dict[str, Future[Done]], name: str
) -> None:
    """Whatever it needs of a real server: it drives its load, and measures every request."""
    done = profile_runs[name].result()
    assert done.code == 0, done.err + done.out
    requests = done.run.summary["requests"]
    assert (requests["failed"], requests["cancelled"]) == (0, 0)
    assert len(done.run.rows) == 12


@pytest.mark.parametrize("name", LOCUSTFILES)
def test_every_locustfile_works_alone(locust_runs: dict[str, Future[Done]], name: str) -> None:
    """Plain Locust needs nothing but the file."""
    done = locust_runs[name].result()
    assert done.code in {0, 1, 3}, done.err  # gates and verdict are of a busy machine
    assert len(done.run.rows) == WARM.get(name, 9)
    assert not done.run.summary["requests"]["failed"], done.run.summary["requests"]
    stem = done.run.info["profile"]["name"].partition("/")[0].replace("-", "_")
    assert stem == name


def test_a_mix_holds_rows_of_its_profiles(profile_runs: dict[str, Future[Done]]) -> None:
    """Each with the variants of its own profile."""
    rows = profile_runs["mixed"].result().run.rows
    assert len({row["scenario"] for row in rows}) >= 2
    assert {row["scenario"] for row in rows} <= {
        "standard", "multi-turn", "structured-output", "tool-calling",
    }  # fmt: skip


FAULTS = {
    "bad-json": ("structured-output", "invalid"),
    "bad-schema": ("structured-output", "invalid"),
    "no-tool-call": ("tool-calling", "no_call"),
    "wrong-tool": ("tool-calling", "wrong_function"),
    "bad-arguments": ("tool-calling", "bad_json"),
    "bad-argument-types": ("tool-calling", "bad_arguments"),
    "unwanted-tool-call": ("tool-calling", "unwanted_call"),
}
"""What a simulator plants, the profile that must find it, and what it must call it."""


@pytest.fixture(scope="module")
def faulty_runs(
    pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[tuple[Run, list[dict[str, Any]]]]]:
    """Runs against simulators that plant one fault in a tenth of the answers."""
    folder = tmp_path_factory.mktemp("faults")

    def start(fault: str, profile: str) -> tuple[Run, list[dict[str, Any]]]:
        truth = folder / f"{fault}.jsonl"
        more = "tool_calling: {no_call_share: 0.5}" if fault == "unwanted-tool-call" else ""
        small = folder / f"{fault}.yaml"
        keys = SMALL.replace("requests: 12\nmax_tokens: 16", "requests: 200\nmax_tokens: 500")
        small.write_text(f"extends: {profile}\nconcurrency: 16\n{keys}{more}\n")
        planted = ("--fault", fault, "--fault-share", "0.1", "--truth-log", str(truth))
        with simulator(*QUICK, *planted) as url:
            done = run(folder / fault, "--profile", small, "--url", url)
        assert done.code == 0, done.err + done.out
        return done.run, [json.loads(line) for line in truth.read_text().splitlines()]

    return {fault: pool.submit(start, fault, profile) for fault, (profile, _) in FAULTS.items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_planted_is_found_and_nothing_else(
    faulty_runs: dict[str, Future[tuple[Run, list[dict[str, Any]]]]], fault: str
) -> None:
    """A scorer that never says invalid, or says it of good answers, would be worth nothing."""
    measured, truth = faulty_runs[fault].result()
    planted = {int(line["id"].rpartition("-")[2]) for line in truth if line["fault"] == fault}
    found = {row["index"] for row in measured.rows if row["output_valid"] is False}
    cut = {row["index"] for row in measured.rows if row["output_score"] == "truncated"}
    asked = {row["index"] for row in measured.rows if row["phase"] == "measure"}
    assert found - cut == planted - cut
    assert len(planted & asked) > 3
    kinds = Counter(row["output_score"] for row in measured.rows if row["index"] in planted - cut)
    expected = FAULTS[fault][1]
    if fault == "wrong-tool":
        assert set(kinds) <= {"wrong_function", "unknown_function"}
    else:
        assert set(kinds) == {expected}
    outputs = measured.summary["outputs"]
    assert outputs["checked"] - outputs["valid"] == len(found & asked)


def test_a_server_that_forgets_its_prefixes_shows_in_hits_and_ttft(tmp_path: Path) -> None:
    """cached_tokens of the usage, per request, against what the simulator planted."""
    truth = tmp_path / "truth.jsonl"
    path = scaled(tmp_path, "prefix-caching", "shared_prefix_share: 1.0")
    path.write_text(path.read_text().replace("requests: 12", "requests: 80"))
    planted = ("--fault", "cold-prefix", "--fault-share", "0.3", "--truth-log", str(truth))
    with simulator(*QUICK, *planted) as url:
        done = run(tmp_path / "run", "--profile", path, "--url", url)
    assert done.code == 0, done.err + done.out
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    cold = {int(line["id"].rpartition("-")[2]) for line in lines if line["fault"] == "cold-prefix"}
    missed = {row["index"] for row in done.run.rows if not row["cached_tokens"]}
    assert cold <= missed
    first_of_their_prefix = 4 * 8  # four prefixes, and the users who sent theirs at the same time
    assert len(missed - cold) <= first_of_their_prefix
    assert len(cold) > 10


def test_tokens_per_event_are_those_that_speculation_gave(tmp_path: Path) -> None:
    """An event may bear several tokens; usage and the truth say how many there were."""
    truth = tmp_path / "truth.jsonl"
    path = scaled(tmp_path, "speculative-decoding", "concurrency: 4")
    path.write_text(path.read_text().replace("max_tokens: 16", "max_tokens: 100"))
    arguments = ("--speculative-tokens", "4", "--acceptance", "0.8", "--truth-log", str(truth))
    with simulator(*QUICK, *arguments) as url:
        done = run(tmp_path / "run", "--profile", path, "--url", url)
    assert done.code == 0, done.err + done.out
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert sum(row["events"] for row in done.run.rows) == sum(line["events"] for line in lines)
    assert {row["completion_tokens"] for row in done.run.rows} == {100}
    speculation = done.run.summary["server"]["speculation"]
    events = sum(line["events"] for line in lines)
    tokens = sum(line["tokens"] for line in lines)
    assert tokens / events > 2
    assert speculation["acceptance_share"] > 0.4
