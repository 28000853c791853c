"""What people install: wheel and sdist hold the whole package and nothing else, and it runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

sys.path.insert(0, str(Path(__file__).parent / "swarm"))
from running import CHECKOUT, Done, Run, command, environ, forgiving


@dataclass(frozen=True)
class Built:
    """The distributions, and the folder where the wheel was installed."""

    wheel: Path
    sdist: Path
    installed: Path

    def python(self, *arguments: str | Path, cwd: Path) -> Done:
        """Python that finds the installed package before the checkout."""
        env = {"PYTHONPATH": str(self.installed)}
        return command([sys.executable, "-P", *arguments], cwd=cwd, env=env)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist from the checkout, the wheel from the sdist, the wheel installed."""
    folder = tmp_path_factory.mktemp("dist")
    has_backend = importlib.util.find_spec("hatchling") is not None
    isolation = ("--no-isolation", "--skip-dependency-check") if has_backend else ()
    build = (sys.executable, "-m", "build", *isolation, "--outdir", folder, CHECKOUT)
    made = subprocess.run(build, check=False, capture_output=True, text=True, env=environ())
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    there = folder / "installed"
    subprocess.run((*pip, "--target", there, wheel), check=True, env=environ())
    return Built(wheel, sdist, there)


def package_files() -> set[str]:
    """Every file of the package in the checkout."""
    package = CHECKOUT / "kvswarm"
    return {
        path.relative_to(CHECKOUT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_whole_package_and_nothing_beside_it(built: Built) -> None:
    """A top-level `kserve` would hide KServe's own SDK; the root's links must not come along."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    needed = {"profiles/standard.yaml", "profiles/profile.schema.json",
              "analysis/summary.schema.json", "locustfiles/standard.py", "kserve/__init__.py"}  # fmt: skip
    assert {f"kvswarm/{name}" for name in needed} <= names


def test_the_sdist_holds_the_whole_package_and_its_papers(built: Built) -> None:
    """Not the tests, nor what lies about in a checkout."""
    with tarfile.open(built.sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(n).parts[1:]).as_posix() for n in archive.getnames()}
    assert {name for name in names if name.startswith("kvswarm/")} == package_files()
    beside = {name for name in names if not name.startswith("kvswarm/")}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"} <= beside
    assert beside <= {
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }


def test_the_installed_command_runs_outside_of_the_checkout(built: Built, tmp_path: Path) -> None:
    """By its script and as a module, on its own files."""
    where = built.python("-c", "import kvswarm; print(kvswarm.__file__)", cwd=tmp_path)
    assert where.out.strip() == str(built.installed / "kvswarm" / "__init__.py"), where.err
    script = built.python(built.installed / "bin" / "kvswarm", "profiles", cwd=tmp_path)
    assert script.code == 0, script.err
    assert "standard" in script.out
    assert built.python("-m", "kvswarm", "--help", cwd=tmp_path).code == 0


def test_the_installed_package_measures(built: Built, tmp_path: Path) -> None:
    """Every part of it is there: simulator, Locust's files, analysis with its schema, report."""
    done = built.python(
        "-m", "kvswarm", "run", "--json", "--profile", forgiving(tmp_path), "--requests", "5",
        "--out", tmp_path / "run", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["requests"]["ok"] == 5
    run = Run(tmp_path / "run")
    assert len(run.rows) == 5
    locustfile = Path(run.info["locust_argv"][run.info["locust_argv"].index("-f") + 1])
    assert locustfile.is_relative_to(built.installed)
