"""The image: what the Dockerfile may and may not do, and that what it copies is enough to build."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
sys.path.insert(0, str(Path(__file__).parent))
from containerfile import CHECKOUT, instructions
from running import environ

BASE = r"python:3\.11\.\d+-slim-\w+"


def values(name: str, stage: int | None = None) -> list[str]:
    """What the instructions of a name say."""
    return [i.value for i in instructions() if i.name == name and stage in {None, i.stage}]


def test_both_stages_begin_with_one_exact_python() -> None:
    """The environment is copied between them; `latest` would be another Python tomorrow."""
    images = [value.split(" ")[0] for value in values("FROM")]
    assert len(images) == 2
    assert len(set(images)) == 1
    assert re.fullmatch(BASE, images[0]), images[0]
    minor = images[0].removeprefix("python:").rpartition(".")[0]
    assert f"/lib/python{minor}/site-packages/kvswarm/locustfiles /locustfiles" in " ".join(
        values("RUN", stage=1)
    )
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={minor}"


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    """Kubernetes' runAsNonRoot cannot look into the image's list of names."""
    *_, last = values("USER", stage=1)
    user, _, group = last.partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert int(user) > 0
    assert f"--owner={user} --group={group} /runs" in " ".join(values("RUN", stage=1))
    names = [i.name for i in instructions()]
    assert names.index("USER") > max(n for n, name in enumerate(names) if name in {"RUN", "COPY"})


def test_nothing_is_fetched_but_packages_and_nothing_is_kept_of_that() -> None:
    """ADD fetches what it is told and unpacks what it gets; a cache is weight that nobody uses."""
    assert not values("ADD")
    for command in values("RUN"):
        assert not re.search(r"\b(curl|wget|apt-get|sudo)\b", command)
        for part in command.split("&&"):
            assert "pip" not in part.split() or "--no-cache-dir" in part
    assert not any("pip install" in command for command in values("RUN", stage=1))


def test_no_secret_can_get_into_the_image() -> None:
    """What a build argument or a variable of the image holds, everybody can read who has it."""
    assert not values("ARG")
    assert not re.search(r"(?i)key|token|secret|password", " ".join(values("ENV")))
    assert "COPY . " not in [f"COPY {value} " for value in values("COPY")]


def test_the_image_has_a_health_check_and_commands_in_words() -> None:
    """A command that a shell starts gets no SIGTERM: the run would be killed, rows and all."""
    (check,) = values("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2])[0] == "python"
    (command,) = values("CMD")
    assert json.loads(command) == ["kvswarm", "--help"]
    assert json.loads(values("VOLUME")[0]) == ["/runs"]
    assert values("WORKDIR", stage=1) == ["/"]


def copied() -> list[str]:
    """What is copied from the build's context."""
    return [
        source
        for value in values("COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    ]


def test_the_builds_context_is_what_is_copied_and_nothing_more() -> None:
    """What .dockerignore lets through is sent to the engine, secrets of .env included."""
    lines = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    assert set(rules[1:]) - {f"!{name}" for name in copied()} == {"**/__pycache__"}


def test_what_is_copied_is_enough_to_build_the_whole_wheel(tmp_path: Path) -> None:
    """The image's own step, without its dependencies: it must not need what stays outside."""
    context = tmp_path / "src"
    context.mkdir()
    for name in copied():
        source = CHECKOUT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, context / name, ignore=ignored)
        else:
            shutil.copy(source, context / name)
    (step,) = [value for value in values("RUN", stage=0) if "pip wheel" in value]
    assert step == "pip wheel --no-cache-dir --wheel-dir /wheels ."
    has_backend = importlib.util.find_spec("hatchling") is not None
    more = ("--no-deps", *(("--no-build-isolation",) if has_backend else ()))
    made = subprocess.run(
        [sys.executable, "-m", *step.replace("/wheels", str(tmp_path)).split(), *more],
        check=False, capture_output=True, text=True, cwd=context, env=environ(),
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = tmp_path.glob("kvswarm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {p for p in (CHECKOUT / "kvswarm").rglob("*") if "__pycache__" not in p.parts}
    assert names == {str(p.relative_to(CHECKOUT)) for p in package if p.is_file()}
