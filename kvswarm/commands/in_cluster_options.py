"""The flags of `kvswarm run` that make the run on a cluster, and what they ask for.

In:  the command line's values.  Out: `InCluster`.  Raises UsageError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from kvswarm.commands.manifest import node_selector, tolerations
from kvswarm.errors import UsageError
from kvswarm.kserve.on_cluster import Places, SecretVariable
from kvswarm.kserve.run_pods import Pods, Share

SECRET_VARIABLE: Final = re.compile(r"([A-Za-z_]\w*)=([a-z0-9][a-z0-9.-]*)/([-.\w]+)")
HAND_OVER_PORT: Final = 5559
OPTIONS: Final = (
    click.option("--in-cluster", is_flag=True, help="Make the run on a cluster, not here."),
    click.option(
        "--workers",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="With --in-cluster: pods that make the load; default: 1.",
    ),
    click.option(
        "--image", metavar="I", help="With --in-cluster: kvswarm's image, as you built it."
    ),
    click.option(
        "--image-pull-secret", multiple=True, metavar="NAME", help="Secret of its registry."
    ),
    click.option(
        "--secret-env",
        multiple=True,
        metavar="VAR=SECRET/KEY",
        help="Environment variable of the pods, from a Secret; repeatable.",
    ),
    click.option(
        "--results-claim", metavar="NAME", help="Claim that keeps the run directory, too."
    ),
    click.option("--data-claim", metavar="NAME", help="Claim to read large files from, at /data."),
    click.option(
        "--worker-cpus", type=click.IntRange(1), metavar="C", help="Whole CPUs of a worker's pod."
    ),
    click.option("--worker-memory", metavar="Q", help="Its memory; default: 2Gi."),
    click.option(
        "--master-cpus", type=click.IntRange(1), metavar="C", help="Whole CPUs of the master's pod."
    ),
    click.option("--master-memory", metavar="Q", help="Its memory; default: 2Gi."),
    click.option("--away-from-gpus", is_flag=True, help="Only on nodes without a GPU."),
    click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="Label of the nodes."),
    click.option(
        "--toleration", multiple=True, metavar="KEY[=V][:EFFECT]", help="Taint to tolerate."
    ),
    click.option("--account", metavar="NAME", help="Service account of the master's pod."),
    click.option(
        "--deadline", type=click.IntRange(60), metavar="S", help="End the pods after so long."
    ),
)
KEYS: Final = (
    "in_cluster", "workers", "image", "image_pull_secret", "secret_env", "results_claim",
    "data_claim", "worker_cpus", "worker_memory", "master_cpus", "master_memory",
    "away_from_gpus", "node_selector", "toleration", "account", "deadline",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    """A run on a cluster, as it was asked for."""

    namespace: str
    workers: int
    pods: Pods
    master_share: Share
    worker_share: Share | None
    """None: as many CPUs as it has processes, and one."""
    places: Places
    variables: tuple[SecretVariable, ...] = ()
    context: str | None = None
    account: str | None = None
    deadline_s: int | None = None
    """None: as the profile's length asks for."""


def in_cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def in_cluster_asked(
    values: MutableMapping[str, Any], *, port: int | None, hand_over_port: int | None
) -> InCluster | None:
    """Take the flags out of the values. Raises UsageError where one lacks another."""
    taken = {name: values.pop(name, None) for name in KEYS}
    if not taken["in_cluster"]:
        given = [name for name, value in taken.items() if value]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise UsageError(f"{flag}: goes with --in-cluster", fix="Add it, or leave this out.")
        return None
    namespace, context = values.get("namespace"), values.get("context")
    if not values.get("service"):  # whose flags they would be
        values["namespace"] = values["context"] = None
    for flag, what, value in (
        ("--namespace", "the namespace that it is made in", namespace),
        ("--image", "kvswarm's image: see docs/containers.md", taken["image"]),
    ):
        if not value:
            raise UsageError(f"--in-cluster: lacks {flag}", fix=f"Name {what}.")
    memory = {"memory": taken["worker_memory"]} if taken["worker_memory"] else {}
    cpus = {"cpus": taken["worker_cpus"]} if taken["worker_cpus"] else {}
    worker = Share(**cpus, **memory) if cpus or memory else None
    master = {"cpus": taken["master_cpus"], "memory": taken["master_memory"]}
    return InCluster(
        namespace=str(namespace),
        context=context,
        workers=taken["workers"] or 1,
        pods=Pods(
            image=taken["image"],
            pull_secrets=tuple(taken["image_pull_secret"]),
            node_selector=node_selector(taken["node_selector"]),
            tolerations=tolerations(taken["toleration"]),
            away_from_gpus=taken["away_from_gpus"],
            service=values.get("service"),
        ),
        master_share=Share(**{name: value for name, value in master.items() if value}),
        worker_share=worker,
        places=Places(
            results_claim=taken["results_claim"],
            data_claim=taken["data_claim"],
            port=port or Places().port,
            hand_over_port=hand_over_port or HAND_OVER_PORT,
        ),
        variables=secret_variables(taken["secret_env"]),
        account=taken["account"],
        deadline_s=taken["deadline"],
    )


def secret_variables(texts: Sequence[str]) -> tuple[SecretVariable, ...]:
    """Read `VAR=SECRET/KEY`, each. Raises UsageError, which shows no value given by mistake."""
    variables = []
    for text in texts:
        found = SECRET_VARIABLE.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--secret-env {text.partition('=')[0]}=...: is not VAR=SECRET/KEY",
                fix="Name a Secret of the namespace and a key of it, never a value.",
            )
        variable, secret, key = found.groups()
        variables.append(SecretVariable(variable=variable, secret=secret, key=key))
    return tuple(variables)
