"""`kvswarm validate`: a profile against the rules, before a server or a GPU hour is spent on it.

In:  the flags of the command line.
Out: findings as text, JSON or SARIF; exit code 0, or 2 where something must not be run.
It asks nobody: files are read here, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from kvswarm.commands.wanted import config_of
from kvswarm.errors import EXIT_PASSED, EXIT_USAGE, UsageError
from kvswarm.guardrails.catalog import all_rules, rule_of
from kvswarm.guardrails.check import Checked, check_profile
from kvswarm.guardrails.explain import explained
from kvswarm.guardrails.facts import CPU, Deployment, Facts, Server
from kvswarm.guardrails.rule import Finding
from kvswarm.guardrails.sarif import sarif
from kvswarm.guardrails.sizing import estimate_of
from kvswarm.kserve.checkpoints import VLLM_VERSIONS
from kvswarm.profiles.overrides import Overrides
from kvswarm.serving.estimate import Estimate
from kvswarm.serving.gpus import device_named
from kvswarm.serving.model_files import ModelFiles, read_model
from kvswarm.serving.versions import NEWEST, vllm_version

Form = Literal["text", "json", "sarif"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateRequest:
    """What the command line asked for."""

    profile: str
    settings: tuple[str, ...]
    server: Server
    strict: bool = False
    form: Form = "text"


def validate_typed(values: Mapping[str, Any]) -> int:
    """Validate for the flags by their names; give the exit code. Raises UsageError."""
    if values["explain"] is not None:
        click.echo(explained(rule_of(values["explain"])))
        return EXIT_PASSED
    if values["as_json"] and values["as_sarif"]:
        raise UsageError("--json and --sarif: one output has one form", fix="Keep one of them.")
    form: Form = "json" if values["as_json"] else "sarif" if values["as_sarif"] else "text"
    return validate(
        ValidateRequest(
            profile=values["profile"],
            settings=values["settings"],
            server=server_of(values),
            strict=values["strict"],
            form=form,
        )
    )


def server_of(values: Mapping[str, Any]) -> Server:
    """What the flags say of the server. Raises UsageError or ProfileError."""
    backend = values["backend"]
    version = values["runtime_version"] or VLLM_VERSIONS.get(backend, str(NEWEST))
    model = values["model"]
    files = None if model is None else files_of(model)
    gpu = values["gpu"]
    if gpu is not None and gpu.lower() not in CPU:
        device_named(gpu, values["mig"])
    elif values["mig"] is not None:
        raise UsageError("--mig: a slice of which GPU?", fix="Name the GPU with --gpu.")
    wanted = [values[key] for key in ("backend", "replicas", "mode")]
    deployment = None
    if any(each is not None for each in wanted):
        replicas = values["replicas"]
        deployment = Deployment(
            mode=values["mode"] or "standard",
            min_replicas=1 if replicas is None else replicas,
            gpu_resource=f"nvidia.com/mig-{values['mig']}" if values["mig"] else "nvidia.com/gpu",
        )
    return Server(
        backend=backend or "vllm",
        version=vllm_version(version),
        model=model,
        config=None if files is None else files.config,
        weights_bytes=None if files is None else files.weights_bytes,
        gpu=gpu,
        mig=values["mig"],
        deployment=deployment,
    )


def files_of(model: str) -> ModelFiles | None:
    """What --model names: a config.json, or a directory that has one; None for a name.

    Raises UsageError where it is there and cannot be read.
    """
    path = Path(model).expanduser()
    if path.exists():
        return read_model(path)
    if path.suffix == ".json":
        raise UsageError(f"--model {model}: there is no such file", fix="Give its path.")
    return None


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def files_beside(facts: Facts) -> Server:
    """Read what lies here of the draft and of the adapters that the features name."""
    draft = facts.speculation.model if facts.speculation is not None else None
    modules = facts.value("lora_modules") or {}
    ranks = {str(name): _rank(str(path)) for name, path in modules.items()}
    return replace(
        facts.server,
        draft_config=None if draft is None else config_of(Path(draft)),
        adapter_ranks={name: rank for name, rank in ranks.items() if rank is not None},
    )


def _rank(directory: str) -> int | None:
    config = _read(Path(directory) / "adapter_config.json") or {}
    rank = config.get("r")
    return rank if isinstance(rank, int) and not isinstance(rank, bool) else None


def validate(request: ValidateRequest) -> int:
    """Check a profile and print what is found; give the exit code."""
    overrides = Overrides(settings=request.settings)
    checked = check_profile(request.profile, overrides, request.server, files_beside)
    failed = bool(checked.errors) or (request.strict and bool(checked.warnings))
    if request.form == "sarif":
        click.echo(json.dumps(sarif(checked.findings, all_rules()), indent=2))
    elif request.form == "json":
        click.echo(json.dumps(_plain(request, checked, failed=failed), indent=2, default=str))
    else:
        _print(request, checked)
    return EXIT_USAGE if failed else EXIT_PASSED


def _plain(request: ValidateRequest, checked: Checked, *, failed: bool) -> dict[str, Any]:
    server, figures = request.server, _estimate(checked)
    return {
        "profile": request.profile,
        "passed": not failed,
        "backend": server.backend,
        "runtime_version": str(server.version) if server.runtime == "vllm" else None,
        "errors": len(checked.errors),
        "warnings": len(checked.warnings),
        "findings": [finding.to_dict() for finding in checked.findings],
        "estimate": None if figures is None else figures.to_dict(),
    }


def _estimate(checked: Checked) -> Estimate | None:
    """What the model would take and do, where model and GPU are known."""
    return None if checked.facts is None else estimate_of(checked.facts)


def _print(request: ValidateRequest, checked: Checked) -> None:
    for finding in checked.findings:
        click.echo("\n".join(described(finding)))
    server = request.server
    version = f" {server.version}" if server.runtime == "vllm" else ""
    counts = (
        f"{_count(len(checked.errors), 'error')}, {_count(len(checked.warnings), 'warning')}"
        if checked.findings
        else "nothing found"
    )
    click.echo(f"{request.profile} for {server.runtime}{version}: {counts}.")
    figures = _estimate(checked)
    if figures is not None:
        click.echo("\n".join(figures.lines()))


def described(finding: Finding) -> Sequence[str]:
    """A finding in lines: where and what, why, and what to do."""
    return (
        f"{finding.place}: {finding.severity} {finding.rule.id}: {finding.message}",
        f"  Why: {finding.rule.reason} [{finding.rule.source}]",
        f"  Fix: {finding.fix}",
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
