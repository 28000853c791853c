"""docker-compose.yml: of the specification's form, closed where it must be, and its commands work.

There is no Docker engine here: the very commands of the file run as processes of this machine, with
the names of services as 127.0.0.1 and free ports in the place of those of the containers.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from composing import CHECKOUT, COMPOSE_FILE, Elsewhere, UnsetError, compose
from containerfile import instructions
from dashboards import asked
from exposition import Samples, parsed, scrape, value
from running import Going, Run, environ, free_port, going, post, until

SCHEMA = Path(__file__).parent / "compose-spec" / "compose-spec.json"
PROMETHEUS = CHECKOUT / "deploy" / "prometheus" / "prometheus.yml"
OURS = {"simulator", "master", "worker"}
PASSWORD = {"GRAFANA_PASSWORD": "of this test alone"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as Compose sees them with nothing set but what must be."""
    found: dict[str, Any] = compose(PASSWORD)["services"]
    return found


def test_the_file_is_of_the_compose_specifications_form() -> None:
    """As written and filled in: a key in the wrong place is refused by Compose, or ignored."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft201909Validator.check_schema(schema)
    check = jsonschema.Draft201909Validator(schema)
    check.validate(yaml.safe_load(COMPOSE_FILE.read_text("utf-8")))
    check.validate(compose(PASSWORD))
    wrong = compose(PASSWORD)
    wrong["services"]["worker"]["port"] = wrong["services"]["master"]["ports"]
    with pytest.raises(jsonschema.ValidationError, match="'port' does not match"):
        check.validate(wrong)


def test_nothing_starts_without_a_password_of_the_users_own(services: dict[str, Any]) -> None:
    """And none is in the repository, in any file that the containers get."""
    for unset in ({}, {"GRAFANA_PASSWORD": ""}):
        with pytest.raises(UnsetError, match="GRAFANA_PASSWORD: set it"):
            compose(unset)
    grafana = services["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == PASSWORD["GRAFANA_PASSWORD"]
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["GF_USERS_ALLOW_SIGN_UP"] == "false"
    example = (CHECKOUT / "deploy" / "example.env").read_text("utf-8")
    given = dict(line.split("=", 1) for line in example.splitlines() if line[:1] not in {"", "#"})
    assert given == {"GRAFANA_PASSWORD": ""}
    ignored = (CHECKOUT / ".gitignore").read_text("utf-8").splitlines()
    assert ".env" in ignored


def test_every_variable_of_the_file_is_in_the_example_and_in_the_docs() -> None:
    """Whoever fills it in must see what there is to be filled in."""
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text("utf-8")))
    example = (CHECKOUT / "deploy" / "example.env").read_text("utf-8")
    assert used == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    docs = (CHECKOUT / "docs" / "containers.md").read_text("utf-8")
    assert used == set(re.findall(r"^\| `([A-Z_]+)` \|", docs, re.MULTILINE))


def test_ports_are_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    """Whoever reaches the web UI makes load; what the workers talk on asks nobody who he is."""
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published == {
        "simulator": [],
        "master": ["127.0.0.1:8089:8089"],
        "worker": [],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_workers_can_be_many(services: dict[str, Any]) -> None:
    """A name or a port of its own would stop the second one."""
    worker = services["worker"]
    assert not {"container_name", "ports", "hostname", "volumes"} & set(worker)
    assert worker["deploy"]["replicas"] >= 1
    assert worker["ulimits"]["nofile"]["soft"] >= 65536


@pytest.mark.parametrize("name", sorted(OURS | {"prometheus", "grafana"}))
def test_every_service_is_bounded_and_comes_back(services: dict[str, Any], name: str) -> None:
    """And has no more rights than it needs, nor an image that changes by itself."""
    service = services[name]
    assert service["restart"] == "unless-stopped"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "cap_add", "pid"} & set(service)
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert re.fullmatch(r"local|v?\d+\.\d+\.\d+", tag), service["image"]
    assert (service.get("build") == ".") == (name in OURS)
    if name in OURS:
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
        assert service["init"] is True


def test_services_that_talk_share_a_network(services: dict[str, Any]) -> None:
    """And only those: Grafana has no way to the workers."""
    for one, other in (
        ("master", "worker"), ("worker", "simulator"), ("master", "simulator"),
        ("prometheus", "master"), ("prometheus", "simulator"), ("grafana", "prometheus"),
    ):  # fmt: skip
        assert set(services[one]["networks"]) & set(services[other]["networks"]), (one, other)
    assert not set(services["grafana"]["networks"]) & set(services["worker"]["networks"])
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services) - {name}


def test_files_that_are_mounted_exist(services: dict[str, Any]) -> None:
    """Docker makes an empty folder of a file that does not."""
    named = set(compose(PASSWORD)["volumes"])
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                assert (CHECKOUT / source).exists(), source
                assert rest.endswith(":ro"), volume
            else:
                assert source in named


# -- the commands ----------------------------------------------------------------------------


@dataclass
class Composed:
    """The services of the file as processes."""

    services: dict[str, Any]
    elsewhere: Elsewhere
    folder: Path

    @contextlib.contextmanager
    def up(self, name: str, copy: str = "") -> Iterator[Going]:
        """Start one container's command, in a root folder that holds `runs`."""
        logs = self.folder / f"{name}{copy}"
        logs.mkdir()
        service = self.services[name]
        command = self.elsewhere.command(service["command"])
        env = {k: self.elsewhere.text(v) for k, v in service.get("environment", {}).items()}
        env |= {"HOME": str(self.folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
        with going(*command, cwd=self.folder, env=env, logs=logs) as started:
            yield started

    def is_healthy(self, name: str) -> bool:
        """Run the health check: the service's, or else the image's."""
        check = self.services[name].get("healthcheck", {}).get("test")
        if check is None:
            (text,) = [i.value for i in instructions() if i.name == "HEALTHCHECK"]
            check = ["CMD", *json.loads(text.partition("CMD ")[2])]
        assert check[0] == "CMD"
        command = self.elsewhere.command(check[1:])
        done = subprocess.run(command, check=False, capture_output=True, env=environ())
        return done.returncode == 0

    def up_and_healthy(self, stack: contextlib.ExitStack, name: str) -> Going:
        """Start a service after those it depends on, and wait for its health."""
        conditions = self.services[name].get("depends_on", {}).values()
        assert {c["condition"] for c in conditions} <= {"service_healthy"}
        assert all(self.is_healthy(other) for other in self.services[name].get("depends_on", {}))
        assert not self.is_healthy(name), "healthy before it was started"
        started = stack.enter_context(self.up(name))
        until(lambda: self.is_healthy(name), f"{name} is healthy")
        return started

    def scraped(self) -> dict[str, Samples]:
        """What Prometheus would get, by job."""
        pages = {}
        for job in yaml.safe_load(PROMETHEUS.read_text("utf-8"))["scrape_configs"]:
            ((target,),) = [config["targets"] for config in job["static_configs"]]
            path = job.get("metrics_path", "/metrics")
            url = f"http://{self.elsewhere.text(target)}{path}"
            pages[job["job_name"]] = scrape(url, parsed)
        return pages


@pytest.fixture
def composed(services: dict[str, Any], tmp_path: Path) -> Composed:
    """The file's services with the ports of this machine."""
    ports = {port: str(free_port()) for port in ("8000", "8089", "5557")}
    return Composed(services, Elsewhere(frozenset(services), ports), tmp_path)


def test_the_commands_of_the_file_make_a_whole_run(composed: Composed) -> None:
    """Simulator, master, two workers, a click on Start: all rows, and figures for the dashboard."""
    with contextlib.ExitStack() as stack:
        composed.up_and_healthy(stack, "simulator")
        master = composed.up_and_healthy(stack, "master")
        workers = [stack.enter_context(composed.up("worker", str(copy))) for copy in (1, 2)]
        until(
            lambda: value(composed.scraped()["kvswarm"], "kvswarm_workers") == 2, "two workers came"
        )
        page = f"http://127.0.0.1:{composed.elsewhere.ports['8089']}"
        post(f"{page}/swarm", "user_count=6&spawn_rate=6&kv_requests=61&kv_max_tokens=6")
        until(lambda: len(list(composed.folder.glob("runs/*/summary.json"))) == 1, "the run ended")
        scraped = composed.scraped()
        master.end(signal.SIGTERM)
        ended = [worker.end() for worker in workers]
    made = {entry.name for entry in composed.folder.iterdir()}
    logs = {"simulator", "master", "worker1", "worker2"}
    assert made - logs == {"runs"}, "the root file system is read-only, and so is what HOME names"
    (path,) = (composed.folder / "runs").iterdir()
    run = Run(path)
    assert run.info["ended"] == "completed"
    assert [row["index"] for row in run.rows] == list(range(61))
    assert {row["error_kind"] for row in run.rows} == {None}
    assert {row["worker"] for row in run.rows} == {0, 1}
    assert [done.code for done in ended] == [0, 0]
    assert value(scraped["kvswarm"], "kvswarm_requests_ok_total") == 61
    seen = {name for samples in scraped.values() for name, _ in samples}
    for one in asked():
        assert one.metrics <= seen | {"kvswarm_requests_failed_total"}, one.panel


def test_the_headless_command_of_the_page_makes_a_whole_run(composed: Composed) -> None:
    """docs/containers.md shows it for CI: a run without a web UI, and its exit code."""
    text = (CHECKOUT / "docs" / "containers.md").read_text("utf-8")
    (line,) = re.findall(r"^    docker compose run --rm master (.*)$", text, re.MULTILINE)
    with contextlib.ExitStack() as stack:
        composed.up_and_healthy(stack, "simulator")
        command = composed.elsewhere.command(line.split())
        done = stack.enter_context(going(*command, cwd=composed.folder)).end()
    assert done.code == 0, done.err
    (path,) = (composed.folder / "runs").iterdir()
    assert Run(path).summary["requests"]["ok"] == 50
