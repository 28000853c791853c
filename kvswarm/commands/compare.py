"""`kvswarm compare`: backends or quantizations of one model, in turn on the same machine.

In:  the flags of the command line.
Out: a directory with a run directory for each variant and comparison.json; a table; an exit code.

All variants are checked before the first is deployed. Each is deployed, warmed up, measured and
taken down before the next, so that all have the same GPU. comparison.json is written after every
step, and what a directory holds of finished runs is kept: the same command goes on where it ended.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvswarm.commands.compare_dry_run import show
from kvswarm.commands.compare_file import (
    COMPARISON_FILE,
    ClusterFile,
    Comparison,
    MachineFile,
    VariantRun,
    read_comparison,
    unlike,
)
from kvswarm.commands.compare_options import names_of, pairs_of
from kvswarm.commands.compare_plan import CompareRequest, Plan, Planned, plan
from kvswarm.commands.compare_run import Stage, measured
from kvswarm.commands.compare_table import render
from kvswarm.commands.cost_options import CostAsked
from kvswarm.commands.deploy import ending_as_interrupts
from kvswarm.commands.load import RunRequest
from kvswarm.commands.series import (
    Series,
    check_same,
    compare_again,
    field_differences,
    folder_of,
    is_begun,
    make_run,
    profile_differences,
    worst_code,
)
from kvswarm.errors import EXIT_INTERRUPTED
from kvswarm.kserve.cluster import Cluster
from kvswarm.rundir import RunDir
from kvswarm.swarm.options import OPTIONS

SAME: Final = ("model", "profile", "seed", "namespace", "mode")
"""What a directory's earlier call must have had in common."""


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
                costs=CostAsked(cloud=values["cluster"], gpu=values["gpu"]),
                validated=not values["skip_rules"],
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
    decided = plan(request)
    if request.dry_run:
        show(decided)
        return 0
    begun = is_begun(request.out, COMPARISON_FILE)
    cluster = Cluster.connect(request.context)
    state = _state(request, decided, cluster)
    if begun and request.out is not None:
        _go_on(request.out, state, decided)
    folder = folder_of(request.out, COMPARISON_FILE, f"{state.profile}-comparison")
    state.write(folder)
    console = Console(stderr=True)
    stage = Stage(cluster=cluster, folder=folder, plan=decided, request=request, console=console)
    with ending_as_interrupts():
        interrupted = _run_all(stage, state)
    if request.as_json:
        sys.stdout.write((folder / COMPARISON_FILE).read_text())
    else:
        render(state, folder)
    if any(variant.status != "done" for variant in state.variants):
        _say_how_to_go_on(request, folder, console)
    return EXIT_INTERRUPTED if interrupted else worst_code(state.variants)


def _state(request: CompareRequest, decided: Plan, cluster: Cluster) -> Comparison:
    """Give the comparison before anything was run. Raises ClusterError."""
    machine = decided.machine
    different = unlike([each.manifests.left_out for each in decided.planned])
    variants = [_variant(each, keys) for each, keys in zip(decided.planned, different, strict=True)]
    return Comparison(
        model=request.manifest["model"],
        profile=decided.profile.name,
        seed=decided.profile.seed,
        cluster=ClusterFile(
            server=cluster.server, version=".".join(str(part) for part in cluster.version())
        ),
        namespace=decided.namespace,
        mode=decided.mode,
        machine=MachineFile(
            gpu_resource=machine.gpu_resource,
            gpus=machine.gpus or 0,
            cpu=machine.cpu,
            memory=machine.memory,
            node_selector=dict(machine.node_selector),
            tolerations=[dict(each) for each in machine.tolerations],
        ),
        order=[variants[place].text for place in decided.order],
        variants=variants,
        notes=decided.notes,
    )


def _variant(each: Planned, different: list[str]) -> VariantRun:
    return VariantRun(
        text=each.variant.text,
        directory=each.variant.directory,
        backend=each.variant.backend,
        quantization=each.variant.quantization,
        model=each.variant.model,
        service=each.service,
        manifests_sha256=each.sha256,
        image=each.image,
        left_out=list(each.manifests.left_out),
        unlike=different,
        notes=[*each.variant.notes, *each.manifests.notes],
    )


def _go_on(folder: Path, state: Comparison, decided: Plan) -> None:
    """Take over what an earlier call did. Raises UsageError where it compared something else."""
    before = read_comparison(folder)
    different = field_differences(before, state, SAME)
    different += field_differences(before.cluster, state.cluster, ("server",))
    different += field_differences(before.machine, state.machine, MachineFile.__struct_fields__)
    known = {variant.text: variant for variant in before.variants}
    for variant, each in zip(state.variants, decided.planned, strict=True):
        earlier = known.get(variant.text)
        if earlier is None or earlier.status == "pending":
            continue
        changed = field_differences(earlier, variant, ("model", "service"))
        if not changed and earlier.manifests_sha256 != variant.manifests_sha256:
            changed = ["manifests"]
        different += [f"{change} of {variant.text}" for change in changed]
        different += profile_differences(RunDir(folder / variant.directory), each.profile)
    check_same("comparison", folder, different)
    for place, variant in enumerate(state.variants):
        earlier = known.get(variant.text)
        if earlier is not None:
            earlier.unlike = variant.unlike  # of the variants of this call
            state.variants[place] = earlier


def _run_all(stage: Stage, state: Comparison) -> bool:
    """Run what is not done yet, in order. True: a person interrupted it."""
    series = Series(stage.folder, state.variants, stage.console)
    places = stage.plan.order
    interrupted = False
    for number, place in enumerate(places, 1):
        outcome, each = state.variants[place], stage.plan.planned[place]
        head = f"Compare {number} of {len(places)}: {outcome.text}"
        stage.console.print(head, style="bold", soft_wrap=True, markup=False)
        how = measured(stage, each, outcome, lambda: state.write(stage.folder))
        interrupted = not make_run(series, outcome, each.profile, how)
        state.write(stage.folder)
        if interrupted or (stage.request.fail_fast and outcome.status == "failed"):
            break
    compare_again(series, [each.profile for each in stage.plan.planned])
    state.write(stage.folder)
    return interrupted


def _say_how_to_go_on(request: CompareRequest, folder: Path, console: Console) -> None:
    words = list(request.run.argv)
    if request.out is None:
        words += ["--out", str(folder)]
    console.print(f"Go on: {shlex.join(words)}", soft_wrap=True, markup=False, highlight=False)
