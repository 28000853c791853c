"""Check a rule's example as a person would: a file, and what is known of its server."""

from __future__ import annotations

from pathlib import Path

from kvswarm.guardrails.check import Checked, check_profile
from kvswarm.guardrails.facts import Server
from kvswarm.guardrails.rule import Example
from kvswarm.serving.versions import vllm_version


def server_of(example: Example) -> Server:
    """The server that an example is for."""
    return Server(
        backend=example.backend,
        version=vllm_version(example.version),
        model=example.model,
        config=example.config,
        draft_config=example.draft_config,
        adapter_ranks=example.adapter_ranks,
        gpu=example.gpu,
        mig=example.mig,
        deployment=example.deployment,
    )


def check_example(example: Example, folder: Path) -> Checked:
    """Write it over `standard`, and check it."""
    path = folder / "example.yaml"
    extends = "" if "extends:" in example.profile else "extends: standard\n"
    path.write_text(extends + example.profile, "utf-8")
    return check_profile(str(path), None, server_of(example))
