"""Read the Dockerfile: its instructions in order, each with its stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction. Stages are counted from 0."""

    stage: int
    name: str
    value: str


def instructions() -> list[Instruction]:
    """Every instruction of the file."""
    found: list[Instruction] = []
    stage = -1
    for line in _lines():
        name, _, value = line.partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, value.strip()))
    return found


def _lines() -> Iterator[str]:
    """Lines without comments, continued ones as one."""
    begun = ""
    for line in DOCKERFILE.read_text("utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
        else:
            yield begun
            begun = ""
    assert not begun
