"""The flags of `kvswarm manifest`, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

OPTIONS: Final = (
    click.option(
        "--backend", default="vllm", show_default=True, metavar="B", help="The model server to run."
    ),
    click.option("--model", required=True, metavar="URI", help="Where the model comes from."),
    click.option("--namespace", required=True, metavar="N", help="Namespace of the service."),
    click.option("--service", required=True, metavar="S", help="Name of the InferenceService."),
    click.option(
        "--profile",
        default="standard",
        show_default=True,
        metavar="P",
        help="What it is served for.",
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Key of the profile."
    ),
    click.option(
        "--mode",
        type=click.Choice(["standard", "knative"]),
        default="standard",
        show_default=True,
        help="KServe's mode of deployment.",
    ),
    click.option("--image", metavar="I", help="Image in place of the backend's own."),
    click.option("--vllm-version", metavar="V", help="vLLM's version in the image, for its flags."),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs of a replica."),
    click.option(
        "--gpu-resource",
        default="nvidia.com/gpu",
        show_default=True,
        metavar="R",
        help="What the cluster calls a GPU; a MIG slice is nvidia.com/mig-1g.10gb or the like.",
    ),
    click.option("--cpu", default="4", show_default=True, metavar="Q", help="CPUs of a replica."),
    click.option("--memory", default="32Gi", show_default=True, metavar="Q", help="Memory of it."),
    click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="Label of its nodes."),
    click.option(
        "--toleration", multiple=True, metavar="KEY[=V][:EFFECT]", help="Taint to tolerate."
    ),
    click.option(
        "--min-replicas",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="N",
        help="Fewest replicas.",
    ),
    click.option("--max-replicas", type=click.IntRange(min=1), metavar="N", help="Most replicas."),
    click.option(
        "--autoscaler",
        type=click.Choice(["none", "kpa", "hpa", "keda", "external"]),
        help="What changes the number of replicas.",
    ),
    click.option(
        "--scale-metric",
        type=click.Choice(["concurrency", "rps", "cpu", "memory"]),
        help="What it goes by.",
    ),
    click.option("--scale-target", type=click.IntRange(min=1), metavar="N", help="Its target."),
    click.option("--scale-query", metavar="PROMQL", help="What keda goes by instead."),
    click.option("--prometheus", metavar="URL", help="The Prometheus that answers the query."),
    click.option("--secret", metavar="NAME", help="Secret that the model is loaded with."),
    click.option("--service-account", metavar="NAME", help="Service account of the pods."),
)


def manifest_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
