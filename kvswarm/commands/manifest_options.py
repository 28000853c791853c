"""The flags of `kvswarm manifest`, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click


def _list_clusters(context: click.Context, _parameter: click.Parameter, wanted: object) -> None:
    """Print the table instead of asking for the flags that a manifest needs."""
    if not wanted:
        return
    from kvswarm.commands.clusters import clusters_table  # noqa: PLC0415 - keeps --help quick

    click.echo(clusters_table())
    context.exit()


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
    click.option(
        "--kind",
        type=click.Choice(["isvc", "llm"]),
        default="isvc",
        show_default=True,
        help="InferenceService, or LLMInferenceService.",
    ),
    click.option("--image", metavar="I", help="Image in place of the backend's own."),
    click.option("--vllm-version", metavar="V", help="vLLM's version in the image, for its flags."),
    click.option(
        "--cluster",
        metavar="C[:GPU]",
        help="Kind of cluster, or a file of your own: labels, taints and sizes of its nodes.",
    ),
    click.option("--gpu", metavar="GPU[/SLICE]", help="Which of the cluster's GPUs."),
    click.option(
        "--list-clusters",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list_clusters,
        help="Show the clusters, their GPUs and prices, and leave.",
    ),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs of a replica."),
    click.option(
        "--nodes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Nodes of a replica; --gpus is then of each.",
    ),
    click.option(
        "--gpu-resource",
        metavar="R",
        help="What the cluster calls a GPU; a MIG slice is nvidia.com/mig-1g.10gb or the like.",
    ),
    click.option("--cpu", metavar="Q", help="CPUs of a replica, on each node. Default: 4."),
    click.option("--memory", metavar="Q", help="Memory of it. Default: 32Gi."),
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
    click.option(
        "--canary-percent",
        type=click.IntRange(0, 100),
        metavar="P",
        help="Share of the traffic for a canary.",
    ),
    click.option("--canary-model", metavar="URI", help="Its model, in Standard mode."),
    click.option("--canary-image", metavar="I", help="Its image, in Standard mode."),
    click.option(
        "--router",
        type=click.Choice(["none", "route", "scheduler"]),
        help="What leads to an LLMInferenceService. Default: route.",
    ),
    click.option("--router-gateway", metavar="[N/]G", help="The Gateway of its route."),
    click.option(
        "--prefill-replicas",
        type=click.IntRange(min=1),
        metavar="N",
        help="Replicas that read prompts alone.",
    ),
    click.option("--adapter", multiple=True, metavar="NAME=URI", help="Adapter for it to load."),
    click.option("--secret", metavar="NAME", help="Secret that the model is loaded with."),
    click.option("--service-account", metavar="NAME", help="Service account of the pods."),
)


def manifest_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
