"""The command line as scripts and people meet it: exit codes, messages, help, and no secrets."""

from __future__ import annotations

import http.server
import json
import re
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from kvswarm import profiles
from kvswarm.cli import commands, main
from kvswarm.commands.profiles import USE_CASES

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
from running import KVSWARM, Done, forgiving, going, kvswarm, run, simulator

NOBODY = "http://127.0.0.1:9"

TypeIn = Callable[..., Done]


@pytest.fixture
def type_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> TypeIn:
    """`kvswarm WORDS` from its entry point to its exit, without the wait for a new Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")

    def start(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["kvswarm", *words])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, out, err)

    return start


# -- bad input: exit code 2 ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rnu", "Did you mean 'run'?"),
        ("run --profil standard", "--profile"),
        ("report --jsn here", "--json"),
        ("run surplus", "surplus"),
        ("run --profile standart", "Did you mean 'standard'?"),
        ("run --profile ./key.yaml", "./key.yaml:2: concurency is not a key"),
        ("run --profile ./value.yaml", "./value.yaml:3: concurrency is 0"),
        ("run --profile ./broken.yaml", "./broken.yaml:2: not YAML"),
        ("run --profile ./absent.yaml", "absent.yaml: there is no such profile"),
        ("run --requests 0", "--requests: requests is 0; must be at least 1"),
        ("run --requests many", "'many' is not a valid integer"),
        ("run --rate -2.5", "--rate"),
        ("run --endpoint embeddings", "'chat', 'completions'"),
        ("run --processes 0", "--processes"),
        ("run --url ftp://127.0.0.1", "not an http or https URL"),
        ("run --url http://me:pass@127.0.0.1", "--api-key-env"),
        (f"run --url {NOBODY} --api-key-env ABSENT", "ABSENT: no such variable"),
        (f"run --url {NOBODY} --header no-colon", "'Name: value'"),
        (f"run --url {NOBODY.replace('http', 'https')} --ca-file absent.pem", "absent.pem"),
        ("run --out full", "full: the run directory holds files already"),
        ("run --profile ./prompts.yaml", "none.jsonl"),
        ("run --profile ./name.yaml", "./name.yaml:1: name is '../standard'"),
        ("run --dry-run --profile ./prompts.yaml", "none.jsonl"),
        ("run --dry-run --url ftp://127.0.0.1", "not an http or https URL"),
        ("run --dry-run --header no-colon", "'Name: value'"),
        ("run --dry-run --api-key-env ABSENT", "ABSENT: no such variable"),
        ("run --dry-run --out full", "full: the run directory holds files already"),
        ("run --dry-run --url https://127.0.0.1 --ca-file absent.pem", "absent.pem"),
        ("report absent", "absent: no run.json here"),
        ("simulate --prot 1", "--prot"),
        ("simulate --fault none", "status-429"),
    ],
)
def test_bad_input_ends_with_2_and_a_message_that_helps(
    words: str, told: str, tmp_path: Path, type_in: TypeIn
) -> None:
    """What was wrong, where, and the nearest valid name; never a traceback."""
    (tmp_path / "key.yaml").write_text("pattern: steady\nconcurency: 3\nrequests: 5\n")
    (tmp_path / "value.yaml").write_text("pattern: steady\nrequests: 5\nconcurrency: 0\n")
    (tmp_path / "broken.yaml").write_text("pattern: [steady\n")
    (tmp_path / "prompts.yaml").write_text("extends: standard\nprompts: ./none.jsonl\n")
    (tmp_path / "name.yaml").write_text("name: ../standard\nextends: standard\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = type_in(*words.split())
    assert done.code == 2
    assert told in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert ":pass@" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


# -- a missed gate, a doubtful measurement, no target: exit codes 1, 3, 4 --------------------


def test_a_missed_service_level_ends_with_1_and_an_invalid_measurement_with_3(
    tmp_path: Path,
) -> None:
    """Nothing arrives within a microsecond, and no request is sent within a nanosecond."""
    slo = forgiving(tmp_path, "slo: {ttft_p99_ms: 0.001}").rename(tmp_path / "slo.yaml")
    late = forgiving(
        tmp_path,
        "pattern: constant\nrate_rps: 100\nconcurrency: null\n"
        "verdict: {degraded_send_lag_p99_ms: 0.000001, invalid_send_lag_p99_ms: 0.000001}",
    )
    with simulator("--exact", "10", "1") as url, ThreadPoolExecutor(2) as pool:
        missed, invalid = pool.map(
            lambda profile: run(tmp_path / profile.stem, "--profile", profile, "--url", url),
            (slo, late),
        )
    assert missed.code == 1, missed.err
    assert "MISSED" in missed.out
    (gate,) = missed.run.summary["gates"]
    assert (gate["name"], gate["passed"]) == ("ttft_p99_ms", False)
    assert missed.run.summary["goodput"]["share"] == 0.0
    assert missed.run.summary["requests"]["ok"] == 20
    assert invalid.code == 3, invalid.err
    assert invalid.run.summary["verdict"]["status"] == "invalid"
    assert "sent late" in invalid.out


def test_no_target_ends_with_4_and_leaves_nothing(tmp_path: Path) -> None:
    """Refused, and a server that takes the connection but never answers."""
    patient = forgiving(tmp_path, "timeouts: {connect_s: 0.3}")
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url, told in ((NOBODY, "refused"), (address, "no answer in time")):
            done = run(out, "--profile", patient, "--url", url)
            assert done.code == 4
            assert url in done.err
            assert told in done.err
            assert "Traceback" not in done.err
            assert not out.exists()


# -- secrets ---------------------------------------------------------------------------------

SECRETS = ("key-0815", "bearer-4711", "cookie-2342")


class Echo(http.server.BaseHTTPRequestHandler):
    """A server that streams one answer, and for the next puts its request into an error."""

    protocol_version = "HTTP/1.1"
    server: Echoes

    def do_GET(self) -> None:
        """One model."""
        self._answer(200, "application/json", b'{"data": [{"id": "echo"}]}')

    def do_POST(self) -> None:
        """Good, bad, good, ..."""
        self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append(dict(self.headers))
        if len(self.server.heard) % 2:
            events = (
                {"choices": [{"delta": {"content": " a"}}]},
                {"choices": [{"delta": {}, "finish_reason": "length"}]},
            )
            body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)
            self._answer(200, "text/event-stream", body + b"data: [DONE]\n\n")
        else:
            told = json.dumps({"error": {"message": f"your request: {dict(self.headers)}"}})
            self._answer(400, "application/json", told.encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Echoes(http.server.ThreadingHTTPServer):
    """Remembers the headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard: list[dict[str, str]] = []


@dataclass(frozen=True)
class Secretive:
    """A run with secrets, and the headers that the server got."""

    done: Done
    heard: list[dict[str, str]]


@pytest.fixture(scope="module")
def secretive(tmp_path_factory: pytest.TempPathFactory) -> Secretive:
    """One secret from the environment, two from the command line."""
    folder = tmp_path_factory.mktemp("secrets")
    with Echoes() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = run(
            folder / "run", "--profile", forgiving(folder), "--api-key-env", "MY_KEY",
            "--url", f"http://127.0.0.1:{server.server_port}/v1",
            "--header", f"X-Authorization: Bearer {SECRETS[1]}",
            f"--header=Cookie: session={SECRETS[2]}", "--processes", "2",
            env={"MY_KEY": SECRETS[0]},
        )  # fmt: skip
        server.shutdown()
    return Secretive(done, server.heard)


def test_keys_and_headers_reach_the_server_with_every_request(secretive: Secretive) -> None:
    """From the environment of the processes that send."""
    assert secretive.done.run.summary["requests"]["ok"] == 10, secretive.done.err
    assert len(secretive.heard) == 20
    for headers in secretive.heard:
        assert headers["Authorization"] == f"Bearer {SECRETS[0]}"
        assert headers["X-Authorization"] == f"Bearer {SECRETS[1]}"
        assert headers["Cookie"] == f"session={SECRETS[2]}"


def test_no_secret_is_in_the_run_directory_or_the_output(secretive: Secretive) -> None:
    """Not even where the server's error quotes the request; Parquet is read, as it is packed."""
    run = secretive.done.run
    texts = {
        entry.name: entry.read_bytes().decode("utf-8", "replace") for entry in run.path.iterdir()
    }
    texts |= {"rows": repr(run.rows), "out": secretive.done.out, "err": secretive.done.err}
    leaks = [(name, secret) for name, text in texts.items() for secret in SECRETS if secret in text]
    assert leaks == []
    assert {row["error_kind"] for row in run.rows} == {None, "http_400"}
    assert "X-Authorization: ***" in run.info["argv"]


# -- help ------------------------------------------------------------------------------------


def test_a_mistake_of_a_person_is_no_traceback_of_a_process(tmp_path: Path) -> None:
    """The same in a process of its own: what a shell sees."""
    done = kvswarm("run", "--profile", "standart", cwd=tmp_path)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("kvswarm: profile 'standart': there is no such profile\n")
    assert done.err.endswith("Did you mean 'standard'?\n")
    assert done.err.count("\n") == 2


def test_help_lists_every_command_and_version_says_which(tmp_path: Path) -> None:
    """The first thing that anybody types."""
    shown = kvswarm("--help", cwd=tmp_path)
    assert shown.code == 0
    for name in commands.commands:
        assert re.search(rf"^  {name}  +\S", shown.out, re.MULTILINE), name
    version = kvswarm("--version", cwd=tmp_path)
    assert version.code == 0
    assert re.search(r"kvswarm.*\d+\.\d+\.\d+", version.out)


@pytest.mark.parametrize("name", commands.commands)
def test_every_command_explains_itself(name: str, tmp_path: Path, type_in: TypeIn) -> None:
    """What it does, a line to paste, and every option of it."""
    shown = type_in(name, "--help")
    assert shown.code == 0
    assert shown.err == ""
    command = commands.commands[name]
    assert f"Example: kvswarm {name}" in (command.help or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in shown.out
    assert list(tmp_path.iterdir()) == []


def test_profiles_lists_every_packaged_profile(type_in: TypeIn) -> None:
    """By name, pattern, use cases and needs; the older flag of `run` does the same."""
    listed = type_in("profiles")
    assert listed.code == 0
    folder = Path(profiles.__path__[0])
    packaged = {
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    }
    heads = [line.split() for line in listed.out.split("\n\n")[0].splitlines() if line[0] != " "]
    assert {head[0] for head in heads} == packaged
    assert all(len(head) > 2 for head in heads), "a profile is recommended for nothing"
    assert "an FP8 checkpoint" in listed.out
    assert type_in("run", "--list-profiles").out == listed.out


@pytest.mark.parametrize("use_case", USE_CASES)
def test_every_use_case_is_answered_with_what_to_expect(type_in: TypeIn, use_case: str) -> None:
    """A name without a word on what it will show helps nobody to choose."""
    told = type_in("profiles", "--use-case", use_case)
    assert told.code == 0
    names = told.out.count("kvswarm run --profile")
    assert names >= 1
    assert told.out.count("  expect ") == names
    asked = json.loads(type_in("profiles", "--use-case", use_case, "--json").out)
    assert len(asked) == names
    assert all(use_case in entry["recommended_for"] for entry in asked)


def test_a_use_case_that_is_none_names_the_nearest(type_in: TypeIn) -> None:
    """With exit code 2, as for every mistake of a command line."""
    told = type_in("profiles", "--use-case", "latancy")
    assert told.code == 2
    assert "Did you mean 'latency'?" in told.err


def test_one_profile_is_shown_as_it_is_resolved(type_in: TypeIn) -> None:
    """With all that it extends."""
    shown = yaml.safe_load(type_in("profiles", "combinations/low-latency").out)
    assert shown["speculative"]["method"] == "ngram"
    assert shown["vllm_features"]["quantization"] == "fp8"
    assert shown["load"]["concurrency"] == 2


# -- the simulator as a command --------------------------------------------------------------


def test_simulate_says_where_it_listens_and_ends_with_a_signal(tmp_path: Path) -> None:
    """One line on standard output, for people and for scripts that wait for it."""
    with going(*KVSWARM, "simulate", "--model", "tiny", cwd=tmp_path) as started:
        address = started.address()
        with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as response:  # noqa: S310
            assert json.load(response)["data"][0]["id"] == "tiny"
        done = started.end(signal.SIGINT)
    assert done.code == 0
    assert done.out == f"kvswarm simulator on {address}\n"
    assert done.err == ""


LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_profile_tells_how_to_start_its_server_and_how_large_it_is(
    type_in: TypeIn, tmp_path: Path
) -> None:
    """A person copies the line; the memory is what the model's own config.json gives."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA_8B))
    told = type_in("profiles", "quantization/fp8", "--flags", "--model", "model").out
    command, *notes = told.splitlines()
    assert command.startswith("vllm serve model --quantization fp8 --kv-cache-dtype fp8 ")
    assert all(note.startswith("# ") for note in notes)
    assert "8,030.3 million parameters" in told
    assert "65.5 kB of KV cache a token" in told  # 2 x 32 layers x 8 heads x 128 x 1 byte


def test_flags_are_those_of_the_version_that_reads_them(type_in: TypeIn) -> None:
    """Speculation was spelled out before 0.9."""
    old = type_in("profiles", "speculative-decoding", "--flags", "--vllm-version", "0.6.3").out
    new = type_in("profiles", "speculative-decoding", "--flags").out
    assert "--num-speculative-tokens 4" in old
    assert "--speculative-config" not in old
    assert "--speculative-config '{" in new


def test_automatic_speculation_asks_for_the_model(type_in: TypeIn, tmp_path: Path) -> None:
    """And refuses, with the reason, where no draft fits."""
    profile = tmp_path / "auto.yaml"
    profile.write_text("extends: standard\nspeculative: auto\n")
    asked = type_in("profiles", str(profile), "--flags")
    assert (asked.code, "--model" in asked.err) == (2, True)
    chosen = type_in(
        "profiles", str(profile), "--flags", "--model", "meta-llama/Llama-3.1-70B-Instruct"
    )
    assert "Llama-3.2-1B" in chosen.out
    refused = type_in("profiles", str(profile), "--flags", "--model", "Qwen/Qwen2.5-7B-Instruct")
    assert refused.code == 2
    assert "152064" in refused.err
    assert "ngram" in refused.err
    assert type_in("profiles", "--flags").code == 2
