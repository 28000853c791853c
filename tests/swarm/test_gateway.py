"""`kvswarm run --gateway`: connections go to one address, and name the target's host there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "kserve"))
from gateways import Gateway, authority_file
from running import forgiving, run, simulator

from kvswarm.errors import UsageError
from kvswarm.stream.target import Target

HOST = "qwen-llm.example.invalid"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["alone", "workers"])
def test_every_process_names_the_targets_host_to_the_gateway(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    """Preflight, load and metrics alike: a gateway knows a service by nothing else."""
    with simulator("--step-ms", "1") as url, Gateway({HOST: port_of(url)}) as gateway:
        done = run(
            tmp_path / "run",
            *("--profile", forgiving(tmp_path), "--url", f"http://{HOST}"),
            *("--gateway", gateway.url, *processes),
        )
    assert done.code == 0, done.err
    assert {name for _, name in gateway.seen} == {HOST}
    assert done.run.summary["requests"]["ok"] == 20
    assert done.run.info["target"]["base_url"] == f"http://{HOST}:80/v1"
    assert done.run.info["target"]["gateway"] == gateway.url
    assert done.run.summary["server"]["requests"] is not None


def test_tls_names_the_targets_host_and_checks_its_certificate(tmp_path: Path) -> None:
    """The gateway's address has no certificate of its own that could be checked."""
    authority, trusted = authority_file(tmp_path)
    with simulator("--step-ms", "1") as url, Gateway({HOST: port_of(url)}, authority) as gateway:
        done = run(
            tmp_path / "run",
            *("--profile", forgiving(tmp_path), "--url", f"https://{HOST}"),
            *("--gateway", gateway.url, "--ca-file", trusted),
        )
    assert done.code == 0, done.err
    assert set(gateway.seen) == {(HOST, HOST)}
    assert done.run.summary["requests"]["ok"] == 20


def test_the_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    """A gateway that does not know the host shows its default one."""
    authority, trusted = authority_file(tmp_path)
    with Gateway({"other.example.invalid": 1}, authority) as gateway:
        done = run(
            tmp_path / "run",
            *("--profile", forgiving(tmp_path), "--url", f"https://{HOST}"),
            *("--gateway", gateway.url, "--ca-file", trusted),
        )
    assert done.code == 4
    assert "Hostname mismatch" in done.err
    assert f"by {gateway.url}" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--url", "https://a", "--gateway", "http://b"), "the target is https, and the gateway"),
        (("--url", "http://a", "--gateway", "http://b/path"), "must have no path"),
        (("--url", "http://a", "--gateway", "b"), "--gateway 'b': not an http or https URL"),
        (("--gateway", "http://b"), "--gateway: to what?"),
    ],
)
def test_a_gateway_that_makes_no_sense_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Before anything is made."""
    done = run(tmp_path / "run", *arguments)
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "run").exists()


def test_the_port_of_the_gateway_is_no_part_of_the_host() -> None:
    """Routes match the bare host, as KServe writes it."""
    target = Target.of(f"http://{HOST}/llm/qwen/v1", gateway="http://203.0.113.7:31380")
    assert target.address == ("203.0.113.7", 31380)
    head = target.head_bytes("/chat/completions").decode()
    assert head.startswith("POST /llm/qwen/v1/chat/completions HTTP/1.1\r\n")
    assert f"\r\nHost: {HOST}\r\n" in head
    assert target.gateway_url == "http://203.0.113.7:31380"
    with pytest.raises(UsageError, match="not an http"):
        Target.of(f"http://{HOST}", gateway="203.0.113.7")
