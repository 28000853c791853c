"""`kvswarm simulate` as a command: options, the ready line, how it ends, and its page in docs/."""

from __future__ import annotations

import re
import signal
import socket
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kvswarm.errors import TargetError
from kvswarm.simulator.config import FAULTS, SimulatorConfig, parse_arguments
from kvswarm.simulator.launch import start_simulator

sys.path.insert(0, str(Path(__file__).parent))
from simulating import PATIENCE_S, Server, parse_metrics, simulating, start

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_also_amid_streams(number: signal.Signals) -> None:
    """It is stopped that way at the end of every run."""
    with start("--step-ms", "20") as process:
        assert process.stdout is not None
        served = Server(process, int(process.stdout.readline().rpartition(":")[2]))
        connection, response = served.hold(max_tokens=8000)
        assert response.readline()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        response.close()
        connection.close()


def test_it_ends_with_the_process_that_started_it() -> None:
    """`--exit-with-parent` watches standard input, which ends however the parent does."""
    simulator = start_simulator(["--model", "m"])
    assert simulator.process.stdin is not None
    simulator.process.stdin.close()
    assert simulator.process.wait(PATIENCE_S) == 0
    simulator.stop()
    with start("--exit-with-parent") as process:
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0


def test_an_embedded_one_is_not_stopped_by_what_it_complains_of() -> None:
    """Nobody reads its complaints while it runs: 64 KiB of them fill a pipe."""
    with start_simulator() as simulator:
        port = int(simulator.url.rpartition(":")[2])
        for _ in range(2000):  # each is a line of some 40 bytes
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
                sock.sendall(b"no HTTP\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 400")
        assert Server(simulator.process, port).get("/health").status == 200


def test_an_embedded_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its complaint is the message."""
    missing = str(tmp_path / "missing" / "truth")
    with pytest.raises(TargetError, match=f"did not start: .*{missing}: No such file"):
        start_simulator(["--truth-log", missing])


def test_what_cannot_be_had_is_one_message_and_code_2(tmp_path: Path) -> None:
    """A port in use, a file that cannot be written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        missing = str(tmp_path / "missing" / "truth")
        for options, said in ((("--port", port), port), (("--truth-log", missing), missing)):
            with start(*options) as process:
                output, complaint = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, output) == (2, "")
            assert complaint.count("\n") == 1
            assert said in complaint


@pytest.mark.parametrize(
    "argv",
    [
        "--port 65536", "--port x", "--max-num-seqs 0", "--block-size 1.5", "--step-ms 0",
        "--step-ms nan", "--decode-us inf", "--exact 100", "--exact 100 -1", "--fault none",
        "--fault-share 1.1", "--unknown 1", "--speculative-tokens -1", "--acceptance 1.5",
        "--max-loras 0", "--stream-interval 0", "--image-tokens-per-tile 0", "--lora-modules", "--base-path openai", "--base-path /openai/",
    ],
)  # fmt: skip
def test_a_bad_option_is_named(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no traceback."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments(argv.split())
    assert ended.value.code == 2
    assert argv.split(maxsplit=1)[0] in capsys.readouterr().err.splitlines()[-1]


def test_the_page_names_every_option_with_its_default() -> None:
    """Each option of --help has a row, no row is without its option, and defaults are true."""
    with start("--help") as process:
        shown, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
    rows = re.findall(r"^\| `(--[a-z-]+)` \| [^|]+ \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert {option for option, _ in rows} == options
    assert len(rows) == len(options) == len(fields(SimulatorConfig))
    defaults = {field.name: field.default for field in fields(SimulatorConfig)}
    for option, told in rows:
        name = option.removeprefix("--").replace("-", "_").removeprefix("no_")
        default = defaults[name]
        shown_default = "off" if isinstance(default, bool) else str(default).lower()
        assert told == ("none" if default == () else shown_default), option


def test_the_page_names_every_fault_and_every_metric() -> None:
    """A fault or metric without a word on it is not finished."""
    table = PAGE.partition("## Faults")[2].partition("## Metrics")[0]
    assert {*re.findall(r"`([a-z]+[-_0-9a-z]*)`", re.sub(r"(?m)^[^|].*", "", table))} >= {*FAULTS}
    with simulating("--speculative-tokens", "2", "--lora-modules", "one") as running:
        names = {name for name, _ in parse_metrics(running.get("/metrics").body.decode())}
    whole = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert whole == set(re.findall(r"`(vllm:\w+)`", PAGE.partition("## Metrics")[2]))
