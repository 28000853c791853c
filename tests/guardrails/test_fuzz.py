"""Profiles with anything anywhere: findings, and never a traceback.

KVSWARM_FUZZ=10000 python -m pytest tests/guardrails/test_fuzz.py    tries more of them.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from kvswarm.cli import commands
from kvswarm.errors import KvswarmError
from kvswarm.profiles.load import PACKAGED, packaged_names

COUNT = int(os.environ.get("KVSWARM_FUZZ", "300"))
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 10**12, 0.5, -0.1, float("inf"), float("nan"), "", "x", "auto",
    "0", "fp8", "a\nb", "\u2028", "${HOME}", "../../etc/passwd", [], [1], ["a", "b"], {}, {"a": 1},
    {"backend": 3}, [[]], {"": None}, {1: 2}, "9" * 400, [None], {"method": "ngram"},
)  # fmt: skip
SERVERS: tuple[tuple[str, ...], ...] = (
    (), ("--runtime-version", "0.4.0"), ("--runtime-version", "0.24.0", "--gpu", "A100-80GB"),
    ("--backend", "tgi"), ("--backend", "triton", "--replicas", "0"), ("--gpu", "cpu"),
    ("--backend", "vllm", "--mode", "knative", "--gpu", "H100", "--mig", "1g.10gb"),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index in a document."""
    found = [at] if at else []
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        found += places(child, (*at, key))
    return found


def mutated(document: dict[str, Any], words: list[str], rng: random.Random) -> dict[str, Any]:
    """Change, drop, add or swap some of its values."""
    changed = copy.deepcopy(document)
    for _ in range(rng.randint(1, 4)):
        at = rng.choice(places(changed) or [("requests",)])
        holder: Any = changed
        for key in at[:-1]:
            holder = holder[key]
        how = rng.random()
        if how < 0.15 and isinstance(holder, dict):
            holder.pop(at[-1], None)
        elif how < 0.5 and isinstance(holder, dict):
            holder[rng.choice(words)] = copy.deepcopy(rng.choice(VALUES))
        else:
            holder[at[-1]] = copy.deepcopy(rng.choice(VALUES))
    return changed


def code_of(*words: str) -> int:
    """How `kvswarm validate` would end."""
    try:
        code = commands.main(["validate", *words], standalone_mode=False)
    except (KvswarmError, click.ClickException) as error:
        return error.exit_code
    return int(code or 0)


def test_a_mutated_profile_ends_with_0_or_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback would be raised through this test."""
    monkeypatch.chdir(tmp_path)
    documents = [
        yaml.safe_load((PACKAGED / f"{name}.yaml").read_text("utf-8")) for name in packaged_names()
    ]
    words = sorted({str(at[-1]) for document in documents for at in places(document)})
    rng = random.Random(6)  # noqa: S311 - an order, no secret
    codes: Counter[int] = Counter()
    path = tmp_path / "mutated.yaml"
    for number in range(COUNT):
        document = mutated(rng.choice(documents), words, rng)
        path.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
        code = code_of("--profile", str(path), *rng.choice(SERVERS))
        assert code in {0, 2}, f"number {number}: {code}\n{path.read_text('utf-8')}"
        codes[code] += 1
    capfd.readouterr()
    assert set(codes) == {0, 2}  # else the mutations are too tame, or too wild
