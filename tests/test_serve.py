"""`kvswarm run --serve`: a server that lives as long as the run, started as its profile wants it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from kvswarm.commands.serve import Serve, _Interrupts, server_command, without_key
from kvswarm.commands.wanted import server_features
from kvswarm.errors import ProfileError, UsageError
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.overrides import Overrides

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from running import KVSWARM, forgiving, going, kvswarm, run, until
from serving_scripts import FAIL, HANG, SERVE, SERVE_UNTIL_TOLD, STUBBORN, script

SPECULATIVE = "{method: ngram, num_speculative_tokens: 3, prompt_lookup_max: 4}"


def features(folder: Path) -> Path:
    """A profile with something for each way that a server is told."""
    return forgiving(
        folder,
        f"speculative: {SPECULATIVE}\n"
        "vllm_features: {max_num_seqs: 32, enable_prefix_caching: false, device: cpu}",
    )


# -- a run with a server of its own ----------------------------------------------------------


def test_the_server_is_started_with_the_flags_of_the_profile_and_stopped_after_the_run(
    tmp_path: Path,
) -> None:
    """As a person would write them, after what the command has itself; its output is kept."""
    server = script(tmp_path, SERVE)
    command = f"{server.path} serve 'my model' --api-key key-0815"
    done = run(tmp_path / "run", "--profile", features(tmp_path), "--serve", command)
    assert done.code == 0, done.err
    (start,) = server.starts
    words = start["words"]
    assert words[:4] == ["serve", "my model", "--api-key", "key-0815"]
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config == {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
    assert words[words.index("--max-num-seqs") + 1] == "32"
    assert "--no-enable-prefix-caching" in words
    port = words[words.index("--port") + 1]
    assert done.run.info["target"]["base_url"] == f"http://127.0.0.1:{port}/v1"
    assert done.run.info["target"]["simulator"] is False
    assert done.run.summary["requests"]["ok"] == 20
    assert done.run.summary["server"]["speculation"]["draft_tokens"] > 0
    log = (done.run.path / "server.log").read_text()
    assert f"serving on {port}" in log
    assert "device is left out" in done.err
    assert "--set warmup.requests=8" in done.err
    assert "key-0815" not in done.err + log + json.dumps(done.run.info)
    assert server.left() == []


def test_the_port_goes_where_the_command_has_a_place_for_it(tmp_path: Path) -> None:
    """Not every server calls it --port."""
    server = script(tmp_path, f"words += ['--port', flag('--listen')[5:]]\n{SERVE}")
    command = f"{server.path} --listen here:{{port}}"
    done = run(tmp_path / "run", "--profile", forgiving(tmp_path), "--serve", command)
    assert done.code == 0, done.err
    (start,) = server.starts
    assert "--port" not in start["words"]
    port = start["words"][1].removeprefix("here:")
    assert done.run.info["target"]["base_url"] == f"http://127.0.0.1:{port}/v1"


def test_a_server_that_ends_amid_the_run_is_told(tmp_path: Path) -> None:
    """Otherwise a run of failures looks like a bad network."""
    server = script(tmp_path, SERVE_UNTIL_TOLD)
    profile = forgiving(
        tmp_path, "duration_s: 600\ntimeouts: {connect_s: 1}\ngate: {error_share: 0}"
    )
    with going(
        *KVSWARM, "run", "--profile", profile, "--serve", str(server.path), "--out", "run",
        cwd=tmp_path,
    ) as started:  # fmt: skip
        journal = tmp_path / "run" / "requests.journal"
        until(lambda: journal.exists() and journal.stat().st_size > 1000, "rows were written")
        Path(f"{server.path}.end").touch()
        until(lambda: not server.left(), "the server has ended")
        done = started.end(signal.SIGINT)
    assert done.code == 130
    assert "it ended with code 9 before the run was over" in done.err


# -- servers that do not start: exit code 4 --------------------------------------------------


def test_a_server_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    """At once, not after a deadline; and the directory can be used again."""
    broken = script(tmp_path, FAIL, "broken")
    out = tmp_path / "run"
    done = run(out, "--profile", forgiving(tmp_path), "--serve", str(broken.path))
    assert done.code == 4
    assert "it ended with code 7 before it was ready" in done.err
    assert "    no such model\n" in done.err
    assert "line 39" in done.err
    assert "line 5\n" not in done.err
    assert str(out / "server.log") in done.err
    assert "Traceback" not in done.err
    assert [entry.name for entry in out.iterdir()] == ["server.log"]
    again = run(out, "--profile", forgiving(tmp_path), "--serve", str(script(tmp_path, SERVE).path))
    assert again.code == 0, again.err
    assert "no such model" not in (out / "server.log").read_text()


def test_a_server_that_is_not_healthy_in_time_is_stopped(tmp_path: Path) -> None:
    """A model that loads for ever must not keep the GPU."""
    server = script(tmp_path, HANG)
    done = run(
        tmp_path / "run", "--profile", forgiving(tmp_path), "--serve", str(server.path),
        "--serve-timeout", "3",
    )  # fmt: skip
    assert done.code == 4
    assert "did not answer 200 within 3 s" in done.err
    assert len(server.starts) == 1
    assert server.left() == []


# -- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_server_starts_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Loading takes minutes, and a person may have seen a mistake in the meantime."""
    server = script(tmp_path, HANG)
    with going(
        *KVSWARM, "run", "--profile", forgiving(tmp_path), "--serve", str(server.path),
        cwd=tmp_path,
    ) as started:  # fmt: skip
        until(lambda: bool(server.starts), "the server was started")
        done = started.end(number)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert server.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_the_load_keeps_what_was_measured_and_stops_the_server(
    number: signal.Signals, tmp_path: Path
) -> None:
    """The load first: its requests in flight are kept."""
    server = script(tmp_path, SERVE)
    profile = forgiving(tmp_path, "duration_s: 600")
    with going(
        *KVSWARM, "run", "--profile", profile, "--serve", str(server.path), "--out", "run",
        cwd=tmp_path,
    ) as started:  # fmt: skip
        journal = tmp_path / "run" / "requests.journal"
        until(lambda: journal.exists() and journal.stat().st_size > 1000, "rows were written")
        done = started.end(number)
    assert done.code == 130
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["requests"]["ok"] > 0
    assert server.left() == []


def test_who_asks_twice_has_a_stubborn_server_killed_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    """It gets 20 s to end in order, unless a person presses; its children are not forgotten."""
    server = script(tmp_path, STUBBORN)
    with going(
        *KVSWARM, "run", "--profile", forgiving(tmp_path), "--serve", str(server.path),
        cwd=tmp_path,
    ) as started:  # fmt: skip
        child = Path(f"{server.path}.child")
        until(lambda: child.exists() and bool(child.read_text()), "it has a child")
        assert len(server.left()) == 2
        started.process.send_signal(signal.SIGINT)
        asked = Path(f"{server.path}.asked")
        until(asked.exists, "it was asked to end")
        started.process.send_signal(signal.SIGTERM)
        until(lambda: started.process.poll() is not None or not server.left(), "it was killed")
        done = started.end()
    assert done.code == 130
    assert server.left() == []


def test_only_the_first_of_many_signals_is_raised_at_once() -> None:
    """A second one that came before the server is being stopped would have it forgotten."""
    noted = False
    with pytest.raises(KeyboardInterrupt), _Interrupts() as interrupts:  # noqa: PT012
        interrupts.release()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        noted = interrupts.pending
    assert noted
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_while_the_server_is_being_started_waits_until_it_can_be_stopped() -> None:
    """Raised amid the start, it would leave a process that nobody knows of."""
    with _Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.pending
        with pytest.raises(KeyboardInterrupt):
            interrupts.release()
        assert not interrupts.pending


def test_a_server_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    """Nobody can act on `kill -9` but another process."""
    server = script(tmp_path, HANG)
    with going(
        *KVSWARM, "run", "--profile", forgiving(tmp_path), "--serve", str(server.path),
        cwd=tmp_path,
    ) as started:  # fmt: skip
        until(lambda: bool(server.starts), "the server was started")
        assert len(server.left()) == 1
        started.process.kill()
        started.process.wait()
        until(lambda: not server.left(), "the server has ended")


# -- bad usage: exit code 2, and nothing is started ------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--serve SERVER --url http://127.0.0.1:9", "--serve with --url"),
        ("--serve './absent serve'", "'./absent' is no program"),
        ("--serve ''", "is no program"),
        ('--serve "SERVER \'open"', "No closing quotation"),
        ("--serve SERVER --serve-version new", "vLLM's version is 'new'"),
        ("--serve SERVER --serve-timeout 0", "--serve-timeout"),
        ("--serve-version 0.30", "go with --serve"),
        ("--serve-timeout 5", "go with --serve"),
        ("--serve SERVER --set vllm_features.max_num_sec=3", "Did you mean 'max_num_seqs'?"),
        ("--serve SERVER --set speculative=auto", "names no model"),
        ("--serve 'SERVER serve gpt2' --set speculative=auto", "no draft is known for 'gpt2'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_started(
    words: str, told: str, tmp_path: Path
) -> None:
    """Also with --dry-run, which checks the same."""
    server = script(tmp_path, SERVE)
    given = [word.replace("SERVER", str(server.path)) for word in shlex.split(words)]
    done = kvswarm("run", "--out", "run", "--dry-run", *given, cwd=tmp_path)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()
    assert server.starts == []


def test_dry_run_shows_the_command_of_the_server_and_starts_nothing(tmp_path: Path) -> None:
    """What will be typed for me; by the flags of the version that I have."""
    server = script(tmp_path, SERVE)
    done = kvswarm(
        "run", "--profile", features(tmp_path), "--serve", f"{server.path} --api-key=key-0815",
        "--serve-version", "0.6.0", "--dry-run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert "--speculative-model '[ngram]'" in shown["server"]
    assert shown["server"].endswith("--port PORT")
    assert "key-0815" not in done.out
    (note,) = [note for note in shown["server_notes"] if "warm-up" in note]
    warm = kvswarm(
        "run", "--serve", str(server.path), "--set", "warmup.requests=8", "--dry-run", cwd=tmp_path
    )
    assert note not in warm.out
    assert server.starts == []


# -- decisions -------------------------------------------------------------------------------


def flags_for(command: str, profile: str, *settings: str, model: str | None = None) -> list[str]:
    """The whole command line at port 8000, served by this python."""
    loaded = load_profile(profile, Overrides(settings=settings))
    serve = Serve(command=f"{shlex.quote(sys.executable)} {command}")
    return server_command(serve, loaded, model).at(8000)[1:]


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("serve meta-llama/Llama-3.1-8B-Instruct", None),
        ("serve --model meta-llama/Llama-3.1-8B-Instruct", None),
        ("serve --model=meta-llama/Llama-3.1-8B-Instruct", "served-under-another-name"),
        ("start", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_auto_is_the_draft_of_the_model_that_is_served(command: str, model: str | None) -> None:
    """The command knows it better than --model, which may be a name of the server's own."""
    words = flags_for(command, "standard", "speculative=auto", model=model)
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config["num_speculative_tokens"] >= 1
    assert config["method"] in {"draft_model", "eagle3", "eagle"}


def test_a_models_own_config_says_whether_the_draft_fits(tmp_path: Path) -> None:
    """Its vocabulary may have been changed; the table knows the original only."""
    model = tmp_path / "Llama-3.1-8B-Instruct"
    model.mkdir()
    (model / "config.json").write_text('{"vocab_size": 77}')
    with pytest.raises(ProfileError, match=r"vocab_size is .* and 77 in the model"):
        flags_for(f"serve {shlex.quote(str(model))}", "standard", "speculative=auto")


def test_the_parts_of_a_mix_share_one_server_and_must_agree(tmp_path: Path) -> None:
    """A server cannot draft 3 tokens for one request and 5 for the next."""
    for name, tokens in (("a", 3), ("b", 5)):
        (tmp_path / f"{name}.yaml").write_text(
            "extends: standard\n"
            f"speculative: {{method: ngram, num_speculative_tokens: {tokens}}}\n"
            f"vllm_features: {{{'max_num_seqs' if name == 'a' else 'max_model_len'}: 64}}\n"
        )
    mix = tmp_path / "mix.yaml"
    mix.write_text("requests: 9\nconcurrency: 1\nmix: {./a.yaml: 1, ./b.yaml: 1}\n")
    with pytest.raises(ProfileError, match="one server with speculative") as caught:
        server_features(load_profile(str(mix)))
    assert "--set speculative=VALUE" in caught.value.fix
    same = Overrides(settings=(f"speculative={SPECULATIVE}",))
    found = server_features(load_profile(str(mix), same))
    assert (found["max_num_seqs"], found["max_model_len"]) == (64, 64)
    assert found["speculative"]["num_speculative_tokens"] == 3


def test_a_command_without_words_is_refused() -> None:
    """An empty variable in a shell script ends up so."""
    with pytest.raises(UsageError):
        server_command(Serve(command="  "), load_profile("standard"), None)


@pytest.mark.parametrize("given", ["--api-key k-1", "--api-key=k-1", "--api-key 'k-1 k-1' --x"])
def test_the_key_of_a_server_is_masked_wherever_its_command_is_shown(given: str) -> None:
    """In run.json, in the log and on the screen."""
    assert "k-1" not in without_key(f"vllm serve m {given} --port 1")
    assert without_key("vllm serve m --port 1") == "vllm serve m --port 1"
