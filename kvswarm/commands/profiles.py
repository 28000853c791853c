"""`kvswarm profiles`: the packaged profiles, which of them fit a use case, and one in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import yaml
from rich.console import Console
from rich.markup import escape

from kvswarm.commands.wanted import flag_lines
from kvswarm.errors import UsageError
from kvswarm.profiles.load import PackagedProfile, list_profiles, load_profile
from kvswarm.profiles.problems import nearest

USE_CASES: Final = {
    "production-baseline": "what to measure first, and again after every change",
    "cost": "tokens per GPU hour",
    "latency": "answers that a person or an agent waits for",
    "api-integration": "structured answers, tools, conversations",
    "resource-planning": "how much of which hardware",
    "backend-selection": "vLLM, TGI or TensorRT-LLM on the same footing",
    "development": "does it work at all",
}
"""What `--use-case` takes, and what each asks."""


def show_profiles(use_case: str | None, *, as_json: bool) -> None:
    """List profiles, all or those for a use case. Raises UsageError where there is no such one."""
    entries = list_profiles()
    if use_case is not None:
        entries = [entry for entry in entries if _known(use_case) in entry.recommended_for]
    console = Console()
    if as_json:
        console.print_json(data=[asdict(entry) for entry in entries])
    elif use_case is not None:
        _print_recommended(use_case, entries, console)
    else:
        _print_list(entries, console)


def _known(use_case: str) -> str:
    if use_case not in USE_CASES:
        raise UsageError(
            f"--use-case {use_case!r}: there is none of that name",
            fix=f"Use cases: {', '.join(USE_CASES)}.{nearest(use_case, USE_CASES)}",
        )
    return use_case


def _print_list(entries: Sequence[PackagedProfile], console: Console) -> None:
    for entry in entries:
        fits = ", ".join(entry.recommended_for)
        _print(f"{entry.name:32} {entry.pattern:8} {fits}".rstrip(), console)
        _print(f"    {entry.description}", console)
        if entry.needs:
            _print(f"    needs: {entry.needs}", console)
    console.print(
        "\nkvswarm profiles --use-case NAME recommends; kvswarm profiles NAME shows one whole.",
        soft_wrap=True,
    )


def _print(text: str, console: Console) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)


def _print_recommended(use_case: str, entries: Sequence[PackagedProfile], console: Console) -> None:
    console.print(f"For {use_case} ({USE_CASES[use_case]}):", style="bold")
    for entry in entries:
        console.print(f"\n{escape(entry.name)}", style="bold", highlight=False)
        for label, text in (
            ("does", entry.description),
            ("needs", entry.needs or "any server"),
            ("expect", entry.expect),
        ):
            if text:
                _print(f"  {label:7} {text}", console)
        _print(f"  run     kvswarm run --profile {entry.name} --url URL", console)


def show_profile(name: str, *, as_json: bool) -> None:
    """Print one profile as it is resolved. Raises ProfileError."""
    plain = load_profile(name).to_dict()
    if as_json:
        Console().print_json(data=plain)
    else:
        text = yaml.safe_dump(json.loads(json.dumps(plain)), sort_keys=False, allow_unicode=True)
        Console().print(escape(text), soft_wrap=True, highlight=False)


def show_flags(name: str, version: str, model: str | None) -> None:
    """Print how to start a server for a profile. Raises ProfileError or UsageError."""
    console = Console()
    for line in flag_lines(load_profile(name), version, model):
        _print(line, console)
